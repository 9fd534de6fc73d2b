"""Sizes of activations and gradients, and the ways to draw weights."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, random_model, samples
from udlbridge import backends
from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError


def deep(width: int, depth: int) -> ub.Model:
    layers = [ub.Dense(1, width, "relu"), *[ub.Dense(width, width, "relu") for _ in range(depth - 1)]]
    return ub.Model([*layers, ub.Dense(width, 1)], dtype="float64")


def test_signals_are_activations_and_loss_gradients(backend: str) -> None:
    model = random_model([3, 4, 2], ["tanh", "sigmoid"], softmax=True)
    x, y = samples(model, 5), np.ones((5, 2))
    activations, errors = backends.get(backend).signals(model, x, y)
    first = ub.Model(model.layers[:1], {k: v for k, v in model.params.items() if k.startswith("0.")})
    assert_within_budget(activations[0], ub.outputs(first, x, backend="reference"))
    assert_within_budget(activations[2], ub.outputs(model, x, backend="reference"))
    # At a Dense layer the gradient of its bias is the gradient at its preactivation.
    slope = 2 * (ub.outputs(model, x, backend="reference") - y)
    blocks = ub.jacobian(model, x, backend="reference")
    for index in (0, 1):
        expected = np.einsum("na,nao->no", slope, blocks[f"{index}.bias"])
        assert_within_budget(errors[index], expected)
    assert_within_budget(errors[2], slope)


def test_fifty_layers_of_eighty_units(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((100, 1))
    report = ub.signal_report(ub.init.he(deep(80, 50), seed=1), x, backend=backend)
    assert len(report.rows) == 51
    # He: the size of the signal stays within a factor of ten over fifty layers.
    assert max(report.activation_std[:-1]) / min(report.activation_std[:-1]) < 10
    assert max(report.gradient_std[:-1]) / min(report.gradient_std[:-1]) < 10
    exploding = ub.signal_report(ub.init.normal(deep(80, 50), 1.0, seed=1), x, backend=backend)
    # Each layer of unit variance multiplies by about sqrt(80 / 2).
    growth = (exploding.activation_std[49] / exploding.activation_std[0]) ** (1 / 49)
    assert growth == pytest.approx(np.sqrt(40), rel=0.1)
    vanishing = ub.signal_report(ub.init.normal(deep(80, 50), 0.001, seed=1), x, backend=backend)
    assert vanishing.activation_std[49] < 1e-20
    assert str(report).count("\n") == 51
    assert report.to_dict()["rows"][0]["kind"] == "dense"


def test_signals_through_tokens_and_convolutions(backend: str) -> None:
    language = ub.Model([ub.Embedding(5, 4), ub.SelfAttention(4, 2), ub.Take(-1), ub.Dense(4, 5)], dtype="float64")
    images = ub.Model([ub.Conv2d(1, 2, 3, "tanh"), ub.BatchNorm(2), ub.Flatten(), ub.Dense(8, 1)], dtype="float64")
    tokens = np.array([[0, 3, 1], [4, 4, 2]])
    pixels = np.random.default_rng(0).standard_normal((3, 1, 4, 4))
    for model, x in ((language, tokens), (images, pixels)):
        report = ub.signal_report(model, x, backend=backend)
        reference = ub.signal_report(model, x, backend="reference")
        np.testing.assert_allclose(report.activation_std, reference.activation_std, rtol=1e-12)
        np.testing.assert_allclose(report.gradient_std, reference.gradient_std, rtol=1e-11)
        assert [row.kind for row in report.rows] == [layer.kind for layer in model.layers]


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_variances_of_the_draws(distribution: str) -> None:
    model = ub.Model([ub.Dense(300, 200), ub.Dense(200, 2)])
    he = ub.init.he(model, distribution=distribution).params["0.weight"]
    assert he.dtype == np.float32
    assert he.var() == pytest.approx(2 / 300, rel=0.03)
    glorot = ub.init.glorot(model, distribution=distribution).params["0.weight"]
    assert glorot.var() == pytest.approx(2 / 500, rel=0.03)
    if distribution == "uniform":
        assert np.abs(he).max() <= np.sqrt(6 / 300)
    assert ub.init.normal(model, 0.25).params["0.weight"].var() == pytest.approx(0.25, rel=0.03)
    assert not ub.init.he(model).params["0.bias"].any()
    assert ub.init.he(model, seed=1) == ub.init.he(model, seed=1) != ub.init.he(model, seed=2)


def test_bad_settings_are_named() -> None:
    model = ub.Model([ub.Dense(2, 2)])
    with pytest.raises(OptionError, match="cauchy"):
        ub.init.he(model, distribution="cauchy")
    with pytest.raises(OptionError, match="variance=0"):
        ub.init.normal(model, 0)
    with pytest.raises(ShapeError, match="targets"):
        ub.signal_report(model, np.ones((3, 2), dtype=np.float32), np.ones((3, 1), dtype=np.float32))


def test_overflow_is_reported_as_infinite(backend: str) -> None:
    # Every layer multiplies by about 6, which leaves float32 after fifty layers.
    model = ub.init.normal(deep(80, 50), 1.0, seed=1).astype("float32")
    x = np.random.default_rng(0).standard_normal((20, 1)).astype("float32")
    report = ub.signal_report(model, x, backend=backend)
    sizes = np.array([report.activation_std, report.gradient_std])
    assert not np.isnan(sizes).any()
    assert np.isinf(report.activation_std[-1])
    assert np.isinf(report.gradient_std).all()
    assert np.isfinite(report.activation_std[:20]).all()
    assert "inf" in str(report)


@pytest.mark.usefixtures("untyped")
def test_bad_targets_are_named() -> None:
    model, x = deep(3, 2), np.ones((2, 1))
    for y, error, said in (
        (np.array([[np.nan], [0]]), InputError, "NaN"),
        (np.array([[np.inf], [0]]), InputError, "infinite"),
        (np.array([["a"], ["b"]]), DTypeError, "targets of dtype <U1.*numbers"),
        (np.zeros((1, 1)), ShapeError, "reshape"),
    ):
        with pytest.raises(error, match=said):
            ub.signal_report(model, x, y)
    with pytest.raises(InputError, match="too large for float32"):
        ub.signal_report(model.astype("float32"), x.astype("float32"), np.full((2, 1), 1e300))
