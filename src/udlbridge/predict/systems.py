"""Kernels and targets as one linear system: checked, regularised, and factored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_solve, cholesky, eigh

from udlbridge.arrays import as_array
from udlbridge.errors import InputError, NumericalError, ShapeError
from udlbridge.kernels.finite import check_finite
from udlbridge.options import checked_not_negative
from udlbridge.texts import counted


def checked_numbers(what: str, value: object) -> Float[np.ndarray, ...]:
    """`value` as a float64 array of finite numbers.

    Raises:
        InputError: as `udlbridge.arrays.as_array`; complex numbers, NaN or infinity.
    """
    array = as_array(value, what)
    if array.dtype.kind == "c":
        raise InputError(f"{what} has dtype {array.dtype}", allowed="real numbers", remedy="take the real part")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{what} is {array[where]} at {where}", allowed="finite numbers", remedy="find its origin")
    return array


def checked_kernel(what: str, kernel: object) -> Float[np.ndarray, ...]:
    """A kernel (m, n), or (m, n, O, O) for coupled outputs, in float64.

    Raises:
        InputError, ShapeError: it is neither.
    """
    k = checked_numbers(what, kernel)
    if k.ndim == 2 or (k.ndim == 4 and k.shape[2] == k.shape[3]):
        return k
    raise ShapeError(
        f"{what} has shape {k.shape}",
        allowed='(m, n), or (m, n, O, O) as outputs="full" gives it',
        remedy='compute it with outputs="trace", "mean", one output or "full"',
    )


def as_matrix(kernel: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    """(m, n) as it is; (m, n, O, O) as (m O, n O), a sample's outputs one after the other."""
    if kernel.ndim == 2:
        return kernel
    m, n, o, _ = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(m * o, n * o)


@dataclass(frozen=True, eq=False)
class System:
    """The kernel of n training samples, as a matrix, with the targets that it is to explain.

    `matrix` is (n, n), and acts on every output by itself, or (n O, n O), where outputs are `coupled`. It is symmetric
    and regularised. `y` is (n, O); `flat` says that the targets came as (n,), and outputs go back so.
    """

    matrix: Float[np.ndarray, "size size"]
    y: Float[np.ndarray, "n outputs"]
    coupled: bool
    flat: bool

    def columns(self, outputs: np.ndarray) -> Float[np.ndarray, "size right"]:
        """Outputs (n, O) as the matrix takes them."""
        return outputs.reshape(-1, 1) if self.coupled else outputs

    def outputs(self, columns: np.ndarray) -> Float[np.ndarray, "samples outputs"]:
        """Back to (samples, O)."""
        return columns.reshape(-1, self.y.shape[1])

    def shown(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs in the shape in which the targets came: (..., samples, O) or (..., samples)."""
        return outputs[..., 0] if self.flat else outputs

    def initial(self, what: str, given: object, samples: int) -> Float[np.ndarray, "samples outputs"]:
        """Initial outputs, zero unless they are given.

        Raises:
            InputError, ShapeError: they do not fit the targets.
        """
        size = self.y.shape[1]
        if given is None:
            return np.zeros((samples, size))
        f = checked_numbers(what, given)
        if f.shape == (samples, size) or (self.flat and f.shape == (samples,)):
            return f.reshape(samples, size)
        wanted = (samples,) if self.flat else (samples, size)
        raise ShapeError(f"{what} has shape {f.shape}", allowed=f"{wanted}", remedy="give outputs as the targets are")

    def test_matrix(self, k_test: object) -> tuple[Float[np.ndarray, "rows size"], int]:
        """The kernel of test samples against the training samples as a matrix, and how many test samples there are.

        Raises:
            InputError, ShapeError: it does not fit the training kernel.
        """
        k = checked_kernel("k_test", k_test)
        n, o = self.y.shape
        tail = (n, o, o) if self.coupled else (n,)
        if k.shape[1:] != tail:
            raise ShapeError(
                f"k_test has shape {k.shape}",
                allowed=f"(m, {', '.join(map(str, tail))}): test samples against the {n} training samples",
                remedy="compute it as ub.ntk(model, x_test, x_train, ...), with the outputs of the training kernel",
            )
        return as_matrix(k), len(k)

    @cached_property
    def eigen(self) -> tuple[Float[np.ndarray, " size"], Float[np.ndarray, "size size"]]:
        """Eigenvalues, rounded negatives as zero, and eigenvectors.

        Raises:
            NumericalError: the matrix is not positive semidefinite beyond rounding.
        """
        values, vectors = eigh(self.matrix)
        check_semidefinite(values)
        return np.maximum(values, 0.0), vectors

    def filtered(
        self, response: Callable[[np.ndarray], np.ndarray], right: np.ndarray
    ) -> Float[np.ndarray, "size right"]:
        """V response(lambda) V' right, in the basis of eigenvectors.

        Raises:
            NumericalError: the matrix is not positive semidefinite beyond rounding.
        """
        values, vectors = self.eigen
        return vectors @ (response(values)[:, None] * (vectors.T @ right))

    def solve(self, right: np.ndarray) -> Float[np.ndarray, "size right"]:
        """matrix^-1 right, by Cholesky.

        Raises:
            NumericalError: the matrix is singular, or not positive definite.
        """
        return cho_solve((self._factor, True), right)

    @property
    def log_determinant(self) -> float:
        """log det of the matrix. Raises `NumericalError` as `solve`."""
        return 2.0 * float(np.log(np.diagonal(self._factor)).sum())

    @cached_property
    def _factor(self) -> Float[np.ndarray, "size size"]:
        try:
            factor = cholesky(self.matrix, lower=True)
            rounding = len(factor) * np.finfo(np.float64).eps * float(np.diagonal(self.matrix).max())
            singular = bool(float(np.diagonal(factor).min()) ** 2 <= rounding)
        except LinAlgError:
            _ = self.eigen  # a negative eigenvalue is another fault than none
            singular = True
        if singular:
            raise NumericalError(
                "the kernel of the training samples is singular up to rounding",
                allowed="a positive definite kernel",
                remedy="give diag_reg, as diag_reg=1e-6; leave out repeated samples; or ask for a finite time",
            )
        return factor


def check_semidefinite(values: Float[np.ndarray, " size"]) -> None:
    """Raise `NumericalError` for ascending eigenvalues of which one is negative beyond rounding."""
    lowest, highest = float(values[0]), float(values[-1])
    tolerance = 10 * np.sqrt(len(values)) * float(np.finfo(np.float32).eps) * max(highest, 0.0)
    if lowest < -tolerance:
        raise NumericalError(
            f"the kernel is not positive semidefinite: its smallest eigenvalue is {lowest:.3g}, the largest "
            f"{highest:.3g}",
            allowed=f"eigenvalues above {-tolerance:.2g}, where rounding ends",
            remedy="look at ub.spectrum(k), mend it with ub.repair(k), or give diag_reg",
        )


def check_symmetric(what: str, matrix: Float[np.ndarray, "size size"]) -> None:
    """Raise `InputError` for a matrix that differs from its transpose by more than the rounding of float32."""
    scale, eps = float(np.abs(matrix).max(initial=0.0)), float(np.finfo(np.float32).eps)
    gap = float(np.abs(matrix - matrix.T).max(initial=0.0))
    if gap > 100 * eps * np.sqrt(len(matrix)) * scale:
        raise InputError(
            f"{what} is not symmetric: it differs from its transpose by {gap / scale:.2g} of the largest entry",
            allowed="the kernel of samples with themselves",
            remedy="compute it as ub.ntk(model, x)",
        )


def training_system(k_train: object, y: object, diag_reg: Any = 0.0) -> System:
    """The checked system of a training kernel and targets, with `diag_reg` times the mean diagonal added.

    Args:
        k_train: (n, n), or (n, n, O, O) for coupled outputs.
        y: targets (n, O) or (n,).
        diag_reg: at least 0, relative to the mean of the diagonal.

    Raises:
        InputError, ShapeError, OptionError: what is wrong with them; a kernel that is not symmetric.
    """
    k, targets = checked_kernel("k_train", k_train), checked_numbers("y", y)
    flat = targets.ndim == 1
    targets = targets.reshape(len(targets), -1) if targets.ndim <= 2 and targets.size else targets
    if k.shape[0] != k.shape[1] or targets.ndim != 2 or len(targets) != len(k):
        raise ShapeError(
            f"k_train has shape {k.shape} and y {targets.shape}",
            allowed="(n, n) or (n, n, O, O), and (n, O) or (n,)",
            remedy="give the kernel of the training samples with themselves, and a target for each",
        )
    if k.ndim == 4 and k.shape[2] != targets.shape[1]:
        raise ShapeError(
            f"k_train couples {counted(k.shape[2], 'output')}, y has {targets.shape[1]}",
            allowed="as many targets as outputs",
            remedy="give y (n, O)",
        )
    share = checked_not_negative("diag_reg", diag_reg)
    matrix = as_matrix(k)
    check_symmetric("k_train", matrix)
    matrix = matrix / 2 + matrix.T / 2  # halves first: the sum of two large numbers may be none
    with np.errstate(over="ignore"):
        matrix[np.diag_indices_from(matrix)] += share * float((np.diagonal(matrix) / len(matrix)).sum())
    check_finite(matrix, "k_train + diag_reg")
    return System(matrix, targets, coupled=k.ndim == 4, flat=flat)
