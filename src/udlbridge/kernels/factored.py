"""A lazy kernel: it is kept as its factor, and gives its entries when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy.lib.mixins import NDArrayOperatorsMixin

from udlbridge.arrays import as_array
from udlbridge.errors import DTypeError, OptionError, ShapeError
from udlbridge.kernels.tiling import Tile

ROWS = 4096
"""Rows of the factor that are converted to float64 at a time."""


class FactoredKernel(NDArrayOperatorsMixin):
    """phi phi' for features phi (n, d), never formed: it takes the memory of phi.

    It reads like an array: `k[i:j, p:q]` is phi[i:j] phi[p:q]', `k[i, j]` an entry, `k.diagonal()` the squared lengths
    of the features, and `k @ v` is phi (phi' v). `np.asarray(k)` is all of it, and so is what elementwise arithmetic
    with it begins with. `alignment` and its relatives read it in blocks.

    Args:
        factor: phi, (n, d), real numbers. Half precision is taken as float32, and integers as float64, for their sums
            of products would leave their range; float32 and float64 stay what they are.

    Raises:
        ShapeError: not of two axes, or empty.
        DTypeError: not of real numbers.

    Examples:
        >>> k = ub.FactoredKernel(np.ones((1000, 2)))
        >>> k.shape, k.nbytes, float(k[3, 5])
        ((1000, 1000), 16000, 2.0)
    """

    __slots__ = ("factor",)

    def __init__(self, factor: Shaped[np.ndarray, "n d"]) -> None:
        array = as_array(factor, "the factor", wanted=np.float64)
        if array.dtype.kind not in "biuf":
            remedy = "take its real part" if array.dtype.kind == "c" else "convert it to float64"
            raise DTypeError(f"a factor of dtype {array.dtype}", allowed="real numbers", remedy=remedy)
        if array.ndim != 2 or array.size == 0:
            raise ShapeError(
                f"a factor of shape {array.shape}", allowed="(n, d), not empty", remedy="phi.reshape(len(phi), -1)"
            )
        self.factor: Float[np.ndarray, "n d"] = array.astype(_summable(array.dtype), copy=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self.factor), len(self.factor)

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def size(self) -> int:
        """n^2, the number of entries."""
        return len(self.factor) ** 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the factor, and of every block."""
        return self.factor.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that are held: those of the factor. `np.asarray(k)` takes n^2 entries."""
        return self.factor.nbytes

    @property
    def rank_bound(self) -> int:
        """The largest rank that the kernel can have, min(n, d)."""
        return min(self.factor.shape)

    @property
    def T(self) -> FactoredKernel:  # noqa: N802 - as arrays call it
        """The kernel itself: it is symmetric."""
        return self

    def __len__(self) -> int:
        return len(self.factor)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rows, one after the other."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any, /) -> Any:
        """Entries, rows, or a rectangle, as of an array (n, n): `k[i, j]`, `k[i]`, `k[i:j, p:q]`, `k[:, columns]`.

        Raises:
            OptionError: the key is not an index of a matrix.
        """
        rows, columns = _two(key)
        left, right = self._rows(rows, key), self._rows(columns, key)
        if isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray):  # pairs of indices, as NumPy takes them
            return np.einsum("...d,...d->...", left, right)
        if right.ndim > 2:
            raise OptionError(
                f"k[{key!r}]", allowed="indices of one axis, or two arrays of pairs", remedy="index np.asarray(k)"
            )
        return left @ right.T

    def _rows(self, index: Any, key: object) -> np.ndarray:
        try:
            return np.asarray(self.factor[index])
        except IndexError as error:
            raise OptionError(
                f"k[{key!r}] of a kernel of shape {self.shape} ({error})",
                allowed="integers, slices and arrays of indices within it, as k[i:j, p:q]",
                remedy="correct the index",
            ) from None

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """K[i, i], (n,), from the factor alone."""
        return np.einsum("id,id->i", self.factor, self.factor, dtype=np.float64).astype(self.dtype)

    def __matmul__(self, vectors: Any) -> np.ndarray:
        """phi (phi' v) for a vector (n,) or a block (n, k), in float64, whatever the dtype of the factor.

        Raises:
            ShapeError: another length.
            DTypeError: not real numbers.
        """
        v = as_array(vectors, "the vector", wanted=np.float64)
        if v.ndim not in (1, 2) or len(v) != len(self):
            raise ShapeError(
                f"a kernel of shape {self.shape} times an array of shape {v.shape}",
                allowed=f"({len(self)},) or ({len(self)}, k)",
                remedy="give one number, or row, for each sample",
            )
        if v.dtype.kind not in "biuf":
            remedy = "multiply the real and the imaginary part one after the other" if v.dtype.kind == "c" else ""
            raise DTypeError(f"a kernel times an array of {v.dtype}", allowed="real numbers", remedy=remedy)
        wide, inner = v.astype(np.float64), np.zeros((self.factor.shape[1], *v.shape[1:]))
        blocks = [slice(start, start + ROWS) for start in range(0, len(self), ROWS)]
        for rows in blocks:
            inner += self.factor[rows].T.astype(np.float64) @ wide[rows]
        return np.concatenate([self.factor[rows].astype(np.float64) @ inner for rows in blocks])

    def __rmatmul__(self, vectors: Any) -> np.ndarray:
        """v K, (n,) or (k, n)."""
        return (self @ as_array(vectors, "the vector", wanted=np.float64).T).T

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Products with vectors by the factor; all other arithmetic on the array of all entries."""
        if ufunc is np.matmul and method == "__call__" and not options:
            left, right = inputs
            return left.__matmul__(right) if isinstance(left, FactoredKernel) else right.__rmatmul__(left)
        dense = [np.asarray(value) if isinstance(value, FactoredKernel) else value for value in inputs]
        return getattr(ufunc, method)(*dense, **options)

    def read_tile(self, tile: Tile, /) -> Float[np.ndarray, "r c"]:
        """One tile of any grid, so that a stored kernel and this one are read together by their triangles."""
        return np.asarray(self[tile.rows, tile.columns])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, (n, n)."""
        if copy is False:
            raise ValueError("the entries are computed when they are asked for: an array of them is always a copy")
        return np.asarray(self[:, :], dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, {self.dtype}, rank at most {self.rank_bound})"


def _summable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype, of this machine's byte order, in which sums of products of such numbers are taken."""
    if dtype.kind != "f":
        return np.dtype(np.float64)
    return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)


def _two(key: Any) -> tuple[Any, Any]:
    """The index of the rows and that of the columns, lists as arrays.

    Raises:
        OptionError: more than two, or an axis that is not there.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray)]:
        where = next(index for index, part in enumerate(parts) if part is Ellipsis)
        parts[where : where + 1] = [slice(None)] * max(3 - len(parts), 0)
    parts += [slice(None)] * (2 - len(parts))
    if len(parts) != 2 or any(part is None or part is Ellipsis for part in parts):
        raise OptionError(f"k[{key!r}]", allowed="an index of a matrix, as k[i:j, p:q]", remedy="correct the index")
    rows, columns = (np.asarray(part) if isinstance(part, list) else part for part in parts)
    return rows, columns
