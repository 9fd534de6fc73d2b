"""Whether kernels are aligned at all: permutations one by one, exact moments, and how often the test is wrong."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import udlbridge as ub
from small_stores import MODEL, X, store_of
from udlbridge.analysis import permuted
from udlbridge.analysis.permutation import permutation_moments
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError


class OnlySlices:
    """What a kernel on disk offers."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self._array = array.shape, array

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        return self._array[block]


def features(seed: int, n: int, shared: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) + 1
    return x, shared * x[:, :2] + rng.standard_normal((n, 2))


def gram(phi: np.ndarray) -> np.ndarray:
    return phi @ phi.T


FORMS: dict[str, Any] = {
    "arrays": lambda x, y: (gram(x), gram(y)),
    "float32 and integers": lambda x, y: (gram(x).astype(np.float32), np.rint(8 * gram(y)).astype(np.int16)),
    "lazy": lambda x, y: (gram(x), ub.FactoredKernel(y)),
    "lazy first": lambda x, y: (ub.FactoredKernel(x), gram(y)),
    "both lazy": lambda x, y: (ub.FactoredKernel(x), ub.FactoredKernel(y)),
    "wide and lazy": lambda x, y: (OnlySlices(gram(x)), ub.FactoredKernel(np.c_[y, np.zeros((len(y), 40))])),
    "slices and an array": lambda x, y: (OnlySlices(gram(x)), gram(y)),
    "slices": lambda x, y: (OnlySlices(gram(x)), OnlySlices(gram(y))),
    "huge": lambda x, y: (gram(x) * 1e200, gram(y) * 1e-200),
    "huge and lazy": lambda x, y: (gram(x) * 1e200, ub.FactoredKernel(y * 1e110)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("tile", [None, 7])
def test_it_is_the_alignments_of_permuted_kernels(
    form: str, estimator: str, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strip by strip and product by product, the same numbers as one permuted kernel after the other."""
    monkeypatch.setattr(permuted, "STRIP", 60)
    monkeypatch.setattr(permuted, "PRODUCTS", 200)
    n, k, other = 20, *FORMS[form](*features(0, 20, 0.5))
    found = ub.alignment_test(k, other, permutations=6, estimator=estimator, seed=5, tile=tile)
    stored = form == "slices" or form == "wide and lazy"
    blocks = [slice(start, min(n, start + 7)) for start in range(0, n, 7)] if stored and tile else [slice(0, n)]
    table = permuted._table(np.random.default_rng(5), 6, blocks)
    assert (np.sort(table, axis=1) == np.arange(n)).all()
    dense = [np.asarray(kernel[:, :], dtype=np.float64) for kernel in (k, other)]
    swapped = dense[::-1] if form == "lazy first" else dense  # the lazy one is permuted
    expected = [ub.alignment(swapped[0], swapped[1][np.ix_(p, p)], estimator=estimator) for p in table]
    assert found.alignment == pytest.approx(expected[0], abs=1e-6 if "32" in form else 1e-12)
    np.testing.assert_allclose(found.null, expected[1:], rtol=0, atol=1e-6 if "32" in form else 1e-12)
    assert found.p_value == (1 + sum(value >= expected[0] - 1e-12 for value in expected[1:])) / 7


@pytest.mark.parametrize("n", [4, 5, 6])
def test_the_moments_are_those_of_all_permutations(n: int) -> None:
    a, b = (ub.centre(gram(phi)) for phi in features(n, n))
    every = [np.sum(a * b[np.ix_(p, p)]) for p in permutations(range(n))]
    found = permutation_moments([np.diag(a), np.diag(b)], np.array([(a**2).sum(), (b**2).sum()]), n)
    np.testing.assert_allclose(found, [np.mean(every), np.var(every)], rtol=1e-10)


def test_independent_features_are_rejected_as_often_as_is_asked_for() -> None:
    """p-values of both kinds are uniform; of 60, one in twenty is below 0.05."""
    found = [ub.alignment_test(*map(gram, features(seed, 30)), permutations=39, seed=seed) for seed in range(60)]
    for values in ([test.p_value for test in found], [test.gamma_p_value for test in found]):
        assert stats.kstest(np.array(values), "uniform").pvalue > 0.001
        assert sum(value <= 0.05 for value in values) <= 9


def test_dependent_features_are_found() -> None:
    for seed in range(5):
        k, m = map(gram, features(seed, 40, 1.0))
        found = ub.alignment_test(k, m, permutations=199, seed=0)
        assert found.p_value == 1 / 200
        assert found.gamma_p_value is not None
        assert found.gamma_p_value < 1e-3


@pytest.mark.slow
def test_permuting_within_tiles_is_as_exact() -> None:
    values = []
    for seed in range(80):
        k, m = (OnlySlices(gram(phi)) for phi in features(seed, 30))
        values.append(ub.alignment_test(k, m, permutations=29, seed=seed, tile=10).p_value)
    assert stats.kstest(np.array(values), "uniform").pvalue > 0.001


def test_equal_alignments_count() -> None:
    """Of two labels of four samples each there are few different alignments: ties are not lost to rounding."""
    labels = ub.label_kernel(np.repeat([-1, 1], 4))
    found = ub.alignment_test(labels, labels, permutations=500, seed=0)
    as_high = np.isclose(found.null, 1)
    assert 5 < as_high.sum() < 40  # two of C(8, 4) = 70 orders
    assert found.p_value == (1 + as_high.sum()) / 501
    assert ub.alignment_test(np.asarray(labels), labels, permutations=500, seed=0).p_value == found.p_value


@pytest.mark.usefixtures("small_tiles")
def test_a_store_is_read_once_whatever_the_number_of_permutations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, labels = store_of(tmp_path / "K.zarr", n=30), ub.label_kernel(np.where(X[:30, 0] > 0, 1, -1))
    dense = np.asarray(store)
    read: list[tuple[int, int]] = []
    read_tile = ub.KernelStore.read_tile
    monkeypatch.setattr(
        ub.KernelStore, "read_tile", lambda self, tile: read.append((tile.row, tile.column)) or read_tile(self, tile)
    )
    found = ub.alignment_test(store, labels, permutations=150, seed=1)
    assert sorted(read) == sorted((i, j) for i in range(4) for j in range(i + 1))
    expected = ub.alignment_test(dense, labels, permutations=150, seed=1)
    np.testing.assert_allclose(found.null, expected.null, atol=1e-12)
    read.clear()
    assert ub.alignment_test(store, store, permutations=19, seed=1).p_value == 1 / 20
    assert sorted(read) == sorted(2 * [(i, j) for i in range(4) for j in range(i + 1)])  # both kernels, once each
    assert MODEL.n_params > 0


def test_the_gamma_distribution_alone() -> None:
    k, m = map(gram, features(0, 25, 0.3))
    found = ub.alignment_test(k, m, permutations=0)
    assert (found.p_value, len(found.null), found.permutations) == (None, 0, 0)
    a, b = ub.centre(k), ub.centre(m)
    mean, variance = permutation_moments([np.diag(a), np.diag(b)], np.array([(a**2).sum(), (b**2).sum()]), 25)
    expected = stats.gamma.sf(np.sum(a * b), mean**2 / variance, scale=variance / mean)
    assert found.gamma_p_value == pytest.approx(expected, rel=1e-9)
    assert "gamma" in str(found)
    indefinite = np.diag(np.r_[np.ones(12), -2 * np.ones(13)])
    assert ub.alignment_test(k, indefinite, permutations=0).gamma_p_value is None


def test_seeds_repeat_and_the_default_does_not() -> None:
    k, m = map(gram, features(0, 12))
    one, same, other = (ub.alignment_test(k, m, permutations=20, seed=seed) for seed in (3, 3, None))
    assert one == same
    assert one != other
    assert ub.alignment_test(k, m, permutations=20, seed=other.seed) == other
    assert len({one, same, other}) == 2
    with pytest.raises(ValueError, match="read-only"):
        one.null[0] = 0.0
    exported = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert (len(exported["null"]), exported["permutations"]) == (20, 20)
    assert "by 20 permutations" in str(one)


@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_tested() -> None:
    k, m = map(gram, features(0, 12))
    with pytest.raises(ShapeError, match="kernels of 3 samples"):
        ub.alignment_test(k[:3, :3], m[:3, :3])
    with pytest.raises(ShapeError, match="different size"):
        ub.alignment_test(k, m[:5, :5])
    with pytest.raises(InputError, match="the first kernel is not symmetric"):
        ub.alignment_test(np.triu(k), m)
    with pytest.raises(NumericalError, match="the second kernel is not finite"):
        ub.alignment_test(k, np.where(m == m[2, 2], np.nan, m))
    with pytest.raises(NumericalError, match="no norm once it is centred"):
        ub.alignment_test(k, np.ones((12, 12)))
    for options in ({"permutations": -1}, {"permutations": 1.5}, {"seed": -1}, {"estimator": "exact"}, {"tile": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            ub.alignment_test(k, m, **options)  # type: ignore[arg-type]
