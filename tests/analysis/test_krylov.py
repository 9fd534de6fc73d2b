"""Partial spectra: Lanczos against LAPACK, on kernels of real networks and on matrices with known eigenvalues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator

import udlbridge as ub
from udlbridge import errors
from udlbridge.analysis.krylov import RISK, lanczos, lower_bound
from udlbridge.analysis.spectra import fits_lapack


def with_eigenvalues(values: np.ndarray, seed: int = 0) -> np.ndarray:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


class Sliced:
    """What a lazy array is: shape, dtype and slices, and nothing else. It counts the entries that are read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, where: Any) -> np.ndarray:
        block = self._array[where]
        self.read += block.size
        return block


class Stored(Sliced):
    """A kernel store in small: slices, and a product of its own."""

    def __matmul__(self, block: np.ndarray) -> np.ndarray:
        return self._array.astype(np.float64) @ block


@pytest.fixture(scope="module")
def kernel() -> np.ndarray:
    """One output of the notebook's network on 300 MNIST images, (300, 300) float32."""
    x = ub.data.mnist("train", n=300)[0]
    return ub.ntk(ub.models.three_layer_sigmoid(), x, outputs=0, backend="reference")


def memory_map(kernel: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "k.npy", kernel)
    return np.load(folder / "k.npy", mmap_mode="r")


def operator(kernel: np.ndarray, folder: Path) -> LinearOperator:
    return LinearOperator(kernel.shape, matvec=lambda v: kernel.astype(np.float64) @ v, dtype=kernel.dtype)


FORMS = {
    "array": lambda kernel, folder: kernel,
    "memory map": memory_map,
    "slices": lambda kernel, folder: Sliced(kernel),
    "store": lambda kernel, folder: Stored(kernel),
    "operator": operator,
}


@pytest.mark.parametrize("form", FORMS)
def test_lanczos_equals_lapack(form: str, kernel: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.analysis.matrices.BLOCK_BYTES", 8 * 300 * 77)  # four ragged blocks
    whole = ub.spectrum(kernel)
    part = ub.spectrum(FORMS[form](kernel, tmp_path), k=12, dense_limit=0)
    assert (whole.complete, part.complete) == (True, False)
    assert (len(part.largest), len(part.smallest)) == (12, 3)
    np.testing.assert_allclose(part.largest, whole.eigenvalues[-12:], rtol=1e-9)
    np.testing.assert_allclose(part.tolerance, whole.tolerance, rtol=1e-12)
    assert part.lower_bound <= whole.eigenvalues[0] <= part.smallest[0] + 1e-13
    assert part.verdict in ("PSD", "rounding")
    # A residual says that an eigenvalue is near; LAPACK knows where they are.
    for value, residual in zip(part.eigenvalues, part.residuals, strict=True):
        assert min(abs(value - true) for true in whole.eigenvalues) <= residual + 1e-13


def test_all_eigenvalues_of_what_slices(kernel: np.ndarray, tmp_path: Path) -> None:
    whole = np.linalg.eigvalsh(kernel.astype(np.float64))
    for form in ("memory map", "slices", "store"):
        values = ub.spectrum(FORMS[form](kernel, tmp_path)).eigenvalues
        np.testing.assert_allclose(values, whole, rtol=0, atol=1e-13 * whole[-1])


def test_an_array_is_read_once_a_product(kernel: np.ndarray) -> None:
    source = Sliced(kernel)
    result = ub.spectrum(source, k=5, dense_limit=0)
    checks, residuals = 2, 1
    assert source.read == kernel.size * (result.products + checks + residuals)


LARGE = [1000.0, 300.0, 100.0, 30.0, 10.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("smallest", "verdict"),
    [(0.1, "PSD"), (0.0, "rounding"), (-3.0, "rounding"), (-20.0, "not PSD"), (-1e3, "not PSD")],
)
def test_verdict_of_a_partial_spectrum(dtype: type, smallest: float, verdict: str) -> None:
    """Eigenvalues are known because the matrix is diagonal and so exact; below 1 they are in units of the rounding."""
    n = 400
    unit = np.sqrt(n) * float(np.finfo(dtype).eps) * LARGE[0]
    values = np.linspace(0.5, 1.0, n)
    values[:5] = LARGE
    values[5] = smallest if smallest > 0 else smallest * unit
    result = ub.spectrum(np.diag(values.astype(dtype)), k=5, dense_limit=0)
    assert result.verdict == verdict
    assert result.lower_bound <= values[5] <= result.smallest[0] + 1e-12 * LARGE[0]
    np.testing.assert_allclose(result.largest, LARGE[::-1], rtol=1e-9)
    assert result.products < n


def test_a_hidden_negative_eigenvalue_is_found() -> None:
    """One negative eigenvalue just below the tolerance among 800 small positive ones, as a bug would make it."""
    values = np.r_[np.geomspace(1e-9, 1.0, 799), 0.0]
    values[-1] = -20 * np.sqrt(800) * float(np.finfo(np.float64).eps) * 1e6
    matrix = with_eigenvalues(values)
    result = ub.spectrum(matrix.astype(np.float64), dense_limit=0, max_products=800)
    truth = np.linalg.eigvalsh(matrix)[0]
    assert result.lower_bound <= truth
    assert result.verdict == "not PSD"


def test_too_few_products_are_undecided(kernel: np.ndarray) -> None:
    result = ub.spectrum(kernel.astype(np.float64), k=2, dense_limit=0, max_products=6)
    assert result.verdict == "undecided"
    assert result.products == 6
    assert "allow more products" in str(result)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), rank=st.integers(0, 40))
def test_bounds_hold_on_any_matrix(seed: int, n: int, rank: int) -> None:
    """Repeated eigenvalues, zeros, low rank and n = 1 among them: the truth lies between the bounds."""
    generator = np.random.default_rng(seed)
    values = np.zeros(n)
    values[: min(n, rank)] = generator.choice([5.0, 1.0, 0.5, -0.3, 1e-3], size=min(n, rank))
    matrix = with_eigenvalues(values, seed)
    result = ub.spectrum(matrix, k=4, dense_limit=0)
    rounding = 1e-13 * max(np.abs(values).max(), 1e-300)
    assert result.lower_bound - rounding <= values.min() <= result.smallest[0] + rounding
    assert (result.verdict == "not PSD") == (values.min() < -0.1)
    assert result.largest[-1] <= values.max() + rounding


def test_copies_of_an_eigenvalue_are_found() -> None:
    result = ub.spectrum(np.diag(np.r_[np.full(3, 2.0), np.ones(20)]), k=5, dense_limit=0)
    np.testing.assert_allclose(result.largest, [1, 1, 2, 2, 2])


def test_the_bound_fails_only_for_the_start_vectors_that_it_excludes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a risk of one in ten some starts are unlucky; each failure must be one whose component is below eta."""
    monkeypatch.setattr("udlbridge.analysis.krylov.RISK", 0.1)
    n, failures, unlucky = 60, [], []
    values = np.linspace(0.0, 1.0, n)
    for seed in range(300):
        ends = lanczos(lambda v: values * v, n, k=1, n_smallest=1, eps=1e-16, max_products=25, seed=seed)
        start = np.random.default_rng(seed).standard_normal(n)
        if abs(start[0]) / np.linalg.norm(start) < 0.1 * np.sqrt(np.pi / (2 * n)):
            unlucky.append(seed)
        if ends.lower_bound > 1e-15:
            failures.append(seed)
        assert ends.values[0] >= -1e-15
        assert ends.lower_bound > -1.0  # it says something, on the scale of the spectrum
    assert set(failures) <= set(unlucky)
    assert 0 < len(unlucky) < 60  # a tenth of 300 is expected


def test_a_matrix_that_was_made_for_a_start_is_found_out_by_another() -> None:
    """Its negative eigenvector is orthogonal to the start of seed 0, which therefore never sees it."""
    n = 200
    start = np.random.default_rng(0).standard_normal(n)
    hidden = np.random.default_rng(1).standard_normal(n)
    hidden -= start * (start @ hidden) / (start @ start)
    hidden /= np.linalg.norm(hidden)
    inner = np.eye(n) - np.outer(hidden, hidden)
    matrix = inner @ np.diag(np.r_[20.0, np.linspace(0.5, 0.6, n - 1)]) @ inner
    matrix = (matrix + matrix.T) / 2 - np.outer(hidden, hidden)
    fooled = ub.spectrum(matrix, 1, dense_limit=0, seed=0)
    assert (fooled.verdict, fooled.seed) == ("PSD", 0)
    assert fooled.lower_bound is not None
    assert fooled.lower_bound > 0  # the truth is -1
    found = [ub.spectrum(matrix, 1, dense_limit=0) for _ in range(5)]
    for one in found:
        assert one.verdict == "not PSD"
        assert one.lower_bound is not None
        assert one.lower_bound <= -1
    assert len({one.seed for one in found}) == 5
    assert ub.spectrum(matrix, 1, dense_limit=0, seed=found[0].seed) == found[0]


def test_the_bound_after_one_product_is_the_elementary_one() -> None:
    """theta - beta / eta: |<u, b>| |theta - lambda| is at most the length of the residual, beta."""
    eta = RISK * np.sqrt(np.pi / 200)
    np.testing.assert_allclose(lower_bound(np.array([2.0]), np.array([0.5]), 100), 2 - 0.5 / eta, rtol=2e-3)


def test_lapack_is_guarded_from_overflow() -> None:
    assert fits_lapack(32_766, 1 << 40)
    assert not fits_lapack(32_767, 1 << 40)
    assert not fits_lapack(100, 8 * 100 * 100 - 1)
    assert fits_lapack(100, 8 * 100 * 100)


def test_a_partial_spectrum_exports_its_evidence(kernel: np.ndarray) -> None:
    result = ub.spectrum(kernel, k=4, dense_limit=0, rank=51_370)
    exported = result.to_dict()
    assert exported["complete"] is False
    assert len(exported["residuals"]) == len(exported["eigenvalues"]) == 7
    assert exported["lower_bound"] == result.lower_bound
    assert exported["rank_bound"] == 300
    assert "7 of 300 eigenvalues" in str(result)
    assert "lambda_min lies between" in str(result)


def test_progress_says_what_is_known(kernel: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ub.spectrum(kernel, 3, dense_limit=0, seed=2)
    assert capsys.readouterr().err == ""
    shown = ub.spectrum(kernel, 3, dense_limit=0, seed=2, progress=True)
    assert f"{shown.products} products, lambda_min >" in capsys.readouterr().err
    assert shown == quiet


@pytest.mark.parametrize("power", [-996, -500, 500, 1000])
def test_nothing_depends_on_the_unit(power: int) -> None:
    """Squares of the entries vanish or overflow; the spectrum of a power of two times the matrix is exactly that."""
    rows = np.random.default_rng(0).standard_normal((80, 80))
    gram, factor = rows @ rows.T, 2.0**power
    one = ub.spectrum(gram, 5, dense_limit=0, seed=0)
    other = ub.spectrum(gram * factor, 5, dense_limit=0, seed=0)
    assert other.verdict == one.verdict
    assert other.products == one.products
    np.testing.assert_array_equal(other.eigenvalues, one.eigenvalues * factor)
    assert other.lower_bound == pytest.approx((one.lower_bound or 0.0) * factor)
    assert 0 < max(other.residuals) < 1e-12 * other.eigenvalues[-1]


def test_fewer_products_than_eigenvalues() -> None:
    with pytest.raises(errors.OptionError, match=r"max_products=7 for the 5 largest.*at least 8"):
        ub.spectrum(np.eye(30), 5, dense_limit=0, max_products=7)
    assert ub.spectrum(np.diag(np.arange(1.0, 31)), 5, dense_limit=0, max_products=8).products == 8


@pytest.mark.parametrize("rank", [-5, 1.5, "a"])
@pytest.mark.usefixtures("untyped")
def test_ranks_that_cannot_be(rank: object) -> None:
    with pytest.raises(errors.OptionError, match="rank="):
        ub.spectrum(np.eye(3), rank=rank)  # type: ignore[arg-type]
