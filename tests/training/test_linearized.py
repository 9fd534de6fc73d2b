"""Linearised networks: their training against the closed form, Taylor polynomials, and what there is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import random_model, samples
from udlbridge.errors import OptionError, ParameterError
from udlbridge.training.runs import TrainingRun

MODEL = random_model([4, 6, 2], ["tanh", "identity"])
X = samples(MODEL, 9)
Y = np.sin(X[:, :2]) + 0.1
CONVOLUTIONS = ub.Model(
    [ub.Conv1d(2, 3, 3, activation="tanh"), ub.Flatten(), ub.Dense(9, 2), ub.LayerNorm(2)], seed=2, dtype="float64"
)


def descent(model: ub.Model, x: np.ndarray, backend: str, epochs: int, **options: Any) -> TrainingRun:
    """Full-batch descent, with the model kept after every step."""
    settings = {"loss": "mse", "optimizer": ("sgd", {"lr": 0.05}), "linearized": True, "progress": False}
    return ub.train(model, x, Y, epochs=epochs, backend=backend, checkpoints=range(epochs + 1), **settings | options)


def test_training_follows_the_closed_form_step_by_step(backend: str) -> None:
    run = descent(MODEL, X, backend, 12)
    kernel = ub.ntk(MODEL, X, outputs="full", backend="reference")
    f0 = ub.outputs(MODEL, X, backend="reference")
    path = ub.predict.gradient_descent(kernel, Y, learning_rate=0.1)  # "mse" is twice the loss of the closed form
    x_test = samples(MODEL, 3, seed=5)
    k_test = ub.ntk(MODEL, x_test, X, outputs="full", backend="reference")
    f_test = ub.outputs(MODEL, x_test, backend="reference")
    expansion = ub.linearize(MODEL)
    losses = []
    for step in range(13):
        expected = path.after(step, f_train=f0, f_test=f_test, k_test=k_test)
        at = run.checkpoints[step]
        np.testing.assert_allclose(expansion.outputs(at, X, backend=backend), expected.train, rtol=0, atol=1e-8)
        np.testing.assert_allclose(expansion.outputs(at, x_test, backend=backend), expected.test, rtol=0, atol=1e-8)
        losses.append(float(np.mean((expected.train - Y) ** 2)))
    np.testing.assert_allclose(run.losses, losses[:-1], rtol=1e-8)
    # The network itself goes elsewhere.
    real = descent(MODEL, X, backend, 12, linearized=False)
    gap = ub.outputs(real.model, X, backend="reference") - expected.train
    assert np.abs(gap).max() > 1e-3


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
@pytest.mark.sampled
def test_engines_take_the_same_steps(loss: str, optimizer: str, backend: str) -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0])
    y = np.eye(2)[labels] if loss == "mse" else labels
    options: dict[str, Any] = {"loss": loss, "optimizer": (optimizer, {"lr": 0.05}), "clip_norm": 0.5}
    runs = [
        ub.train(MODEL, X, np.eye(2)[labels] if loss != "cross_entropy" else y, epochs=3, batch_size=4, backend=name,
                 linearized=True, progress=False, **options)
        for name in ("reference", backend)
    ]  # fmt: skip
    np.testing.assert_allclose(runs[1].losses, runs[0].losses, rtol=1e-11)
    for name, value in runs[0].model.params.items():
        np.testing.assert_allclose(runs[1].model.params[name], value, rtol=0, atol=1e-11)
    assert runs[0].errors == runs[1].errors


def test_chains_without_rules_for_tangents_too(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((9, 2, 5))
    runs = [descent(CONVOLUTIONS, x, name, 3) for name in ("reference", backend)]
    np.testing.assert_allclose(runs[1].losses, runs[0].losses, rtol=1e-11)


def test_error_rates_are_those_of_the_linearised_network() -> None:
    labels = (X[:, 0] > 0).astype(int)
    run = ub.train(MODEL, X, labels, epochs=40, optimizer=("sgd", {"lr": 0.3}), backend="reference", linearized=True,
                   progress=False)  # fmt: skip
    given = ub.linearize(MODEL).outputs(run.model, X, backend="reference").argmax(axis=1)
    assert run.errors[-1].train == np.mean(given != labels)


def test_runs_resume_at_their_own_start(tmp_path: Path) -> None:
    whole = descent(MODEL, X, "reference", 6)
    file = tmp_path / "run.npz"
    descent(MODEL, X, "reference", 3, save_to=file)
    resumed = ub.train(MODEL, X, Y, epochs=6, backend="reference", loss="mse", optimizer=("sgd", {"lr": 0.05}),
                       linearized=True, resume=file, progress=False)  # fmt: skip
    for name, value in whole.model.params.items():
        np.testing.assert_array_equal(resumed.model.params[name], value)
    with pytest.raises(ub.UDLBridgeError, match="other settings"):
        ub.train(MODEL, X, Y, epochs=6, backend="reference", loss="mse", optimizer=("sgd", {"lr": 0.05}),
                 resume=file, progress=False)  # fmt: skip


def away(model: ub.Model, size: float) -> ub.Model:
    rng = np.random.default_rng(7)
    return model.with_params({k: v + size * rng.standard_normal(v.shape) for k, v in model.params.items()})


def test_the_linear_polynomial_is_the_jacobian(backend: str) -> None:
    other = away(MODEL, 0.3)
    j = ub.jacobian(MODEL, X, backend="reference")
    expected = ub.outputs(MODEL, X, backend="reference")
    for name, block in j.items():
        axes = (other.params[name] - MODEL.params[name]).ndim
        expected = expected + np.tensordot(block, other.params[name] - MODEL.params[name], axes)
    np.testing.assert_allclose(ub.linearize(MODEL).outputs(other, X, backend=backend), expected, rtol=1e-11)
    np.testing.assert_allclose(
        ub.taylor_expand(MODEL, 0).outputs(other.params, X, backend=backend), ub.outputs(MODEL, X, backend=backend)
    )


def test_polynomials_of_higher_degree_come_nearer() -> None:
    # Halving the distance divides the error of degree k by 2^(k+1).
    for degree in range(4):
        gaps = []
        for size in (0.02, 0.01):
            other = away(MODEL, size)
            found = ub.taylor_expand(MODEL, degree).outputs(other, X, backend="torch")
            gaps.append(np.abs(found - ub.outputs(other, X, backend="torch")).max())
        assert np.log2(gaps[0] / gaps[1]) == pytest.approx(degree + 1, abs=0.25)


def test_a_polynomial_network_is_its_own_expansion() -> None:
    # Without activations, three layers are of degree 3 in all parameters together.
    model = random_model([3, 4, 4, 2], ["identity"] * 3, bias=False)
    x, other = samples(model, 5), away(model, 1.0)
    f = ub.outputs(other, x, backend="torch")
    np.testing.assert_allclose(ub.taylor_expand(model, 3).outputs(other, x, backend="torch"), f, rtol=1e-10)
    assert np.abs(ub.taylor_expand(model, 2).outputs(other, x, backend="torch") - f).max() > 1e-3


def test_what_there_is_not(untyped: None) -> None:
    with pytest.raises(OptionError, match="torch"):
        ub.taylor_expand(MODEL, 2).outputs(MODEL, X, backend="reference")
    for degree in (-1, 1.5, True):
        with pytest.raises(OptionError, match="degree"):
            ub.taylor_expand(MODEL, degree)  # type: ignore[arg-type]
    with pytest.raises(ParameterError):
        ub.linearize(MODEL).outputs({"0.weight": MODEL.params["0.weight"]}, X, backend="reference")
    with pytest.raises(OptionError, match="linearised"):
        descent(MODEL, X, "reference", 1, loss="nll")
    with pytest.raises(OptionError, match="linearized"):
        descent(MODEL, X, "reference", 1, callbacks=[ub.Probe(X, every=1)])
    with pytest.raises(OptionError, match="linearized"):
        descent(MODEL, X, "reference", 1, linearized="yes")
