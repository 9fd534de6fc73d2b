"""The verdict on positivity."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from helpers import random_model, samples
from udlbridge import errors


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
    exported = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert exported["verdict"] == "not PSD"
    assert exported["negative"] == 1
    np.testing.assert_allclose(exported["eigenvalues"], [-1, 2])
    assert str(result).startswith("not PSD: 2 eigenvalues of a float64 kernel, 1 negative")


def test_eigenvalues_are_an_array_and_spectra_are_compared_by_it() -> None:
    one, same, other = (ub.spectrum(np.diag(values)) for values in ([1.0, 2.0], [2.0, 1.0], [1.0, 3.0]))
    assert isinstance(one.eigenvalues, np.ndarray)
    assert one.eigenvalues.dtype == np.float64
    np.testing.assert_array_equal(one.eigenvalues[1:] - one.eigenvalues[:1], [1.0])
    with pytest.raises(ValueError, match="read-only"):
        one.eigenvalues[0] = 5.0
    assert (one == same, one == other, one == "PSD") == (True, False, False)
    assert len({one, same, other}) == 2
    np.testing.assert_array_equal(one.largest, one.eigenvalues)
    np.testing.assert_array_equal(one.smallest, one.eigenvalues)


@pytest.mark.parametrize("dense_limit", [1 << 30, 0])
@pytest.mark.parametrize("power", [1e308, 1e300, 1e-290, 1e-307])
def test_entries_near_the_ends_of_float64(power: float, dense_limit: int) -> None:
    """Neither LAPACK nor sums of squares can take them as they are: both ended in LinAlgError."""
    values = np.array([0.25, 0.5, 0.75])
    unit = with_eigenvalues(list(values))
    found = ub.spectrum(unit * power, 1, dense_limit=dense_limit, max_products=4)
    assert found.verdict == "PSD"
    np.testing.assert_allclose(found.eigenvalues / power, values, rtol=1e-12)
    if power > 1e-300:  # below, it is a number of few digits
        np.testing.assert_allclose(
            found.tolerance / power, 10 * np.sqrt(3) * np.finfo(np.float64).eps * 0.75, rtol=1e-9
        )
    indefinite = ub.spectrum((unit - 0.3 * np.eye(3)) * power, 1, dense_limit=dense_limit, max_products=4)
    assert indefinite.verdict == "not PSD"
    np.testing.assert_allclose(indefinite.eigenvalues[0] / power, -0.05, rtol=1e-9)


@pytest.mark.parametrize("dense_limit", [1 << 30, 0])
def test_eigenvalues_beyond_float64_are_refused(dense_limit: int) -> None:
    matrix = np.full((9, 9), 1e308)  # its largest eigenvalue is 9e308
    with pytest.raises(errors.NumericalError, match="times 2"):
        ub.spectrum(matrix, 1, dense_limit=dense_limit)
    np.testing.assert_allclose(
        ub.spectrum(matrix / 16, 1, dense_limit=dense_limit).eigenvalues[-1], 9 * (1e308 / 16), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "float16"])
@pytest.mark.parametrize("dense_limit", [1 << 30, 0])
def test_whole_and_half_numbers(dtype: str, dense_limit: int) -> None:
    wide = np.array([[100, 1, 0, 0], [1, 120, 1, 1], [0, 1, 125, 0], [0, 1, 0, 127]]).astype(dtype)
    found = ub.spectrum(wide, 1, dense_limit=dense_limit)
    assert found.dtype == ("float16" if dtype == "float16" else "float64")
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(wide.astype(np.float64)), atol=1e-9)
    np.testing.assert_allclose(
        ub.repair(wide - np.diag([0, 0, 0, 1]).astype(dtype) if dtype != "bool" else wide).kernel.astype(np.float64),
        wide.astype(np.float64) - np.diag([0, 0, 0, 1]) if dtype != "bool" else wide,
        atol=1.0 if dtype == "bool" else 0,
    )


def test_the_spectrum_of_some_parameters(backend: str) -> None:
    model = random_model([4, 6, 3], ["tanh", "identity"])
    x = samples(model, 12)
    for params in ("readout", "0.*", ["0.bias", "1.weight"]):
        kernel = ub.ntk(model, x, outputs=1, params=params, backend=backend)
        whole = ub.spectrum(model, x=x, outputs=1, params=params, backend=backend)
        np.testing.assert_allclose(whole.eigenvalues, np.linalg.eigvalsh(kernel), atol=1e-12)
        assert whole.rank_bound == min(12, sum(model.params[name].size for name in names_of(model, params)))
        part = ub.spectrum(model, 2, x=x, outputs=1, params=params, backend=backend, dense_limit=0)
        np.testing.assert_allclose(part.largest, whole.eigenvalues[-2:], rtol=1e-9)
    with pytest.raises(errors.ParameterError, match="matches no parameter"):
        ub.spectrum(model, x=x, params="2.*", backend=backend)
    with pytest.raises(errors.OptionError, match="params= with a kernel of type ndarray"):
        ub.spectrum(np.eye(3), params="readout")


def names_of(model: ub.Model, params: str | list[str]) -> list[str]:
    if isinstance(params, list):
        return params
    return [name for name in model.params if name.startswith("1." if params == "readout" else "0.")]
