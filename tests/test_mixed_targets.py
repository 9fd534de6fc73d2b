"""Fitting values and slopes together: gradients against differences, engines against each other, and a fit."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, random_model
from udlbridge import backends
from udlbridge.errors import InputError, LayerError, OptionError, ShapeError

RNG = np.random.default_rng(7)
X = RNG.standard_normal((5, 3))


def targets() -> tuple[np.ndarray, np.ndarray]:
    """Values for some points, single slopes for others."""
    y, slopes = RNG.standard_normal((5, 2)), RNG.standard_normal((5, 2, 3))
    y[2:] = np.nan
    slopes[:2] = np.nan
    slopes[3, :, 1:] = np.nan
    return y, slopes


@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu_erf"])
def test_gradient_equals_differences(activation: str, backend: str) -> None:
    function = ub.losses.sobolev(
        random_model([3, 4, 2], [activation, "sigmoid"]), X, *targets(), weight=0.7, backend=backend
    )
    start = function.start()
    gradient = function.gradient(start)
    for index in range(len(start)):
        e = np.zeros_like(start)
        e[index] = 1e-6
        difference = (function.value(start + e) - function.value(start - e)) / 2e-6
        assert gradient[index] == pytest.approx(difference, abs=2e-8 * max(1.0, np.abs(gradient).max()))


def test_engines_agree(backend: str) -> None:
    model = ub.Model([ub.Flatten(), ub.Dense(3, 4), ub.Activation("mish"), ub.Dense(4, 2, "tanh")], dtype="float64")
    cotangent = RNG.standard_normal((5, 2, 3, 1))
    found = backends.get(backend).slope_gradient(model, X[..., None].copy(), cotangent)
    for name, expected in backends.get("reference").slope_gradient(model, X[..., None].copy(), cotangent).items():
        if not expected.any():
            assert not found[name].any()  # the last bias moves no slope
        else:
            assert_within_budget(found[name], expected)


def test_slopes_alone_recover_a_function_up_to_a_constant(backend: str) -> None:
    model = ub.Model([ub.Dense(1, 6, "tanh"), ub.Dense(6, 1)], seed=1, dtype="float64")
    x = np.linspace(-2, 2, 9)[:, None]
    y, slopes = np.full((9, 1), np.nan), np.cos(x)[:, None, :]
    y[4] = 0.0
    function = ub.losses.sobolev(model, x, y, slopes, backend=backend)
    path = ub.optimize.descend(function, function.start(), steps=300, step_size=0.02)
    assert path.values[-1] < 0.05 * path.values[0]
    fitted = ub.outputs(function.at(path.minimum), x, backend=backend)
    np.testing.assert_allclose(fitted, np.sin(x), atol=0.35)


def test_bad_targets_are_named() -> None:
    model = random_model([3, 4, 2], ["tanh", "identity"])
    y, slopes = targets()
    with pytest.raises(ShapeError, match="values of shape"):
        ub.losses.sobolev(model, X, y[:4], slopes)
    with pytest.raises(ShapeError, match="slopes of shape"):
        ub.losses.sobolev(model, X, y, slopes[:, :1])
    with pytest.raises(InputError, match="infinite"):
        ub.losses.sobolev(model, X, y * np.inf, slopes)
    with pytest.raises(InputError, match="without any observation"):
        ub.losses.sobolev(model, X, y * np.nan, slopes * np.nan)
    with pytest.raises(OptionError, match="weight=0"):
        ub.losses.sobolev(model, X, y, slopes, weight=0)
    softmax = random_model([3, 2], ["tanh"], softmax=True)
    function = ub.losses.sobolev(softmax, X, y, slopes, backend="reference")
    with pytest.raises(LayerError, match="layer 1, softmax"):
        function.gradient(function.start())
