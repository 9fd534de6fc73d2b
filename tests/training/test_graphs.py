"""Graphs are trained as models are: the same steps on every engine, with shared parameters, buffers and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from tests.helpers import assert_within_budget
from tests.zoo import ZOO, build
from torch import Tensor, nn

import udlbridge as ub
from udlbridge.backends.optimisers import OPTIMISERS
from udlbridge.errors import OptionError, RunFileError

OTHERS = pytest.mark.parametrize("backend", ["reference", pytest.param("julia", marks=pytest.mark.julia)])
ENGINES = pytest.mark.parametrize("backend", ["torch", "reference", pytest.param("julia", marks=pytest.mark.julia)])
N = 7


class Net(nn.Module):
    """One weight in two places, a frozen layer, statistics that are buffers, and a scale without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.norm, self.still = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.still.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.turn(x))
        return self.scale * self.still(self.norm(F.silu(self.turn(h))))


def net() -> nn.Module:
    torch.manual_seed(0)
    module = Net().double().eval()
    module.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return module


X = np.random.default_rng(0).normal(size=(N, 4))
Y = np.random.default_rng(1).normal(size=(N, 3))
LABELS = np.arange(N) % 3
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 3,
    "optimizer": ("adam", {"lr": 0.05, "weight_decay": 0.01}),
    "schedule": ("step", {"every": 1, "factor": 0.7}),
    "clip_norm": 0.8,
    "lr_groups": {"turn.*": 0.02},
}


def assert_same_run(one: ub.TrainingRun, other: ub.TrainingRun) -> None:
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-12)
    for name, value in other.model.params.items():
        assert_within_budget(one.model.params[name], value, 10)


@ENGINES
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_graph_takes_the_steps_of_its_module(loss: str, backend: str) -> None:
    module, y = net(), LABELS if loss == "cross_entropy" else Y
    graph = ub.from_torch(module, X)
    run = ub.train(graph, X, y, loss=loss, backend=backend, **SETTINGS)
    assert_same_run(run, ub.train(module, X, y, loss=loss, **SETTINGS))
    assert set(run.model.params) == {"turn.weight", "turn.bias", "norm.weight", "norm.bias", "scale"}
    assert isinstance(run.model, ub.Graph)
    for name, value in graph.buffers.items():
        np.testing.assert_array_equal(run.model.buffers[name], value)
    value, gradient = ub.loss_gradient(graph, X, y, loss=loss, backend=backend)
    expected, wanted = ub.loss_gradient(module, X, y, loss=loss)
    assert value == pytest.approx(expected, rel=1e-13)
    for name, block in wanted.items():
        assert_within_budget(gradient[name], block)


@OTHERS
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_every_optimiser_takes_the_steps_of_torch(optimizer: Any, backend: str) -> None:
    graph, settings = ub.from_torch(net(), X), {**SETTINGS, "optimizer": optimizer, "lr_groups": None}
    assert_same_run(
        ub.train(graph, X, LABELS, backend=backend, **settings), ub.train(graph, X, LABELS, backend="torch", **settings)
    )


@pytest.mark.parametrize("name", ZOO)
@OTHERS
@pytest.mark.sampled
def test_ordinary_networks_take_the_steps_of_torch(name: str, backend: str) -> None:
    module, x = build(name, 4)
    graph = ub.from_torch(module, x)
    y = np.random.default_rng(0).standard_normal((4, graph.n_outputs))
    # By its usual eps Adam makes steps of what rounding leaves of gradients that are 0, as of a bias of keys.
    settings: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 3,
        "loss": "mse",
        "optimizer": ("adam", {"lr": 0.01, "eps": 0.1}),
    }
    run = ub.train(graph, x, y, backend=backend, **settings)
    wanted = ub.train(graph, x, y, backend="torch", **settings)
    np.testing.assert_allclose(run.losses, wanted.losses, rtol=1e-10)
    for parameter, value in wanted.model.params.items():
        np.testing.assert_allclose(run.model.params[parameter], value, rtol=0, atol=1e-10 * np.abs(value).max())


@ENGINES
def test_a_run_of_a_graph_is_whole_in_its_file_and_goes_on_bit_for_bit(backend: str, tmp_path: Path) -> None:
    graph, file = ub.from_torch(net(), X), tmp_path / "run.safetensors"
    whole = ub.train(graph, X, LABELS, backend=backend, checkpoints=[1], **SETTINGS)
    ub.train(graph, X, LABELS, backend=backend, checkpoints=[1], save_to=file, **{**SETTINGS, "epochs": 1})
    run = ub.train(graph, X, LABELS, backend=backend, checkpoints=[1], resume=file, **SETTINGS)
    np.testing.assert_array_equal(run.losses, whole.losses)
    for name, value in whole.model.params.items():
        np.testing.assert_array_equal(run.model.params[name], value)
    loaded = ub.TrainingRun.load(file)
    assert loaded.checkpoints[1].hash() == whole.checkpoints[1].hash() == loaded.model.hash()
    assert ub.TrainingRun.load(file, model=graph).epochs == 1
    with pytest.raises(RunFileError, match="is a run of a Graph, and model= is a Graph of other nodes"):
        ub.TrainingRun.load(file, model=graph.with_nodes(graph.nodes[:-1]))
    with pytest.raises(RunFileError, match=r"is a run of a Graph, and model= is a Model\. "):
        ub.TrainingRun.load(file, model=ub.Model([ub.Dense(4, 3)]))
    with pytest.raises(RunFileError, match=r"of another model: float64 graph of \d+ nodes"):
        ub.train(ub.Model([ub.Dense(4, 3)], dtype="float64"), X, LABELS, resume=file, **{**SETTINGS, "lr_groups": None})


def test_probabilities_are_not_taken_for_logits() -> None:
    def ends(*layers: nn.Module) -> ub.Graph:
        graph = ub.from_torch(nn.Sequential(net(), *layers), X)
        assert isinstance(graph, ub.Graph)
        return graph

    with pytest.raises(
        OptionError, match="applies softmax to outputs that are probabilities already: Graph ends in Softmax"
    ):
        ub.train(ends(nn.Softmax(dim=1)), X, LABELS, epochs=1)
    with pytest.raises(OptionError, match="applies sigmoid"):
        ub.train(ends(nn.Sigmoid()), X, np.eye(3)[LABELS], loss="binary_cross_entropy", epochs=1)
    value, _ = ub.loss_gradient(ends(nn.LogSoftmax(dim=1)), X, LABELS, loss="nll", backend="reference")
    assert value == pytest.approx(ub.loss_gradient(net(), X, LABELS)[0], rel=1e-13)
    assert ends(nn.Softmax(dim=1), nn.Flatten()).ending() == "Softmax"
    assert ends(nn.Softmax(dim=1), nn.Tanh()).ending() is None


@pytest.mark.julia
def test_slopes_are_fitted_in_julia_as_on_torch() -> None:
    graph, slopes = ub.from_torch(net(), X), np.random.default_rng(2).normal(size=(N, 3, 4))
    slopes[2] = np.nan
    settings = {**SETTINGS, "loss": ub.losses.sobolev(slopes, weight=0.3)}
    found, expected = (ub.train(graph, X, Y, backend=engine, **settings) for engine in ("julia", "torch"))
    assert_same_run(found, expected)


@ENGINES
def test_a_linearised_graph_goes_where_its_kernel_says(backend: str) -> None:
    graph = ub.from_torch(net(), X)
    settings: dict[str, Any] = {"loss": "mse", "optimizer": ("sgd", {"lr": 0.05}), "linearized": True, "epochs": 6}
    run = ub.train(graph, X, Y, backend=backend, checkpoints=range(7), **settings)
    f = ub.outputs(graph, X, backend="reference")
    kernel = ub.ntk(graph, X, outputs="full", backend="reference")
    path = ub.predict.gradient_descent(kernel, Y, learning_rate=0.1)  # "mse" is twice the loss of the closed form
    for step in range(7):
        expected = path.after(step, f_train=f).train
        found = ub.linearize(graph).outputs(run.checkpoints[step], X, backend=backend)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert np.abs(ub.outputs(run.model, X, backend="reference") - expected).max() > 1e-4
    with pytest.raises(OptionError, match="nll"):
        ub.train(graph, X, LABELS, backend=backend, **{**settings, "loss": "nll"})


@OTHERS
def test_engines_take_the_same_steps_of_a_linearised_graph(backend: str) -> None:
    graph = ub.from_torch(net(), X)
    runs = [ub.train(graph, X, LABELS, backend=engine, linearized=True, **SETTINGS) for engine in ("torch", backend)]
    assert_same_run(*runs)
    assert runs[0].errors == runs[1].errors


def test_what_cannot_be_trained() -> None:
    graph = ub.from_torch(net(), X)
    slopes = ub.losses.sobolev(np.zeros((N, 3, 4)))
    with pytest.raises(OptionError, match=r"second derivatives of a graph .* with backend='reference'"):
        ub.train(graph, X, Y, epochs=1, loss=slopes, backend="reference")
    assert ub.train(graph, X, Y, epochs=1, loss=slopes, backend="torch").losses.shape == (1,)
