"""What each repair changes, what it keeps, and that it is the nearest where it says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge import errors

METHODS = ("threshold", "displace", "closest")


def indefinite(n: int, seed: int, dtype: type = np.float64) -> np.ndarray:
    """A random symmetric matrix whose diagonal is not negative."""
    matrix = np.random.default_rng(seed).standard_normal((n, n))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, np.abs(np.diagonal(matrix)))
    return matrix.astype(dtype)


@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_a_repaired_matrix_is_psd(method: str, dtype: type, n: int, seed: int) -> None:
    matrix = indefinite(n, seed, dtype)
    before = matrix.copy()
    repaired = ub.repair(matrix, method)
    assert repaired.kernel.dtype == dtype
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_array_equal(repaired.kernel, repaired.kernel.T)
    assert ub.spectrum(repaired.kernel).verdict != "not PSD"
    np.testing.assert_allclose(repaired.smallest, np.linalg.eigvalsh(matrix.astype(np.float64))[0], atol=1e-12)
    again = ub.repair(repaired.kernel, method).kernel
    np.testing.assert_allclose(again, repaired.kernel, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(matrix).max())


@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
@pytest.mark.parametrize("method", METHODS)
def test_a_psd_matrix_is_not_touched(method: str, n: int, seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((n, n + 2))
    matrix = features @ features.T
    repaired = ub.repair(matrix, method)
    np.testing.assert_allclose(repaired.kernel, matrix, rtol=1e-15)
    assert repaired.change < 1e-15


@given(n=st.integers(2, 8), seed=st.integers(0, 1000))
def test_what_each_one_keeps(n: int, seed: int) -> None:
    matrix = indefinite(n, seed)
    values, vectors = np.linalg.eigh(matrix)
    clipped = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(ub.repair(matrix, "threshold").kernel, clipped, atol=1e-12)
    displaced = ub.repair(matrix, "displace").kernel - matrix
    np.testing.assert_allclose(displaced, max(-values[0], 0) * np.eye(n), atol=1e-12)
    closest = ub.repair(matrix, "closest")
    np.testing.assert_allclose(np.diagonal(closest.kernel), np.diagonal(matrix), rtol=1e-15)
    assert closest.diagonal_change < 1e-15


@given(n=st.integers(2, 6), seed=st.integers(0, 1000))
def test_threshold_is_nearest_of_all_and_closest_of_those_with_the_diagonal(n: int, seed: int) -> None:
    matrix = indefinite(n, seed)
    change = {method: ub.repair(matrix, method).change for method in METHODS}
    assert change["threshold"] <= min(change.values()) + 1e-12
    # Any other matrix of that kind is further away: here random ones, and those on the way to them.
    best = ub.repair(matrix, "closest").kernel
    generator = np.random.default_rng(seed + 1)
    for _ in range(10):
        features = generator.standard_normal((n, n))
        other = features @ features.T
        scale = np.sqrt(np.diagonal(matrix) / np.diagonal(other))
        other = other * np.outer(scale, scale)
        for share in (1.0, 0.1, 0.01):
            mixed = (1 - share) * best + share * other
            assert np.linalg.norm(best - matrix) <= np.linalg.norm(mixed - matrix) + 1e-6


def test_nearest_correlation_matrix_of_the_literature() -> None:
    """Higham (2002), section 4: the tridiagonal matrix of ones, and its nearest correlation matrix to four digits."""
    matrix = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    expected = [[1.0, 0.7607, 0.1573], [0.7607, 1.0, 0.7607], [0.1573, 0.7607, 1.0]]
    np.testing.assert_allclose(ub.repair(matrix, "closest").kernel, expected, atol=5e-5)


def test_a_zero_on_the_diagonal_clears_its_row() -> None:
    matrix = np.array([[1.0, 0.5, 0.9], [0.5, 0.0, 0.3], [0.9, 0.3, 1.0]])
    repaired = ub.repair(matrix, "closest")
    np.testing.assert_array_equal(repaired.kernel[1], 0)
    np.testing.assert_allclose(repaired.kernel[0, 2], 0.9)
    np.testing.assert_array_equal(ub.repair(np.array([[0.0, 1.0], [1.0, 0.0]]), "closest").kernel, np.zeros((2, 2)))


@pytest.mark.parametrize("method", METHODS)
def test_a_diagonal_of_very_different_entries(method: str) -> None:
    """ "closest" scaled what rounding had left of the smallest entry, and made an indefinite matrix of it."""
    matrix = np.array([[1, 1e-3, 0.2], [1e-3, 1e-10, -0.1], [0.2, -0.1, 1]])
    repaired = ub.repair(matrix, method)
    assert ub.spectrum(repaired.kernel).verdict != "not PSD"
    if method == "closest":
        # With the diagonal given, v = (k01, k21) lies within the ellipse v' G^-1 v <= 1e-10. The nearest such point to
        # (1e-3, -0.1), which is that far away, lies in the direction G (1e-3, -0.1).
        g = np.array([[1, 0.2], [0.2, 1]])
        aim = np.array([1e-3, -0.1])
        expected = 1e-5 * g @ aim / np.sqrt(aim @ g @ aim)
        np.testing.assert_allclose(repaired.kernel[1, [0, 2]], expected, rtol=1e-2)
        np.testing.assert_array_equal(np.diagonal(repaired.kernel), np.diagonal(matrix))


@given(
    n=st.integers(1, 6),
    seed=st.integers(0, 1000),
    spread=st.integers(0, 12),
    power=st.sampled_from([0, -300, 290]),
    sign=st.sampled_from([-1.0, 0.0, 1.0]),
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_what_comes_back_is_never_called_not_psd(
    method: str, dtype: type, n: int, seed: int, spread: int, power: int, sign: float
) -> None:
    """Entries of every size, matrices that are almost definite, almost negative definite, or multiples of one."""
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** -generator.integers(0, spread + 1, n).astype(float)
    matrix = indefinite(n, seed) * np.sqrt(np.outer(sizes, sizes))
    matrix += sign * 10.0**-spread * np.eye(n)
    matrix *= 10.0 ** (power if dtype == np.float64 else power // 12)
    if method == "closest":
        np.fill_diagonal(matrix, np.abs(np.diagonal(matrix)))
    try:
        repaired = ub.repair(matrix.astype(dtype), method)
    except errors.NumericalError as error:
        if "stopped with" not in str(error):  # the search of "closest" says when it has not converged
            raise
        return
    assert ub.spectrum(repaired.kernel).verdict != "not PSD"


def test_equal_negative_eigenvalues_leave_nothing() -> None:
    """Rounding in eigenvalues of -1 is more than all that is left when 1 is added."""
    matrix = np.array([[-1.0, 1e-17], [1e-17, -1.0]])
    for method in ("threshold", "displace"):
        assert ub.spectrum(ub.repair(matrix, method).kernel).verdict != "not PSD"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("power", [1e307, 1e-307])
def test_entries_near_the_ends_of_float64(method: str, power: float) -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    one, other = ub.repair(matrix, method), ub.repair(matrix * power, method)
    np.testing.assert_allclose(other.kernel / power, one.kernel, rtol=1e-12)
    np.testing.assert_allclose(other.change, one.change, rtol=1e-12)
    np.testing.assert_allclose([other.smallest / power, other.diagonal_change], [one.smallest, one.diagonal_change])


def test_what_has_become_too_large_is_refused() -> None:
    matrix = np.diag([1.7e308, -0.5e308])
    with pytest.raises(errors.NumericalError, match="beyond the range of float64"):
        ub.repair(matrix, "displace")
    with pytest.raises(errors.NumericalError, match="beyond the range of float32"):
        ub.repair((matrix / 5e269).astype(np.float32), "displace")


def test_repairs_are_compared_by_what_they_hold() -> None:
    one, same = ub.repair(np.diag([-1.0, 2.0])), ub.repair(np.diag([-1.0, 2.0]))
    assert one == same
    assert one != ub.repair(np.diag([-1.0, 3.0]))
    assert len({one, same}) == 1


def test_a_report_says_what_changed() -> None:
    repaired = ub.repair(np.diag([-1.0, 2.0]), "threshold")
    assert (repaired.smallest, repaired.diagonal_change) == (-1.0, 0.5)
    np.testing.assert_allclose(repaired.change, 1 / np.sqrt(5))
    assert str(repaired).startswith("threshold: smallest eigenvalue before -1;")


def test_a_negative_diagonal_is_named_in_the_kernels_own_unit() -> None:
    with pytest.raises(errors.NumericalError, match=r"-1e\+308 at \(1, 1\)"):
        ub.repair(np.diag([1e308, -1e308, 1e308]), "closest")
