"""What takes networks takes graphs of several inputs: kernels, stores, training, comparisons, commands."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers import assert_within_budget, udlbridge
from tests.zoo import Samples, build_several
from torch import nn

import udlbridge as ub
from udlbridge.errors import InputError, LayerError, OptionError, StoreError, UDLBridgeError

ENGINES = ["torch", "reference", pytest.param("julia", marks=pytest.mark.julia)]


def cut(x: Samples, start: int, stop: int) -> Samples:
    if isinstance(x, dict):
        return {name: part[start:stop] for name, part in x.items()}
    return tuple(part[start:stop] for part in x)


def crossed(name: str = "tokens with a mask", n: int = 9) -> tuple[ub.Graph, Samples, np.ndarray]:
    """The graph, samples, and the kernel that the module has by itself."""
    module, x, output = build_several(name, n)
    return ub.from_torch(module, x, output=output), x, ub.ntk(module, x, output=output)


@pytest.mark.parametrize("backend", ENGINES)
def test_kernels_by_layer_as_operators_and_across(backend: Any) -> None:
    graph, x, kernel = crossed()
    parts = ub.layer_kernels(graph, x, backend=backend)
    assert list(parts) == ["tokens", "places", "qkv", "head"]
    assert_within_budget(np.sum(list(parts.values()), axis=0), kernel)
    operator = ub.ntk_operator(graph, x, backend=backend)
    assert_within_budget(operator @ np.eye(9), kernel)
    assert operator.astype("float32").samples.dtype["weights"].base == np.float32
    assert_within_budget(ub.ntk(graph, cut(x, 0, 4), cut(x, 2, 9), backend=backend), kernel[:4, 2:])
    assert_within_budget(ub.spectrum(ub.ntk(graph, x, backend=backend)).eigenvalues, np.linalg.eigvalsh(kernel))


@pytest.mark.parametrize("backend", ENGINES)
def test_plans(backend: Any) -> None:
    graph, _, _ = crossed("image and vector")
    plan = ub.plan(graph, 5000, backend=backend, calibrate=False)
    assert plan.n == 5000
    assert ub.plan(graph, 20, backend=backend).seconds is not None


@pytest.mark.parametrize("backend", ENGINES)
def test_stores_are_computed_appended_to_resumed_and_verified(backend: Any, tmp_path: Path) -> None:
    graph, x, kernel = crossed("BERT with its mask")
    store = ub.compute_kernel(graph, cut(x, 0, 5), tmp_path / "k.zarr", backend=backend, progress=False)
    store.append(cut(x, 5, 9), progress=False)
    again = ub.KernelStore(tmp_path / "k.zarr")
    assert_within_budget(again[:, :], kernel)
    assert again.verify().ok
    assert again.model() == graph
    for other in (cut(x, 1, 9), next(iter(x.values())) if isinstance(x, dict) else x):
        with pytest.raises((StoreError, InputError)):
            ub.compute_kernel(graph, other, tmp_path / "k.zarr", backend=backend, progress=False)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ["image and vector", "tokens with a mask"])
def test_training_takes_the_same_steps_on_every_engine(name: str, backend: Any, tmp_path: Path) -> None:
    graph, x, _ = crossed(name)
    module, _, output = build_several(name, 9)
    y = np.random.default_rng(0).normal(size=(9, 3))
    settings: dict[str, Any] = {
        "loss": "mse",
        "batch_size": 4,
        "optimizer": ("nesterov", {"lr": 0.01}),
        "progress": False,
    }
    run = ub.train(graph, x, y, epochs=2, backend=backend, save_to=tmp_path / "run", validation=(x, y), **settings)
    expected = ub.train(module, x, y, epochs=2, output=output, validation=(x, y), **settings)
    np.testing.assert_allclose(run.losses, expected.losses, rtol=1e-12)
    for key, value in expected.model.params.items():
        assert_within_budget(run.model.params[key], value)
    resumed = ub.train(graph, x, y, epochs=3, backend=backend, resume=tmp_path / "run", validation=(x, y), **settings)
    whole = ub.train(graph, x, y, epochs=3, backend=backend, validation=(x, y), **settings)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    flat = ub.train(graph, x, y, epochs=1, backend=backend, linearized=True, loss="mse", progress=False)
    assert np.isfinite(flat.losses).all()
    value, gradients = ub.loss_gradient(graph, x, y, loss="mse", backend=backend)
    assert np.isfinite(value)
    assert set(gradients) == set(graph.params)


def test_slopes_by_several_inputs_are_refused() -> None:
    graph, x, _ = crossed()
    slopes = np.zeros((9, 3, 5))
    with pytest.raises(UDLBridgeError, match="several inputs"):
        ub.train(graph, x, np.zeros((9, 3)), epochs=1, loss=ub.losses.sobolev(slopes), progress=False)
    with pytest.raises(LayerError):
        ub.input_hessian(graph, x)


@pytest.mark.parametrize("name", ["twins", "series with lengths", "tokens with a mask"])
def test_comparisons_of_the_graph_with_its_module(name: str) -> None:
    module, x, output = build_several(name, 5)
    graph, network = ub.from_torch(module, x, output=output), ub.as_network(module, output=output)
    for pair in ((graph, network), (network, graph), (graph, graph), (network, network)):
        report = ub.compare_models(*pair, x)
        assert report.ok, report
    other = graph.with_params({key: 1.1 * value for key, value in graph.params.items()})
    assert not ub.compare_models(other, network, x).ok
    assert ub.check(graph, x, backends="torch,reference").ok
    # By itself it is translated, that of one of several outputs too.
    report = ub.check(network, x, backends="torch,reference")
    assert report.ok, report
    assert "reference" in report.engines


@pytest.mark.julia
def test_check_with_julia() -> None:
    graph, x, _ = crossed(n=5)
    report = ub.check(graph, x, backends="torch,reference,julia")
    assert report.ok, report


def test_copies_and_pickles() -> None:
    graph, x, kernel = crossed()
    for other in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), graph.with_nodes(graph.nodes)):
        assert other == graph
        assert_within_budget(ub.ntk(other, x), kernel)
    half = graph.astype("float32")
    assert isinstance(x, dict)
    singles = {key: part.astype(np.float32) if part.dtype.kind == "f" else part for key, part in x.items()}
    assert_within_budget(ub.ntk(half, singles), kernel.astype(np.float32))


def test_the_command_line_takes_files_of_them(tmp_path: Path) -> None:
    graph, x, kernel = crossed()
    assert isinstance(x, dict)
    graph.save(tmp_path / "net.safetensors")
    np.savez(tmp_path / "x.npz", **x)  # type: ignore[arg-type]

    def called(*args: object, code: int = 0) -> str:
        found = udlbridge(*args, "--model", tmp_path / "net.safetensors")
        assert found.returncode == code, found
        return found.stdout + found.stderr

    samples = ["--samples", tmp_path / "x.npz"]
    called("kernel", *samples, "--out", tmp_path / "k.npy", "--quiet")
    assert_within_budget(np.load(tmp_path / "k.npy"), kernel)
    called("kernel", *samples, "--out", tmp_path / "k.zarr", "--quiet", "--memory", "1GB")
    assert_within_budget(ub.KernelStore(tmp_path / "k.zarr")[:, :], kernel)
    assert "agree" in called("check", *samples, "--backend", "torch,reference", "--quiet")
    assert "eigenvalues" in called("spectrum", *samples, "--quiet")
    called("kernel", "--samples", "random", "--n", "4", "--out", tmp_path / "r.npy", "--quiet")
    # Names that it does not have, and single precision.
    np.savez(tmp_path / "y.npz", tokens=x["tokens"], mask=x["mask"])
    said = called("check", "--samples", tmp_path / "y.npz", code=2)
    assert "the graph takes 'tokens', 'positions', 'mask', 'weights'" in said
    np.savez(tmp_path / "z.npz", **{**x, "weights": x["weights"].astype(np.float32)})  # type: ignore[arg-type]
    called("check", "--samples", tmp_path / "z.npz", "--cast", "--backend", "torch,reference", "--quiet")


def test_an_engine_for_one_input_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x, _ = crossed("twins", 4)
    monkeypatch.setattr(type(ub.backends.engine("reference")), "several_inputs", False)
    with pytest.raises(OptionError, match=r"reference.* of several inputs"):
        ub.outputs(graph, x, backend="reference")
    assert "reference" in ub.check(graph, x).skipped


def test_the_command_line_compares_a_file_with_its_module(tmp_path: Path) -> None:
    source = "from tests.zoo import build_several\n\ndef build():\n    return build_several('twins')[0]\n"
    (tmp_path / "net.py").write_text(source, encoding="utf-8")
    module, x, output = build_several("twins", 4)
    assert isinstance(x, dict)
    np.savez(tmp_path / "x.npz", **x)  # type: ignore[arg-type]
    ub.from_torch(module, x, output=output).save(tmp_path / "net.safetensors")
    names = [f"{tmp_path}/net.py:build", str(tmp_path / "net.safetensors")]
    for one, other in (names, names[::-1], (names[0], names[0])):
        found = udlbridge(
            "check", "--model", one, "--against", other, "--output", output, "--samples", tmp_path / "x.npz"
        )
        assert found.returncode == 0, found
    found = udlbridge("check", "--model", names[1], "--output", output, "--samples", tmp_path / "x.npz")
    assert "--output distance with a Graph" in found.stderr


def test_files_of_one_array_or_of_more_for_a_graph_of_one_input(tmp_path: Path) -> None:
    graph = ub.from_torch(nn.Linear(3, 2).double(), np.ones((2, 3)))
    graph.save(tmp_path / "net.safetensors")
    one = np.random.default_rng(0).normal(size=(4, 3))
    np.savez(tmp_path / "one.npz", anything=one)
    np.savez(tmp_path / "two.npz", x=one, y=one)
    command = ("kernel", "--model", tmp_path / "net.safetensors", "--out", tmp_path / "k.npy", "--quiet", "--samples")
    assert udlbridge(*command, tmp_path / "one.npz").returncode == 0
    assert_within_budget(np.load(tmp_path / "k.npy"), ub.ntk(graph, one))
    found = udlbridge(*command, tmp_path / "two.npz", "--force")
    assert "holds x, y, and x has the inputs 'x', 'y', the graph takes one input" in found.stderr
    with pytest.raises(InputError, match="the graph takes one input"):
        ub.outputs(graph, {"x": one})
