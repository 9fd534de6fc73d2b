"""Confidence intervals of alignments: against leaving samples out one by one, and over draws of the samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import udlbridge as ub
from small_stores import X, store_of
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError


def kernels(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)) + 1
    y = x[:, :3] + rng.standard_normal((n, 3))
    return x @ x.T, y @ y.T + 5


@pytest.mark.sampled
@given(seed=st.integers(0, 1000), n=st.integers(6, 14), tile=st.sampled_from([None, 1, 5]))
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_it_is_the_jackknife(estimator: str, seed: int, n: int, tile: int | None) -> None:
    k, m = kernels(seed, n)
    without = []
    for index in range(n):
        left = np.ix_(*[np.delete(np.arange(n), index)] * 2)
        without.append(ub.alignment(k[left], m[left], estimator=estimator))
    error = np.sqrt((n - 1) / n * np.sum((np.array(without) - np.mean(without)) ** 2))
    found = ub.alignment_interval(k, m, level=0.9, estimator=estimator, tile=tile)
    value = ub.alignment(k, m, estimator=estimator)
    np.testing.assert_allclose([found.alignment, found.standard_error], [value, error], rtol=1e-6, atol=1e-9)
    reach = stats.t.ppf(0.95, n - 1) * error
    np.testing.assert_allclose([found.low, found.high], [value - reach, value + reach], rtol=1e-6, atol=1e-9)


def test_the_interval_holds_the_alignment_of_the_population() -> None:
    """|Sxy|^2 / (|Sxx| |Syy|) of the covariances, in 95 of 100 draws of the samples; 88 with a margin of chance."""
    weights = np.random.default_rng(0).standard_normal((4, 3))
    second = weights.T @ weights + 0.25 * np.eye(3)
    truth = np.linalg.norm(weights) ** 2 / (2 * np.linalg.norm(second))
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((80, 4))
        y = x @ weights + 0.5 * rng.standard_normal((80, 3))
        found = ub.alignment_interval(x @ x.T, y @ y.T)
        held += found.low <= truth <= found.high
    assert held >= 88


@pytest.mark.usefixtures("small_tiles")
def test_stores_and_lazy_kernels(tmp_path: Path) -> None:
    store, lazy = store_of(tmp_path / "K.zarr", n=30), ub.label_kernel(np.where(X[:30, 0] > 0, 1, -1))
    found, expected = ub.alignment_interval(store, lazy), ub.alignment_interval(np.asarray(store), np.asarray(lazy))
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_entries_of_any_size(scale: float) -> None:
    k, m = kernels(0, 20)
    found, expected = ub.alignment_interval(k * scale, m / scale), ub.alignment_interval(k, m)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-9)


def test_it_prints_and_exports() -> None:
    found = ub.alignment_interval(*kernels(0, 20))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["n"] == 20
    assert f"between {found.low:.4f} and {found.high:.4f} (95%, jackknife over 20 samples)" in str(found)


@pytest.mark.usefixtures("untyped")
def test_what_has_no_interval() -> None:
    k, m = kernels(0, 12)
    for level in (0, 1, 1.5, -0.1, np.nan, "high"):
        with pytest.raises(OptionError, match="level="):
            ub.alignment_interval(k, m, level=level)  # type: ignore[arg-type]
    for estimator in ("biased", "unbiased"):
        with pytest.raises(ShapeError, match="kernels of 4 samples"):
            ub.alignment_interval(k[:4, :4], m[:4, :4], estimator=estimator)
        with pytest.raises(InputError, match="the second kernel is not symmetric"):
            ub.alignment_interval(k, m + np.triu(m), estimator=estimator)
        with pytest.raises(NumericalError, match="the first kernel is not finite"):
            ub.alignment_interval(k * np.nan, m, estimator=estimator)
    # All labels but one, or two, are equal: without one of these there is nothing left.
    for estimator, odd in (("biased", [3]), ("unbiased", [3, 7])):
        labels = ub.label_kernel(np.where(np.isin(np.arange(12), odd), 1, -1))
        with pytest.raises(NumericalError, match=r"without sample [37]"):
            ub.alignment_interval(k, labels, estimator=estimator)
