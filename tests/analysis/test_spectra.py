"""The verdict on positivity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub


def with_eigenvalues(values: list[float], dtype: type = np.float64) -> np.ndarray:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((len(values), len(values))))[0]
    matrix = (basis * np.array(values)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype)


def test_eigenvalues_come_in_ascending_order() -> None:
    np.testing.assert_allclose(ub.spectrum(with_eigenvalues([5, 1, 3])).eigenvalues, [1, 3, 5], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("units", "verdict"), [(4.0, "PSD"), (-4.0, "rounding"), (-100.0, "not PSD")])
def test_verdict_by_size_in_units_of_rounding(dtype: type, units: float, verdict: str) -> None:
    """10 sqrt(4) = 20 units of eps lambda_max part rounding from a real negative eigenvalue; a diagonal is exact."""
    eps = float(np.finfo(dtype).eps)
    result = ub.spectrum(np.diag(np.array([units * eps, 0.5, 0.25, 1.0], dtype=dtype)))
    assert result.verdict == verdict
    np.testing.assert_allclose(result.tolerance, 20 * eps)
    np.testing.assert_allclose(result.units, units if units < 0 else 4.0, rtol=1e-6)
    assert result.negative == (units < 0)


def test_rank_bound_explains_rounded_zeros(images: np.ndarray) -> None:
    """P = 9 parameters and 30 points: the kernel of one output has rank 9 at most."""
    x = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    model = ub.models.notebook_method1()
    result = ub.spectrum(ub.ntk(model, x, outputs=0, backend="reference"), rank=model.n_params)
    assert result.rank_bound == 9
    assert result.verdict in ("PSD", "rounding")
    assert "rank at most 9: at least 21 eigenvalues are zero" in str(result)
    assert sum(abs(value) > result.tolerance for value in result.eigenvalues) <= 9


@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
def test_gram_matrices_are_never_called_not_psd(n: int, seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
    assert ub.spectrum(features @ features.T).verdict != "not PSD"


def test_zero_kernel_is_psd() -> None:
    result = ub.spectrum(np.zeros((3, 3)))
    assert (result.verdict, result.units) == ("PSD", 0.0)


def test_export_and_print() -> None:
    result = ub.spectrum(with_eigenvalues([-1, 2]))
    exported = result.to_dict()
    assert exported["verdict"] == "not PSD"
    assert exported["negative"] == 1
    np.testing.assert_allclose(exported["eigenvalues"], [-1, 2])
    assert str(result).startswith("not PSD: 2 eigenvalues of a float64 kernel, 1 negative")
