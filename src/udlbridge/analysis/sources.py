"""Kernels for products with vectors: arrays, stores, lazy kernels and operators, checked, and in one unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.analysis.scaling import UnitProduct
from udlbridge.analysis.spectra import checked_operator, fits_lapack
from udlbridge.arrays import as_array, as_kernel
from udlbridge.errors import InputError
from udlbridge.tolerances import rounding_unit

EXACT_LIMIT = 1 << 27
"""Bytes of a float64 copy up to which all eigenvalues are computed where products would only estimate: n = 4,096."""


@dataclass(frozen=True)
class Source:
    """A symmetric kernel (n, n) to be multiplied with vectors.

    `entries` is the same kernel where its entries can be read, else None. `eps` is the rounding of products, `verdict`
    that of the kernel itself.
    """

    matrix: Any
    entries: SlicedMatrix | None
    kernel: Any
    n: int
    dtype: np.dtype[Any]
    eps: float
    verdict_eps: float

    def unit(self) -> UnitProduct:
        """The kernel in a unit in which its products neither vanish nor overflow."""
        return UnitProduct(self.matrix)

    def fits(self, limit: int) -> bool:
        """Whether the entries are there, and few enough for LAPACK."""
        return self.entries is not None and fits_lapack(self.n, limit)

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """K[i, i] of a kernel whose entries can be read, in float64.

        Raises:
            InputError: an entry is not finite.
        """
        if hasattr(self.kernel, "diagonal"):
            found = np.asarray(self.kernel.diagonal(), dtype=np.float64)
        else:
            found = np.concatenate(
                [np.diagonal(as_array(self.kernel[i : i + 1, i : i + 1], "the kernel")) for i in range(self.n)]
            ).astype(np.float64)
        if not np.isfinite(found).all():
            index = int(np.argwhere(~np.isfinite(found))[0, 0])
            raise InputError(
                f"the kernel is {found[index]} at {(index, index)}", allowed="finite numbers", remedy="find its origin"
            )
        return found


def source_of(kernel: object, *, check: bool = True) -> Source:
    """A kernel to be multiplied with vectors.

    Args:
        kernel: a symmetric matrix (n, n) of real numbers: an array, a memory map, a kernel store, a lazy kernel, or
            anything with `shape`, `dtype` and slices; or a scipy LinearOperator, as `ntk_operator` makes.
        check: read arrays once to see that they are finite and symmetric.

    Raises:
        ShapeError, InputError: it is not such a matrix.
    """
    given: Any = as_kernel(kernel)
    if hasattr(given, "matvec"):
        dtype = checked_operator(given)
        eps = rounding_unit(given, dtype)
        return Source(given, None, given, int(given.shape[0]), dtype, eps, eps)
    matrix = SlicedMatrix(given)
    if check and not matrix.has_product:
        matrix.check()
    return Source(matrix, matrix, given, len(matrix), matrix.dtype, float(np.finfo(np.float64).eps), matrix.eps)
