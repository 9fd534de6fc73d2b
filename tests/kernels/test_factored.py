"""The lazy kernel: it reads like the array that it stands for, whatever numbers its factor holds."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge.errors import DTypeError, OptionError, ShapeError

PHI = np.random.default_rng(0).standard_normal((9, 3))
LAZY, DENSE = ub.FactoredKernel(PHI), PHI @ PHI.T


@pytest.mark.parametrize(
    "key",
    [
        0, -1, np.int64(2), slice(1, 4), slice(None, None, -2), Ellipsis, (), (0, 1), (slice(None), 2),
        (2, slice(3, 5)),
        (slice(1, 7, 2), slice(None, None, -1)), (Ellipsis, 1), (1, Ellipsis), [1, 2], (slice(None), [3, 1]),
        (2, [0, 1]), ([1, 2], [3, 4]), np.ix_([1, 2], [3, 4, 5]), np.arange(9) > 3, np.array([[1, 2], [3, 4]]),
        (slice(2), slice(90)),
    ],
    ids=str,
)  # fmt: skip
def test_it_is_indexed_like_an_array(key: Any) -> None:
    found = LAZY[key]
    assert np.shape(found) == np.shape(DENSE[key])
    np.testing.assert_allclose(found, DENSE[key], rtol=0, atol=1e-14)


@pytest.mark.parametrize("key", [9, (0, -10), (0, 0, 0), None, (None, 1), "a", 1.5, [100], (0, np.zeros((2, 2), int))])
def test_what_is_no_index(key: Any) -> None:
    with pytest.raises(OptionError, match=r"k\["):
        LAZY[key]


def test_it_has_what_arrays_have() -> None:
    assert (LAZY.shape, LAZY.ndim, LAZY.size, len(LAZY), LAZY.dtype) == ((9, 9), 2, 81, 9, np.dtype(np.float64))
    assert (LAZY.nbytes, LAZY.rank_bound) == (PHI.nbytes, 3)
    assert LAZY.T is LAZY
    np.testing.assert_allclose(LAZY.diagonal(), np.diagonal(DENSE), rtol=1e-14)
    np.testing.assert_allclose(list(LAZY), DENSE, rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.asarray(LAZY, dtype=np.float32), DENSE.astype(np.float32), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(LAZY), np.linalg.norm(DENSE), rtol=1e-14)
    assert "rank at most 3" in repr(LAZY)
    with pytest.raises(ValueError, match="copy"):
        LAZY.__array__(copy=False)


@pytest.mark.parametrize("do", [operator.add, operator.sub, operator.mul, operator.le, np.arctan2])
def test_arithmetic_is_that_of_the_array(do: Any) -> None:
    for other in (2.0, DENSE.T + 1, PHI[:, :1]):
        np.testing.assert_allclose(do(LAZY, other), do(DENSE, other), rtol=0, atol=1e-13)
        np.testing.assert_allclose(do(other, LAZY), do(other, DENSE), rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.exp(LAZY), np.exp(DENSE), rtol=1e-13)
    np.testing.assert_allclose(-LAZY, -DENSE, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_products_never_form_it(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    phi = (4 * PHI).astype(dtype)
    dense = phi.astype(np.float64) @ phi.T.astype(np.float64)
    monkeypatch.setattr("udlbridge.kernels.factored.ROWS", 4)
    monkeypatch.delattr(ub.FactoredKernel, "__array__")
    lazy = ub.FactoredKernel(phi)
    for v in (np.arange(9), np.ones((9, 2), np.float32), np.full(9, 2, np.uint8), PHI):
        for found, expected in ((lazy @ v, dense @ v), (v.T @ lazy, v.T @ dense), (np.matmul(lazy, v), dense @ v)):
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    for wrong in (np.ones(8), np.ones((2, 9, 1)), np.float64(3)):
        with pytest.raises(ShapeError, match="times an array"):
            lazy @ wrong
    with pytest.raises(DTypeError, match="complex"):
        lazy @ np.ones(9, complex)


@given(
    st.tuples(
        st.sampled_from(["int8", "uint8", "int16", "uint32", "int64", "bool", "float16", ">f4", ">i2", "longdouble"]),
        st.integers(1, 5),
        st.integers(1, 400),
        st.integers(0, 1000),
    )
)
@example(("longdouble", 3, 5, 0))  # jaxtyping's real numbers leave it out
def test_factors_of_every_kind_of_number(case: tuple[str, int, int, int]) -> None:
    """Products and sums are those of real numbers: integers do not wrap round, and halves do not end at 65,504."""
    kind, n, d, seed = case
    phi = np.random.default_rng(seed).integers(0, 120, (n, d)).astype(kind)
    if phi.dtype.kind != "u" and kind != "bool":
        phi[:, ::2] *= -1
    wide = phi.astype(np.float64)
    lazy = ub.FactoredKernel(phi)
    assert lazy.dtype == (np.float32 if np.dtype(kind).itemsize <= 4 and np.dtype(kind).kind == "f" else np.float64)
    scale = float((wide**2).sum())
    np.testing.assert_allclose(np.asarray(lazy), wide @ wide.T, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(lazy.diagonal(), (wide**2).sum(axis=1), rtol=1e-6)


def test_small_integers_are_aligned_as_the_numbers_that_they_are() -> None:
    """The sums of products of int8, 300 and more, wrap round: the alignment was -1."""
    phi = np.tile([[1], [2]], (1, 300)).astype(np.int8)
    assert ub.alignment(ub.FactoredKernel(phi), np.eye(2)) == pytest.approx(1.0, abs=1e-12)
    assert ub.alignment(ub.FactoredKernel(phi.astype(np.float16) * 60), np.eye(2)) == pytest.approx(1.0, abs=1e-6)


def test_a_factor_of_any_container(untyped: None) -> None:
    np.testing.assert_array_equal(np.asarray(ub.FactoredKernel([[1, 2], [3, 4]])), [[5, 11], [11, 25]])
    for shape in ((3,), (0, 2), (2, 2, 2)):
        with pytest.raises(ShapeError, match="factor of shape"):
            ub.FactoredKernel(np.ones(shape))
    for bad in (PHI.astype(complex), PHI.astype(str), PHI.astype(object)):
        with pytest.raises(DTypeError, match=r"factor.* of dtype"):
            ub.FactoredKernel(bad)


def test_the_kernels_of_labels_and_features_are_lazy(backend: str) -> None:
    model = ub.Model([ub.Dense(3, 5, "relu"), ub.Dense(5, 2)], seed=1)
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    signs, onehot = np.where(x[:, 0] > 0, 1, -1), np.eye(3)[np.arange(30) % 3]
    phi = ub.features(model, x, backend=backend)
    pairs = [
        (ub.label_kernel(signs), np.outer(signs, signs)),
        (ub.label_kernel(onehot), onehot @ onehot.T),
        (ub.feature_kernel(model, x, backend=backend), phi @ phi.T),
    ]
    for (lazy, dense), dtype in zip(pairs, ("float64", "float64", "float32"), strict=True):
        assert isinstance(lazy, ub.FactoredKernel)
        assert lazy.dtype == np.dtype(dtype)
        np.testing.assert_allclose(np.asarray(lazy), dense, rtol=1e-6, atol=1e-6)
        for tile in (None, 7):
            for centred in (True, False):
                options: dict[str, Any] = {"tile": tile, "centred": centred}
                other = np.diag(np.arange(1.0, 31))
                assert ub.alignment(lazy, other, **options) == pytest.approx(
                    ub.alignment(dense, other, **options), rel=1e-6
                )


def test_its_spectrum_is_that_of_the_array() -> None:
    whole = ub.spectrum(LAZY)
    np.testing.assert_allclose(whole.eigenvalues, np.linalg.eigvalsh(DENSE), rtol=0, atol=1e-14 * whole.eigenvalues[-1])
    part = ub.spectrum(LAZY, 3, dense_limit=0, seed=1)
    np.testing.assert_allclose(part.largest, whole.eigenvalues[-3:], rtol=1e-9)
    assert whole.rank_bound == part.rank_bound == 3
