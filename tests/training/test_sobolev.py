"""Fitting values and slopes together: gradients against differences, engines against each other, and a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import AGAINST_REFERENCE, assert_within_budget, random_model
from udlbridge.errors import InputError, LayerError, OptionError, RunFileError, ShapeError
from udlbridge.networks.layers import ACTIVATIONS

RNG = np.random.default_rng(7)
X = RNG.standard_normal((5, 3))


def targets() -> tuple[np.ndarray, np.ndarray]:
    """Values for some points, single slopes for others."""
    y, slopes = RNG.standard_normal((5, 2)), RNG.standard_normal((5, 2, 3))
    y[2:] = np.nan
    slopes[:2] = np.nan
    slopes[3, :, 1:] = np.nan
    return y, slopes


def by_hand(model: ub.Model, y: np.ndarray, slopes: np.ndarray, weight: float) -> float:
    """The formula, from outputs and differences of outputs."""
    total = np.nansum((ub.outputs(model, X, backend="reference") - y) ** 2)
    for d in range(X.shape[1]):
        step = 1e-5 * np.eye(X.shape[1])[d]
        plus, minus = (ub.outputs(model, X + sign * step, backend="reference") for sign in (1, -1))
        total += weight * np.nansum(((plus - minus) / 2e-5 - slopes[:, :, d]) ** 2)
    return total / len(X)


@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu_erf"])
def test_value_is_the_formula_and_gradient_equals_differences(activation: str, backend: str) -> None:
    model, (y, slopes) = random_model([3, 4, 2], [activation, "sigmoid"]), targets()
    function = ub.optimize.LossFunction(model, X, y, loss=ub.losses.sobolev(slopes, weight=0.7), backend=backend)
    start = function.start()
    assert function.value(start) == pytest.approx(by_hand(model, y, slopes, 0.7), rel=1e-8)
    gradient = function.gradient(start)
    for index in range(len(start)):
        e = np.zeros_like(start)
        e[index] = 1e-6
        difference = (function.value(start + e) - function.value(start - e)) / 2e-6
        assert gradient[index] == pytest.approx(difference, abs=1e-8 * max(1.0, np.abs(gradient).max()))


@AGAINST_REFERENCE
def test_engines_agree(backend: str) -> None:
    model = ub.Model(
        [ub.Flatten(), ub.Dense(3, 4), ub.Activation("mish"), ub.Dropout(0.5), ub.Dense(4, 2, "tanh")], dtype="float64"
    )
    y, slopes = targets()
    loss, x = ub.losses.sobolev(slopes[..., None]), X[..., None].copy()
    value, found = ub.loss_gradient(model, x, y, loss=loss, backend=backend)
    expected_value, expected = ub.loss_gradient(model, x, y, loss=loss, backend="reference")
    assert value == pytest.approx(expected_value, rel=1e-12)
    for name, gradient in expected.items():
        assert_within_budget(found[name], gradient)


@AGAINST_REFERENCE
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_engines_agree_where_all_preactivations_are_zero(activation: str, backend: str) -> None:
    model = ub.Model([ub.Dense(2, 4, activation), ub.Dense(4, 3, activation), ub.Dense(3, 2)], seed=1, dtype="float64")
    x, y, loss = np.zeros((2, 2)), np.ones((2, 2)), ub.losses.sobolev(RNG.standard_normal((2, 2, 2)))
    value, found = ub.loss_gradient(model, x, y, loss=loss, backend=backend)
    expected_value, expected = ub.loss_gradient(model, x, y, loss=loss, backend="reference")
    assert value == pytest.approx(expected_value, rel=1e-12)
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, atol=1e-12)


@AGAINST_REFERENCE
@pytest.mark.parametrize("optimizer", [("momentum", {"lr": 0.02, "momentum": 0.8}), ("adam", {"lr": 0.01})])
def test_training_takes_the_same_steps_on_every_engine(optimizer: tuple[str, dict[str, float]], backend: str) -> None:
    model, (y, slopes) = random_model([3, 4, 2], ["tanh", "identity"]), targets()
    runs = [
        ub.train(
            model, X, y, loss=ub.losses.sobolev(slopes, weight=0.5), optimizer=optimizer, epochs=10, batch_size=2,
            clip_norm=0.8, backend=name,
        )
        for name in (backend, "reference")
    ]  # fmt: skip
    np.testing.assert_allclose(runs[0].losses, runs[1].losses, rtol=1e-10)
    for name, value in runs[1].model.params.items():
        np.testing.assert_allclose(runs[0].model.params[name], value, rtol=1e-10)
    assert all(error.train is None for error in runs[0].errors)


def test_slopes_alone_recover_a_function_up_to_a_constant(backend: str) -> None:
    model = ub.Model([ub.Dense(1, 6, "tanh"), ub.Dense(6, 1)], seed=1, dtype="float64")
    x = np.linspace(-2, 2, 9)[:, None]
    y, slopes = np.full((9, 1), np.nan), np.cos(x)[:, None, :]
    y[4] = 0.0
    run = ub.train(
        model, x, y, loss=ub.losses.sobolev(slopes), optimizer=("sgd", {"lr": 0.18}), epochs=300, backend=backend
    )
    assert run.losses[-1] < 0.05 * run.losses[0]
    np.testing.assert_allclose(ub.outputs(run.model, x, backend=backend), np.sin(x), atol=0.35)


def test_layers_that_only_autodiff_takes_twice(backend: str) -> None:
    model = ub.Model(
        [ub.Conv2d(1, 3, 3, "tanh", padding=1), ub.MeanPool(2), ub.Flatten(), ub.LayerNorm(12), ub.Dense(12, 2)],
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    x, slopes = rng.standard_normal((3, 1, 4, 4)), rng.standard_normal((3, 2, 1, 4, 4))
    function = ub.optimize.LossFunction(model, x, np.zeros((3, 2)), loss=ub.losses.sobolev(slopes), backend=backend)
    start = function.start()
    if backend == "reference":
        with pytest.raises(LayerError, match="layer 0, conv2d"):
            function.value(start)
        return
    direction = rng.standard_normal(len(start))
    difference = (function.value(start + 1e-6 * direction) - function.value(start - 1e-6 * direction)) / 2e-6
    assert function.gradient(start) @ direction == pytest.approx(difference, rel=1e-6)


def test_a_run_is_resumed_with_the_same_slopes_only(tmp_path: Path) -> None:
    model, (y, slopes) = random_model([3, 4, 2], ["tanh", "identity"]), targets()

    def train(epochs: int, slopes: np.ndarray, **more: object) -> ub.TrainingRun:
        return ub.train(model, X, y, loss=ub.losses.sobolev(slopes), epochs=epochs, backend="torch", **more)

    whole, half = train(6, slopes), train(3, slopes)
    half.save(tmp_path / "half.safetensors")
    resumed = train(6, slopes, resume=tmp_path / "half.safetensors")
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    with pytest.raises(RunFileError, match="slopes"):
        train(6, slopes + 1, resume=half)


def test_bad_targets_are_named() -> None:
    model = random_model([3, 4, 2], ["tanh", "identity"])
    y, slopes = targets()

    def gradient(model: ub.Model, x: np.ndarray, y: np.ndarray, loss: object, backend: str = "reference") -> object:
        return ub.loss_gradient(model, x, y, loss=loss, backend=backend)

    with pytest.raises(ShapeError, match="4, 2"):
        gradient(model, X, y[:4], ub.losses.sobolev(slopes))
    with pytest.raises(ShapeError, match="slopes of shape"):
        gradient(model, X, y, ub.losses.sobolev(slopes[:, :1]))
    with pytest.raises(InputError, match="infinite"):
        gradient(model, X, y * np.inf, ub.losses.sobolev(slopes))
    with pytest.raises(InputError, match="without any observation"):
        gradient(model, X, y * np.nan, ub.losses.sobolev(slopes * np.nan))
    with pytest.raises(OptionError, match=r"weight=0\.0"):
        ub.losses.sobolev(slopes, weight=0.0)
    with pytest.raises(OptionError, match=r"ub\.losses\.sobolev\(slopes\)"):
        gradient(model, X, y, "sobolev")
    with pytest.raises(LayerError, match="layer 1, softmax"):
        gradient(random_model([3, 2], ["tanh"], softmax=True), X, y, ub.losses.sobolev(slopes))
    tokens = ub.Model([ub.Embedding(5, 4), ub.Flatten(), ub.Dense(8, 2)], dtype="float64")
    with pytest.raises(InputError, match="begins with an Embedding, or of several inputs: these have no derivatives"):
        gradient(tokens, np.zeros((5, 2), dtype=int), y, ub.losses.sobolev(slopes))
