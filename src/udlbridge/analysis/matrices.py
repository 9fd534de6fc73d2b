"""Symmetric matrices that are read a block of rows at a time: arrays, memory maps, and whatever slices like them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from udlbridge.analysis.inputs import not_a_matrix
from udlbridge.analysis.scaling import peak_of, scale_exponent
from udlbridge.arrays import as_array
from udlbridge.errors import InputError
from udlbridge.texts import kind_of
from udlbridge.tolerances import rounding_unit

BLOCK_BYTES = 1 << 26
"""Bytes of float64 that a block of rows takes while it is worked on."""


class SlicedMatrix:
    """The symmetric part of something with `shape`, `dtype` and slices `[i:j, p:q]`, in float64.

    Integers are taken as the float64 numbers that they are.

    If it has a product of its own (`@`, as a kernel store has) that one is used (`has_product`), and symmetry is taken
    for granted: such a thing stores one triangle. Otherwise rows are read in blocks, each once per product.

    Raises:
        ShapeError, InputError: if it is not square, is empty, or holds no real numbers.
    """

    def __init__(self, source: Any) -> None:
        if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
            raise InputError(
                f"{kind_of(source)} in the place of a kernel",
                allowed="an array (n, n), or anything with `shape`, `dtype` and two-dimensional slicing",
                remedy="np.asarray(k), if it holds the numbers",
            )
        self._source = source
        self.shape: tuple[int, ...] = tuple(source.shape)
        given = np.dtype(source.dtype)
        self.dtype: np.dtype[Any] = np.dtype(np.float64) if given.kind in "biu" else given.newbyteorder("=")
        self.has_product = hasattr(source, "__matmul__") and not isinstance(source, np.ndarray)
        if len(self.shape) != 2 or self.shape[0] != self.shape[1]:
            raise not_a_matrix("the kernel has", self.shape)
        if self.shape[0] == 0:
            raise InputError("the kernel is empty", allowed="n >= 1", remedy="check the selection of samples")
        if self.dtype.kind != "f":
            raise InputError(
                f"the kernel has dtype {given}",
                allowed="real numbers",
                remedy="convert it with .astype(np.float64)",
                shell="write a file of real numbers",
            )
        self.eps = rounding_unit(source, self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def check(self) -> None:
        """Read everything once.

        Raises:
            InputError: if an entry is not finite, or the matrix is not symmetric up to rounding.
        """
        largest = gap = 0.0
        for rows in self._blocks():
            block = self._read((rows, slice(None))).astype(self.dtype, copy=False)
            if not np.isfinite(block).all():
                i, j = (int(axis) for axis in np.argwhere(~np.isfinite(block))[0])
                raise InputError(
                    f"the kernel is {block[i, j]} at {(rows.start + i, j)}",
                    allowed="finite numbers",
                    remedy="find its origin",
                )
            largest = max(largest, float(np.abs(block).max()))
            if not self.has_product:
                mirrored = self._read((slice(None), rows)).T
                with np.errstate(over="ignore"):  # a gap of infinity is a gap
                    gap = max(gap, float(np.abs(block.astype(np.float64) - mirrored).max()))
        relative = gap / largest if largest > 0 else 0.0
        if relative > 100 * self.eps * np.sqrt(len(self)):
            raise InputError(
                f"the kernel is not symmetric: K and K' differ by {relative:.2g} of the largest entry",
                allowed="a symmetric matrix",
                remedy="a cross kernel (x2=) has no spectrum of this kind; use singular values",
            )

    def dense(self) -> tuple[np.ndarray, int]:
        """The whole matrix, (n, n) float64, as a copy, divided by 2^exponent; and the exponent.

        That is 0 for all but very large and very small entries, which LAPACK cannot take.
        """
        wide = np.empty(self.shape)
        for rows in self._blocks():
            wide[rows] = self._read((rows, slice(None)))
        exponent = scale_exponent(peak_of(wide))
        if exponent:
            np.ldexp(wide, -exponent, out=wide)
        for rows in self._blocks():
            mean = (wide[rows, rows.start :] + wide[rows.start :, rows].T) / 2
            wide[rows, rows.start :] = mean
            wide[rows.start :, rows] = mean.T
        return wide, exponent

    def __matmul__(self, block: np.ndarray) -> np.ndarray:
        """The symmetric part times a vector (n,) or a block of them (n, m), in float64, by one pass over the rows."""
        if self.has_product:
            return np.asarray(self._source @ block, dtype=np.float64)
        result = np.zeros(block.shape)
        for rows in self._blocks():
            part = self._read((rows, slice(None))).astype(np.float64, copy=False)
            result[rows] += part @ block
            result += part.T @ block[rows]
        return result / 2

    def _read(self, block: tuple[slice, slice]) -> np.ndarray:
        return as_array(self._source[block], "a block of the kernel")

    def _blocks(self) -> Iterator[slice]:
        n = len(self)
        step = max(1, BLOCK_BYTES // (8 * n))
        for start in range(0, n, step):
            yield slice(start, min(n, start + step))
