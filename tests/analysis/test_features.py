"""The outputs of layers as features, and their kernel."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.analysis import features
from udlbridge.errors import NumericalError, OptionError


def test_features_of_every_layer(backend: str) -> None:
    model = ub.Model([ub.Dense(3, 5, "relu"), ub.Dense(5, 4, "tanh"), ub.Dense(4, 2)], seed=1, dtype="float64")
    x = np.random.default_rng(0).standard_normal((7, 3))
    p = model.params
    hidden = np.maximum(x @ p["0.weight"].T + p["0.bias"], 0)
    last = np.tanh(hidden @ p["1.weight"].T + p["1.bias"])
    for layer, phi in ((0, hidden), (-3, hidden), (1, last), (-2, last), (2, last @ p["2.weight"].T + p["2.bias"])):
        np.testing.assert_allclose(ub.features(model, x, layer=layer, backend=backend), phi, rtol=0, atol=1e-13)
        np.testing.assert_allclose(
            ub.feature_kernel(model, x, layer=layer, backend=backend), phi @ phi.T, rtol=0, atol=1e-12
        )
    target = ub.label_kernel(np.array([1, -1, 1, -1, 1, -1, -1]))
    found = ub.layer_alignments(model, x, target, backend=backend)
    expected = [ub.alignment(ub.feature_kernel(model, x, layer=i, backend="reference"), target) for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_features_of_more_samples_than_go_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ub.Model([ub.Dense(3, 5, "relu"), ub.Dense(5, 2)], seed=1)
    x = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    whole = ub.features(model, x, backend="reference")
    monkeypatch.setattr(features, "CHUNK", 4)
    np.testing.assert_allclose(ub.features(model, x, backend="reference"), whole, rtol=1e-6)


def test_a_layer_that_is_not_there() -> None:
    model = ub.Model([ub.Dense(3, 2)])
    with pytest.raises(OptionError, match="layer=-2 of a model with 1 layer"):
        ub.features(model, np.ones((2, 3), dtype=np.float32))


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_a_lazy_kernel_that_is_not_finite_is_refused(size: float) -> None:
    """As `ub.ntk` refuses it: also where the features are finite, and their products are not."""
    model = ub.Model([ub.Dense(2, 3), ub.Dense(3, 1)], {
        "0.weight": np.full((3, 2), size, np.float32), "0.bias": np.zeros(3, np.float32),
        "1.weight": np.ones((1, 3), np.float32), "1.bias": np.zeros(1, np.float32),
    })  # fmt: skip
    with pytest.raises(NumericalError, match=r"the diagonal of K\[0\] is inf in float32"):
        ub.feature_kernel(model, np.ones((4, 2), np.float32), backend="reference")
