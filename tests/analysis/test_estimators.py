"""The unbiased alignment: against its definition, over draws of the samples, in batches, and what has none."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from small_stores import MODEL, X, store_of
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError


def definition(k: np.ndarray, m: np.ndarray) -> float:
    """HSIC as the mean over all ordered choices of four different samples: Song et al. (2012), theorem 1."""
    total = 0.0
    choices = list(permutations(range(len(k)), 4))
    for i, j, q, r in choices:
        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
    return total / len(choices)


def formula(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. (2012), equation 5, with matrices of ones."""
    n, one = len(k), np.ones(len(k))
    a, b = (x - np.diag(np.diag(x)) for x in (k, m))
    traces = np.trace(a @ b) + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
    return float((traces - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3)))


def unbiased(k: np.ndarray, m: np.ndarray) -> float:
    return formula(k, m) / np.sqrt(formula(k, k) * formula(m, m))


def pair(seed: int, n: int, d: int = 3, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of features that share some of their variance."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = x + rng.standard_normal((n, d)) + offset
    return x @ x.T, y @ y.T


def test_the_formula_is_the_definition() -> None:
    k, m = pair(0, 6)
    np.testing.assert_allclose(formula(k, m), definition(k, m), rtol=1e-12)


@pytest.mark.slow
@given(st.integers(0, 1000), st.integers(8, 30), st.integers(1, 12), st.sampled_from([0.0, 30.0]))
def test_the_unbiased_alignment_is_the_formula(seed: int, n: int, tile: int, offset: float) -> None:
    k, m = pair(seed, n, offset=offset)
    expected = unbiased(k, m)
    near = 1e-12 * (1 + offset) ** 4
    for options in ({}, {"tile": tile}):
        assert ub.alignment(k, m, estimator="unbiased", **options) == pytest.approx(expected, abs=near)
    # Constants, and what is on the diagonal, change nothing; neither does the unit.
    assert ub.alignment(k + 7, m + np.diag(np.arange(n)), estimator="unbiased") == pytest.approx(expected, abs=near)
    assert ub.alignment(k * 1e200, m * 1e-200, estimator="unbiased") == pytest.approx(expected, abs=near)
    assert ub.alignment(-k, m, estimator="unbiased") == pytest.approx(-expected, abs=near)
    assert ub.alignment(k, k, estimator="unbiased") == pytest.approx(1, abs=1e-15)


@pytest.mark.slow
def test_independent_features_have_no_alignment() -> None:
    """On 32 samples of 8 dimensions the biased alignment is about 0.2; the other is 0 within its error."""
    found = {"biased": [], "unbiased": []}
    for seed in range(200):
        x, y = np.random.default_rng(seed).standard_normal((2, 32, 8))
        for estimator, values in found.items():
            values.append(ub.alignment(x @ x.T, y @ y.T, estimator=estimator))
    assert np.mean(found["biased"]) == pytest.approx(0.2, abs=0.02)
    mean, error = np.mean(found["unbiased"]), np.std(found["unbiased"]) / np.sqrt(200)
    assert abs(mean) < 3 * error < 0.012
    assert min(found["unbiased"]) < 0


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4] * 6), (5, [6] * 4), (8, [8] * 3), (11, [12] * 2), (99, [24])])
def test_batches_are_the_sums_over_blocks_on_the_diagonal(batch: int, sizes: list[int]) -> None:
    k, m = pair(3, 24)
    sums = np.zeros(3)
    start = 0
    for size in sizes:
        own = np.ix_(range(start, start + size), range(start, start + size))
        sums += [formula(k[own], m[own]), formula(k[own], k[own]), formula(m[own], m[own])]
        start += size
    assert start == 24
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    assert ub.alignment(k, m, estimator="unbiased", batch=batch) == pytest.approx(expected, abs=1e-12)
    # Batches whose entries are of very different size are brought to one unit.
    sizes_of_samples = np.repeat([1.0, 1e100], 12)
    wide = k * np.sqrt(np.outer(sizes_of_samples, sizes_of_samples))
    if batch == 99:
        return
    assert np.isfinite(ub.alignment(wide, m, estimator="unbiased", batch=12))


@pytest.mark.slow
def test_batches_estimate_the_same_with_a_larger_error() -> None:
    """The alignment of the population is known: |Sxy|^2 / (|Sxx| |Syy|) of the covariances."""
    weights = np.random.default_rng(0).standard_normal((4, 3))
    cross, second = weights, weights.T @ weights + np.eye(3)
    truth = np.linalg.norm(cross) ** 2 / (2 * np.linalg.norm(second))
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((96, 4))
        y = x @ weights + rng.standard_normal((96, 3))
        found.append(
            [
                ub.alignment(x @ x.T, y @ y.T, estimator="unbiased", batch=12),
                ub.alignment(x @ x.T, y @ y.T, estimator="unbiased"),
                ub.alignment(x @ x.T, y @ y.T),
            ]
        )
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(60)
    assert (np.abs(mean - truth)[:2] < 3 * error[:2] + 0.01).all()
    differences = np.diff(found, axis=1)[:, 1]  # of the biased and the unbiased one on the same samples
    assert differences.mean() > 3 * differences.std() / np.sqrt(60)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("batch", [None, 4, 7, 10])
def test_stores_and_lazy_kernels(tmp_path: Path, batch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "K.zarr", n=30)
    dense, lazy = np.asarray(store), ub.label_kernel(np.where(X[:30, 0] > 0, 1, -1))
    expected = ub.alignment(dense, np.asarray(lazy), estimator="unbiased", batch=batch)
    read: list[tuple[int, int]] = []
    read_tile = ub.KernelStore.read_tile
    monkeypatch.setattr(
        ub.KernelStore, "read_tile", lambda self, tile: read.append((tile.row, tile.column)) or read_tile(self, tile)
    )
    assert ub.alignment(store, lazy, estimator="unbiased", batch=batch) == pytest.approx(expected, abs=1e-12)
    if batch is None:  # one triangle, once
        assert sorted(read) == [(i, j) for i in range(4) for j in range(i + 1)]
    else:  # along the diagonal alone
        assert max(abs(i - j) for i, j in read) <= 1


def test_the_matrix_and_the_layers() -> None:
    k, m = pair(1, 30)
    matrix = ub.alignment_matrix({"a": k, "b": m, "c": k + m}, estimator="unbiased")
    np.testing.assert_allclose(matrix[0, 1], unbiased(k, m), atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    target = ub.label_kernel(np.where(X[:30, 0] > 0, 1, -1))
    found = ub.layer_alignments(MODEL, X[:30], target, estimator="unbiased", backend="reference")
    expected = [
        unbiased(np.asarray(ub.feature_kernel(MODEL, X[:30], layer=i, backend="reference")), np.asarray(target))
        for i in range(2)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_has_no_unbiased_alignment() -> None:
    k, m = pair(0, 12)
    with pytest.raises(ShapeError, match="kernels of 3 samples"):
        ub.alignment(k[:3, :3], m[:3, :3], estimator="unbiased")
    skew = k + np.triu(np.ones_like(k), 1) * 1e-6
    for options in ({}, {"batch": 6}, {"tile": 5}):
        with pytest.raises(InputError, match="kernel 0 is not symmetric"):
            ub.alignment(skew, m, estimator="unbiased", **options)
    ub.alignment(skew, m)
    for constant in (np.ones((12, 12)), np.eye(12), np.diag(np.arange(12.0)), np.zeros((12, 12))):
        with pytest.raises(NumericalError, match="no norm once it is centred without bias"):
            ub.alignment(m, constant, estimator="unbiased")
    for bad in (np.nan, np.inf):
        broken = k.copy()
        broken[3, 1] = broken[1, 3] = bad
        with pytest.raises(NumericalError, match=rf"kernel 0 is not finite: it is {bad} at \(1, 3\)"):
            ub.alignment(broken, m, estimator="unbiased")


@given(st.integers(0, 1000), st.integers(4, 9), st.sampled_from([None, 4]))
def test_it_lies_between_minus_one_and_one(seed: int, n: int, batch: int | None) -> None:
    """What is under the roots is a sum of squares: of the kernel that is centred for the estimate."""
    x, y = np.random.default_rng(seed).standard_normal((2, n, 20))
    k, m = x @ x.T, y @ y.T
    assert -1 <= ub.alignment(k, m, estimator="unbiased", batch=batch) <= 1
    off = k - np.diag(np.diag(k))
    rows = off.sum(axis=0)
    centred = off - (rows[:, None] + rows) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0)
    np.testing.assert_allclose(formula(k, k), (centred**2).sum() / (n * (n - 3)), rtol=1e-10)


def test_float32_rounding_is_no_asymmetry() -> None:
    phi = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32) + 3
    k = phi @ phi.T
    rounded = k * (1 + 1e-7 * np.random.default_rng(1).standard_normal(k.shape)).astype(np.float32)
    assert ub.alignment(rounded, k, estimator="unbiased") == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("untyped")
def test_options_that_do_not_go_together() -> None:
    k, m = pair(0, 12)
    for options, message in (
        ({"estimator": "debiased"}, "estimator='debiased'"),
        ({"estimator": 1}, "estimator=1"),
        ({"batch": 6}, "batch=6 with the biased estimator"),
        ({"estimator": "unbiased", "centred": False}, "without centring"),
        ({"estimator": "unbiased", "batch": 3}, "batch=3"),
        ({"estimator": "unbiased", "batch": 4.5}, "batch=4.5"),
    ):
        with pytest.raises(OptionError, match=message):
            ub.alignment(k, m, **options)  # type: ignore[arg-type]
