"""Mistakes that ports are known for: where two networks part because of one, it is named, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import udlbridge as ub

X = np.random.default_rng(0).standard_normal((4, 3, 5, 7))

MISTAKES = {
    "flip": ("c2 (conv", "c2.weight of the first differs from what the second has; it is equal when flipped: Flux's"),
    "axes": ("c1 (conv", "c1.weight of the first differs from what the second has; it is equal when height and width"),
    "transpose": (
        "mid (linear",
        "mid.weight of the first differs from what the second has; it is equal when transposed",
    ),
    "sign": ("fc2 (linear", "fc2.weight of the first differs from what the second has; it is equal when its sign"),
    "flatten": ("reshape", "the second flattens in the order (H, W, C), the first in (C, H, W)"),
    "epsilon": ("ln (layer_norm", "the epsilon of the norm is 0.001 in the first, 1e-06 in the second"),
    "gelu": ("gelu", "the first has GELU in the erf form, the second in the tanh form"),
    "deviation": ("bn (batch_norm", "the first has the variance where the second has the deviation"),
}
"""By mistake the step of the right network where a wrong one parts from it, and what is said."""


class Net(nn.Module):
    """Functions in its own forward: a step is a call of a function, and not always a module."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake = mistake
        self.c1, self.bn, self.c2 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, stride=2)
        self.fc1, self.mid, self.ln, self.fc2 = nn.Linear(30, 7), nn.Linear(7, 7), nn.LayerNorm(7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        mistake, ln = self.mistake, self.ln
        h = F.relu(self.bn(self.c1(x)))
        h = F.relu(self.c2(h))
        h = (h.permute(0, 2, 3, 1) if mistake == "flatten" else h).flatten(1)
        h = F.gelu(self.fc1(h), approximate="tanh" if mistake == "gelu" else "none")
        h = torch.tanh(self.mid(h))
        return self.fc2(F.layer_norm(h, (7,), ln.weight, ln.bias, eps=1e-6 if mistake == "epsilon" else 1e-3))


class Around(nn.Module):
    """The same, and a product that changes nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = 1.0 * self.net(x)
        return result


def net(mistake: str = "") -> Net:
    torch.manual_seed(0)
    module = Net(mistake).double().eval()
    with torch.no_grad():
        for value in (module.bn.running_mean, module.bn.weight, module.bn.bias, module.ln.weight, module.ln.bias):
            value.normal_()  # type: ignore[union-attr]
        module.bn.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        if mistake == "flip":
            module.c2.weight.copy_(module.c2.weight.flip(2, 3))
        if mistake == "axes":
            module.c1.weight.copy_(module.c1.weight.swapaxes(2, 3).clone())
        if mistake == "transpose":
            module.mid.weight.copy_(module.mid.weight.T.clone())
        if mistake == "sign":
            module.fc2.weight.neg_()
        if mistake == "deviation":
            module.bn.running_var.sqrt_()  # type: ignore[union-attr]
    return module


def assert_named(report: ub.PortReport, mistake: str) -> None:
    where, hint = MISTAKES[mistake]
    assert not report.ok
    assert report.parted is not None, report
    assert where in report.steps[report.parted].first, report
    assert all(step.difference is not None and step.difference < 1e-12 for step in report.steps[: report.parted])
    assert report.parted > 0 or mistake == "axes"
    about = [line for line in report.hints if "matched by what they give" not in line]
    assert hint in about[0], report
    assert about[1:] == ["with this mended, the two agree"], report


def assert_shown(report: ub.PortReport, mistake: str) -> None:
    """What a report of two modules of the same names says, whose steps may be those modules."""
    where, hint = MISTAKES[mistake]
    assert not report.ok
    assert report.parted is not None, report
    assert any(part in report.steps[report.parted].first for part in where.split(" (")), report
    last = hint.rpartition("it is equal when ")[2]
    if mistake == "deviation":
        last = "the second has the deviation where the first has the variance"
    assert last in report.hints[0] or hint in report.hints[0], report


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_of_two_modules(mistake: str) -> None:
    assert_shown(ub.compare_models(net(), net(mistake), X), mistake)


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_of_two_graphs(mistake: str) -> None:
    graphs = [ub.from_torch(module, X) for module in (net(), net(mistake))]
    report = ub.compare_models(*graphs, X)
    assert not report.ok
    assert report.parted is not None
    step = report.steps[report.parted].first
    assert MISTAKES[mistake][0].rpartition(" (")[2] in step, report
    last = MISTAKES[mistake][1].rpartition("it is equal when ")[2]
    assert any(last in line for line in report.hints), report


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_of_a_graph_and_a_module(mistake: str) -> None:
    assert_shown(ub.compare_models(ub.from_torch(net(), X), net(mistake), X), mistake)


def test_all_convolutions_are_named_that_are_flipped() -> None:
    module = net("flatten")
    with torch.no_grad():
        for conv in (module.c1, module.c2):
            conv.weight.copy_(conv.weight.flip(2, 3))
    report = ub.compare_models(ub.from_torch(net(), X), ub.from_torch(module, X), X)
    assert report.parted == 0
    assert "c1.weight of the first" in report.hints[1]
    assert "2 more differences: the same at c2; the second flattens" in report.hints[2]
    assert "the second flattens in the order (H, W, C)" in report.hints[2]
    assert report.hints[3] == "with these 3 mended, the two agree"


def test_a_table_goes_on_with_the_nodes_that_agree_once_all_is_mended() -> None:
    module = net()
    with torch.no_grad():
        for conv in (module.c1, module.c2):
            conv.weight.copy_(conv.weight.flip(2, 3))
    report = ub.compare_models(ub.from_torch(net(), X), ub.from_torch(Around(module).eval(), X), X)
    assert report.parted == 0
    names = [[words.partition(" ")[0] for words in (step.first, step.second)] for step in report.steps]
    assert len(names) > 8
    assert all(first == second for first, second in names)
    assert report.hints[-2:] == (
        "with that mended, 1 more difference: the same at c2",
        "with these 2 mended, the two agree",  # and what does nothing in one of them is no difference
    )


def blurred(x: Tensor) -> Tensor:
    return torch.eye(3, dtype=x.dtype)[:, :, None, None].expand(3, 3, 3, 3)


class Other(nn.Module):
    """What there is in the place of a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Conv2d(3, 3, 3, padding=1), function, nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x))).tanh().sum((2, 3))


@pytest.mark.parametrize(
    ("right", "wrong", "hint"),
    [
        (F.relu, F.silu, "the first has relu, the second SiLU (swish)"),
        (F.relu, lambda x: x, "the second leaves something out that the first has: relu"),
        (lambda x: x, torch.tanh, "the first leaves something out that the second has: tanh"),
        (lambda x: F.avg_pool2d(x, 2, 1, 1), lambda x: F.max_pool2d(x, 2, 1, 1), "a mean of each window, the second a"),
        (
            lambda x: F.avg_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            "the first has a mean that counts the padding, the second one that does not",
        ),
        (lambda x: F.leaky_relu(x, 0.01), lambda x: F.leaky_relu(x, 0.2), "leaky relu with slope 0.2"),
        (F.gelu, lambda x: x * torch.sigmoid(1.702 * x), "GELU in the erf form, the second x sigmoid(1.702 x)"),
        (
            lambda x: torch.cat([x, x.exp()], 1)[:, :, :2], lambda x: torch.cat([x.exp(), x], 1)[:, :, :2],
            "the second puts the parts one after the other in the order (1, 0)",
        ),
        (lambda x: F.softmax(x, 1), lambda x: F.softmax(x, -1), "softmax over axis 1, the second over axis 3"),
        (lambda x: x - x.exp(), lambda x: x.exp() - x, "the first has a - b, the second b - a"),
        (
            lambda x: F.layer_norm(x, (7,)),
            lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt(),
            "the second takes the variance with Bessel's correction (n - 1)",
        ),
        (
            lambda x: F.layer_norm(x, (7,), eps=1e-2),
            lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, unbiased=False, keepdim=True) + 1e-2),
            "the second takes epsilon added to the deviation, not to the variance",
        ),
        (
            lambda x: F.group_norm(x, 3, eps=1e-5), lambda x: F.group_norm(x, 3, eps=0.03),
            "the epsilon of the norm is 1e-05 in the first, 0.03 in the second",
        ),
        (
            lambda x: F.conv2d(x, blurred(x), padding=1),
            lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), blurred(x)),
            "the first has padding of zeros, the second of the mode 'replicate'",
        ),
    ],
    ids=["activation", "none", "one more", "pool", "padding counts", "slope", "gelu", "parts", "axis", "operands",
         "Bessel", "deviation", "groups", "padding"],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_functions_in_the_place_of_others(right: Any, wrong: Any, hint: str, turned: bool) -> None:
    modules = []
    for function in (right, wrong):
        torch.manual_seed(0)
        module = Other(function)
        module.last = nn.Conv2d(module.function(torch.zeros(1, 3, 5, 7)).shape[1], 2, 1)
        modules.append(module.double())
    report = ub.compare_models(*(modules[::-1] if turned else modules), X)
    assert not report.ok
    assert report.parted is not None
    assert report.parted > 0, report
    assert report.hints[-1] == "with this mended, the two agree", report
    if not turned:
        assert hint in report.hints[0], report


def test_what_no_mistake_explains_is_said_too() -> None:
    wrong = net()
    with torch.no_grad():
        wrong.mid.bias.add_(torch.arange(7.0))
    report = ub.compare_models(ub.from_torch(net(), X), ub.from_torch(wrong, X), X)
    assert "linear in mid" in report.steps[report.parted or 0].first
    assert any("differs by" in line for line in report.hints)
    assert not any("mended" in line for line in report.hints)


def test_nodes_of_a_module_can_be_paired_by_name() -> None:
    module = net()
    node = next(node for node in ub.from_torch(module, X).nodes if node.op == "gelu")
    report = ub.compare_models(module, module, X, pairs={node.name: node.name, "fc2": "fc2"})
    assert [step.difference for step in report.steps] == [0.0, 0.0]


JULIA = """
using Flux, NNlib, Statistics

"an array of PyTorch's, whose last axis is the fastest, with its axes reversed"
function numbers(name, size...)
    found = Array{Float64}(undef, reverse(size)...)
    read!(joinpath(@__DIR__, name * ".bin"), found)
    return found
end

# PyTorch's kernel (W, H, in, out) is that of a cross-correlation.
kernel(name, size...; flip=true, swap=false) =
    (w = numbers(name, size...); swap && (w = permutedims(w, (2, 1, 3, 4))); flip ? reverse(w; dims=(1, 2)) : w)
matrix(name, size...) = permutedims(numbers(name, size...))

# Up to 0.16.10 LayerNorm adds the square of its epsilon.
in_flux(epsilon) = pkgversion(Flux) < v"0.16.11" ? sqrt(epsilon) : epsilon
in_order(x) = Flux.flatten(x)
channels_last(x) = Flux.flatten(permutedims(x, (3, 1, 2, 4)))

function arrays(mistake)
    deviation = mistake == "deviation"
    variance = numbers("bn.running_var", 4)
    return (
        w1=kernel("c1.weight", 4, 3, 3, 3; swap=mistake == "axes"), b1=numbers("c1.bias", 4),
        mean=numbers("bn.running_mean", 4), var=deviation ? sqrt.(variance) : variance,
        scale=numbers("bn.weight", 4), shift=numbers("bn.bias", 4),
        w2=kernel("c2.weight", 5, 4, 3, 3; flip=mistake != "flip"), b2=numbers("c2.bias", 5),
        w3=matrix("fc1.weight", 7, 30), b3=numbers("fc1.bias", 7),
        w4=mistake == "transpose" ? numbers("mid.weight", 7, 7) : matrix("mid.weight", 7, 7), b4=numbers("mid.bias", 7),
        g=numbers("ln.weight", 7), b=numbers("ln.bias", 7),
        w5=(mistake == "sign" ? -1 : 1) .* matrix("fc2.weight", 2, 7), b5=numbers("fc2.bias", 2),
    )
end

"activations are inside the layers"
function chain(mistake)
    a = arrays(mistake)
    return Chain(
        Conv(a.w1, a.b1; pad=1),
        BatchNorm(relu, a.shift, a.scale, a.mean, a.var, 1e-5, 0.1, true, true, nothing, 4),
        Conv(a.w2, a.b2, relu; stride=2),
        mistake == "flatten" ? channels_last : in_order,
        Dense(a.w3, a.b3, mistake == "gelu" ? gelu_tanh : gelu_erf),
        Dense(a.w4, a.b4, tanh),
        LayerNorm(identity, Flux.Scale(a.g, a.b), in_flux(mistake == "epsilon" ? 1e-6 : 1e-3), (7,), true),
        Dense(a.w5, a.b5),
    )
end

"all by hand, on arrays"
struct Hand{A,V,S}
    c1::A
    b1::V
    scale::V
    shift::V
    c2::A
    b2::V
    fc1::Dense
    mid::Dense
    g::V
    b::V
    fc2::Dense
    rest::S
end
Flux.@layer Hand trainable=(c1, b1, scale, shift, c2, b2, fc1, mid, g, b, fc2)

onto(v) = reshape(v, 1, 1, :, 1)

function (m::Hand)(x)
    r = m.rest
    h = conv(x, m.c1; pad=1) .+ onto(m.b1)
    h = relu.((h .- onto(r.mean)) ./ sqrt.(onto(r.var) .+ 1e-5) .* onto(m.scale) .+ onto(m.shift))
    h = relu.(conv(h, m.c2; stride=2) .+ onto(m.b2))
    h = r.mistake == "flatten" ? channels_last(h) : in_order(h)
    h = r.mistake == "gelu" ? gelu_tanh.(m.fc1(h)) : gelu_erf.(m.fc1(h))
    h = tanh.(m.mid(h))
    deviation = sqrt.(var(h; dims=1, corrected=false) .+ (r.mistake == "epsilon" ? 1e-6 : 1e-3))
    return m.fc2((h .- mean(h; dims=1)) ./ deviation .* m.g .+ m.b)
end

function hand(mistake)
    a = arrays(mistake)
    layers = Dense(a.w3, a.b3), Dense(a.w4, a.b4), a.g, a.b, Dense(a.w5, a.b5)
    return Hand(a.w1, a.b1, a.scale, a.shift, a.w2, a.b2, layers..., (; mistake, a.mean, a.var))
end

for mistake in ("right", "flip", "axes", "transpose", "sign", "flatten", "epsilon", "gelu", "deviation")
    @eval $(Symbol("chain_", mistake))() = chain($mistake)
    @eval $(Symbol("hand_", mistake))() = hand($mistake)
end
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ports")
    for name, value in net().state_dict().items():
        np.ascontiguousarray(value.numpy()).tofile(folder / f"{name}.bin")
    (folder / "net.jl").write_text(JULIA)
    return folder / "net.jl"


@pytest.mark.julia
@pytest.mark.parametrize("form", ["chain", "hand"])
def test_the_right_port_is_the_same_network(file: Path, form: str) -> None:
    twin = ub.julia_model(file, f"{form}_right")
    for pair in ((net(), twin), (ub.from_torch(net(), X), twin)):
        report = ub.compare_models(*pair, X)
        assert report.ok, report
        assert (report.parted, report.hints) == (None, ()), report
        words = " ".join(step.first for step in report.steps)
        for step in ("conv", "batch_norm", "relu", "linear", "gelu", "layer_norm"):
            assert step in words


@pytest.mark.julia
@pytest.mark.sampled
@pytest.mark.parametrize("form", ["chain", "hand"])
@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_the_mistake_of_a_port_is_named(file: Path, form: str, mistake: str) -> None:
    report = ub.compare_models(net(), ub.julia_model(file, f"{form}_{mistake}"), X)
    assert_named(report, mistake)


@pytest.mark.julia
@pytest.mark.parametrize(("first", "second"), [("chain", "hand"), ("hand", "chain")])
def test_two_of_julia(file: Path, first: str, second: str) -> None:
    one = ub.julia_model(file, f"{first}_right")
    assert ub.compare_models(one, ub.julia_model(file, f"{second}_right"), X).ok
    report = ub.compare_models(one, ub.julia_model(file, f"{second}_flip"), X)
    assert not report.ok
    assert "it is equal when flipped" in report.hints[0]


@pytest.mark.julia
def test_nodes_of_a_struct_can_be_paired(file: Path) -> None:
    module, twin = net(), ub.julia_model(file, "hand_right")
    last = ub.from_flux(twin, X).nodes[-1].name
    report = ub.compare_models(module, twin, X, pairs={"fc2": last})
    assert [step.difference is not None and step.difference < 1e-12 for step in report.steps] == [True]


def test_modules_of_two_dtypes_are_refused_with_what_makes_them_one() -> None:
    first, second = net(), net().float()
    with pytest.raises(ub.errors.DTypeError, match=r"give ub\.as_network\(second\)\.astype\(\"float64\"\)"):
        ub.compare_models(first, second, X)
    assert ub.compare_models(first, ub.as_network(second).astype("float64"), X).backend == "torch"
