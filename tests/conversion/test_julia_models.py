"""Models that a user has in Julia, as networks: from a file, and from juliacall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from udlbridge import errors

JULIA = """
using Flux

numbers(size...) = reshape(sin.(1:prod(size)), size...) ./ 3

"a chain of images, with a kernel that is no flipped one"
build() = Chain(
    CrossCor(numbers(2, 3, 2, 4), numbers(4), relu), Flux.flatten,
    Dense(numbers(5, 36), numbers(5), tanh), Dense(numbers(2, 5), false),
)

"the same, with Flux's own convolution, which flips"
flipped() = Chain(Conv(numbers(2, 3, 2, 4), numbers(4), relu), build().layers[2:end]...)

"a network that is no list of layers: PyTorch's LSTM has two biases, of which Flux has the sum"
function series()
    lstm = f64(LSTM(2 => 3))
    lstm.cell.Wi .= numbers(12, 2)
    lstm.cell.Wh .= numbers(12, 3)
    lstm.cell.bias .= 2 .* numbers(12)
    return Chain(lstm, x -> x[:, end, :], Dense(numbers(2, 3), numbers(2)))
end

"a struct of the user's, which is not said to be a layer"
struct Ring
    W::Matrix{Float64}
    scale::Vector{Float64}
end
(r::Ring)(x) = r.scale .* sin.(r.W * x)

ring() = Ring(numbers(3, 2), [0.5])
tokens() = f64(Chain(Embedding(numbers(3, 4)), x -> dropdims(sum(x; dims=2); dims=2), Dense(numbers(2, 3), false)))
struct Reader{E,H}
    table::E
    head::H
end
Flux.@layer Reader
(r::Reader)(t) = r.head(dropdims(sum(r.table(t); dims=2); dims=2))
reader() = f64(Reader(Embedding(numbers(3, 4)), Dense(numbers(2, 3), false)))
half() = f16(Dense(2 => 2))
nothing_to_train() = x -> 2 .* x
oh() = error("oh")
"""

PYTHON = """
import numpy as np
import torch
from torch import nn

def numbers(*size):  # Julia's memory, in which the first axis is the fastest
    return torch.from_numpy(np.sin(np.arange(1, np.prod(size) + 1)).reshape(size, order="F") / 3)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.body, self.head = nn.Conv2d(2, 4, (3, 2)), nn.Linear(36, 5), nn.Linear(5, 2, bias=False)

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.relu(self.conv(x)).flatten(1))))

class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

def series():
    net = Series().double()
    with torch.no_grad():
        net.lstm.weight_ih_l0.copy_(numbers(12, 2))
        net.lstm.weight_hh_l0.copy_(numbers(12, 3))
        net.lstm.bias_ih_l0.copy_(numbers(12))
        net.lstm.bias_hh_l0.copy_(numbers(12))
        net.head.weight.copy_(numbers(2, 3))
        net.head.bias.copy_(numbers(2))
    return net

def build():
    net = Net().double()
    with torch.no_grad():
        net.conv.weight.copy_(numbers(2, 3, 2, 4).permute(3, 2, 1, 0))
        net.conv.bias.copy_(numbers(4))
        net.body.weight.copy_(numbers(5, 36))
        net.body.bias.copy_(numbers(5))
        net.head.weight.copy_(numbers(2, 5))
    return net
"""

X = np.random.default_rng(0).standard_normal((4, 2, 5, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("own")
    (found / "net.jl").write_text(JULIA)
    (found / "net.py").write_text(PYTHON)
    return found


def module_of(folder: Path) -> Any:
    pytest.importorskip("torch")
    scope: dict[str, Any] = {}
    exec(PYTHON, scope)
    return scope["build"]()


@pytest.mark.julia
def test_a_chain_of_a_file_is_a_network_everywhere(folder: Path, tmp_path: Path) -> None:
    network = ub.julia_model(folder / "net.jl", "build")
    model = ub.from_flux(network)
    assert list(network.params) == list(model.params)
    for name, value in model.params.items():
        np.testing.assert_array_equal(network.params[name], value)
    assert_within_budget(ub.outputs(network, X), ub.outputs(model, X, backend="reference"))
    assert_within_budget(ub.ntk(network, X, outputs="full"), ub.ntk(model, X, outputs="full", backend="reference"))
    assert_within_budget(ub.input_jacobian(network, X), ub.input_jacobian(model, X, backend="reference"))
    for name, block in ub.jacobian(network, X).items():
        assert_within_budget(block, ub.jacobian(model, X, backend="reference")[name])
    kernel = ub.ntk(network, X)
    assert_within_budget(ub.spectrum(network, x=X).eigenvalues, ub.spectrum(kernel).eigenvalues)
    assert_within_budget(np.asarray(ub.compute_kernel(network, X, tmp_path / "store")), kernel)
    assert_within_budget(ub.features(network, X), ub.features(model, X, backend="reference"))
    assert ub.plan(network, 100).n == 100
    narrow = network.astype("float32")
    assert ub.outputs(narrow, X.astype(np.float32)).dtype == np.float32
    report = ub.check(network, X, backends=["julia", "reference"])
    assert report.ok, str(report)
    assert {"structured", "plain", "differences", "reference"} <= set(report.engines)


@pytest.mark.julia
def test_a_struct_of_the_users_own(folder: Path) -> None:
    network, x = ub.julia_model(folder / "net.jl", "ring"), X.reshape(-1, 2)[:6]
    assert (network.name, network.param_shapes()) == ("Ring", {"0.W": (2, 3), "0.scale": (1,)})
    w, scale = network.params["0.W"], network.params["0.scale"]
    assert_within_budget(ub.outputs(network, x), scale * np.sin(x @ w))
    by_w = (scale * np.cos(x @ w))[:, :, None, None] * np.einsum("ni,ao->naio", x, np.eye(3))
    by_scale = np.sin(x @ w)[:, :, None]
    rows = np.concatenate([by_w.reshape(6, 3, -1), by_scale], axis=2)
    expected = np.einsum("nap,map->nm", rows, rows)
    assert_within_budget(ub.ntk(network, x), expected)
    assert_within_budget(ub.ntk(network, x, params="0.scale"), np.einsum("nap,map->nm", by_scale, by_scale))
    moved = network.with_params({"0.W": 2 * w, "0.scale": scale})
    assert_within_budget(ub.outputs(moved, x), scale * np.sin(2 * x @ w))
    assert (
        moved.hash() != network.hash() == ub.julia_model(folder / "net.jl", "ring").with_params(network.params).hash()
    )
    with pytest.raises(errors.ConversionError, match=r"Ring stays float64 when it is converted to float32"):
        network.astype("float32")  # its fields are of one type
    report = ub.compare_models(network, moved, x)
    assert (report.ok, report.steps) == (False, ())
    assert "a model in Julia" in report.hints[0]
    with pytest.raises(errors.ConversionError, match=r"layers of Ring, a model in Julia"):
        ub.features(network, x)


@pytest.mark.julia
def test_my_module_your_chain_and_the_proof(folder: Path) -> None:
    module, path = module_of(folder), folder / "net.jl"
    report = ub.compare_models(module, ub.julia_model(path, "build"), X)
    assert report.ok, str(report)
    assert report.backend == "torch and julia"
    assert report.input_jacobian is not None
    assert [(step.first, step.second) for step in report.steps][-1] == ("head (linear)", "3 (linear)")
    crossed = ub.compare_models(ub.from_torch(module, X), ub.julia_model(path, "build"), X, backend="torch")
    assert (crossed.ok, crossed.parted) == (True, None)
    assert [step.second for step in crossed.steps][-1] == "3 (linear)"
    assert len(crossed.steps) >= 3
    report = ub.compare_models(module, ub.julia_model(path, "flipped"), X)
    assert (report.ok, report.parted) == (False, 0)
    named = ub.compare_models(module, ub.julia_model(path, "flipped"), X, pairs={"conv": "0", "head": "3"})
    assert named.parted == 0
    assert any("flipped: Flux's Conv flips its kernel" in hint for hint in [*report.hints, *named.hints])


@pytest.mark.julia
def test_tokens_count_from_zero_here(folder: Path) -> None:
    network, x = ub.julia_model(folder / "net.jl", "tokens"), np.array([[0, 3], [1, 1], [2, 0]])
    table, readout = network.params["0.weight"], network.params["2.weight"]
    assert table.shape == (4, 3)
    assert_within_budget(ub.outputs(network, x), table[x].sum(axis=1) @ readout.T)
    with pytest.raises(errors.DTypeError, match="takes tokens"):
        ub.outputs(network, x.astype(float))
    with pytest.raises(errors.InputError, match=r"BoundsError"):
        ub.outputs(network, x + 1)


@pytest.mark.julia
def test_an_own_struct_that_looks_tokens_up(folder: Path) -> None:
    chain, own = (ub.julia_model(folder / "net.jl", name) for name in ("tokens", "reader"))
    x = np.array([[0, 3], [1, 1], [2, 0]])
    np.testing.assert_array_equal(ub.outputs(own, x), ub.outputs(chain, x))
    assert_within_budget(ub.ntk(own, x, outputs="full"), ub.ntk(chain, x, outputs="full"))
    graph = ub.from_flux(own, x)
    assert_within_budget(ub.ntk(graph, x, outputs="full", backend="reference"), ub.ntk(chain, x, outputs="full"))
    with pytest.raises(errors.InputError, match="invalid index"):
        ub.outputs(own, x.astype(float))


@pytest.mark.julia
def test_what_juliacall_made() -> None:
    from udlbridge.backends.julia import owner, runtime

    module = owner.run(runtime.start)
    chain = module.seval("Chain(Dense(3 => 4, tanh), Dense(4 => 2))")
    x = X.reshape(-1, 4)[:, :3].astype(np.float32)
    model = ub.from_flux(chain)
    assert_within_budget(ub.ntk(chain, x), ub.ntk(model, x, backend="reference"))
    assert ub.compare_models(chain, model, x, backend="reference").ok
    assert ub.spectrum(chain, x=x).eigenvalues.shape == (len(x),)
    assert ub.compare_models(chain, module.seval("Dense(3 => 2)"), x).ok is False
    with pytest.raises(errors.OptionError, match=r"output='y' with an AnyValue"):
        ub.ntk(chain, x, output="y")


@pytest.mark.julia
def test_what_cannot_be_a_network(folder: Path) -> None:
    path = folder / "net.jl"
    with pytest.raises(errors.ModelFileError, match=r"there is no file .*absent\.jl"):
        ub.julia_model(folder / "absent.jl", "build")
    with pytest.raises(errors.ModelFileError, match=r"net\.jl defines no absent"):
        ub.julia_model(path, "absent")
    with pytest.raises(errors.ModelFileError, match="oh gives no model: oh"):
        ub.julia_model(path, "oh")
    with pytest.raises(errors.ConversionError, match="no trainable parameters"):
        ub.julia_model(path, "nothing_to_train")
    with pytest.raises(errors.ConversionError, match=r"Dense has numbers of type Float16.* f32\(model\)"):
        ub.julia_model(path, "half")
    network = ub.julia_model(path, "build")
    with pytest.raises(errors.ShapeError, match=r"samples of shape \(2, 4, 5\), in Julia \(5, 4, 2, n\)"):
        ub.ntk(network, X.swapaxes(2, 3))
    with pytest.raises(errors.DTypeError, match="the model in Julia has float64"):
        ub.ntk(network, X.astype(np.float32))
    with pytest.raises(errors.ConversionError, match="training of Chain, a model in Julia"):
        ub.train(network, X, np.ones((4, 2)), epochs=1)
    with pytest.raises(errors.OptionError, match=r"pairs= with 'conv1' for the first network\. Allowed: 0, 1"):
        ub.compare_models(network, network, X, pairs={"conv1": "0"})


@pytest.mark.julia
def test_on_the_command_line(folder: Path) -> None:
    pytest.importorskip("torch")
    words = ("check", "--model", f"{folder}/net.py:build", "--n", 3, "--shape", "2,5,4")
    done = udlbridge(*words, "--against", f"{folder}/net.jl:build")
    assert done.returncode == 0, done.stderr
    assert "the same network" in done.stdout
    done = udlbridge(*words, "--against", f"{folder}/net.jl:flipped")
    assert done.returncode == 1, done.stderr
    assert "NOT the same network" in done.stdout


@pytest.mark.julia
@pytest.mark.slow
def test_a_recurrent_network_on_the_command_line(folder: Path) -> None:
    pytest.importorskip("torch")
    words = ("--n", 3, "--shape", "4,2")
    done = udlbridge("check", "--model", f"{folder}/net.py:series", "--against", f"{folder}/net.jl:series", *words)
    # PyTorch trains two biases, of which Flux has the sum: the same function, and another kernel.
    assert done.returncode == 1, done.stderr
    assert "the outputs are the same by other parameters" in done.stdout
    alone = udlbridge("check", "--model", f"{folder}/net.jl:series", *words)
    assert alone.returncode == 0, alone.stderr
    assert "reference" in alone.stdout
