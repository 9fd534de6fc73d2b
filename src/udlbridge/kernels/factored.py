"""A kernel that is kept as its factor, and gives its entries when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.errors import OptionError, ShapeError
from udlbridge.kernels.tiling import Tile


class FactoredKernel:
    """phi phi' for features phi (n, d), never formed: it takes the memory of phi.

    `k[i:j, p:q]` is phi[i:j] phi[p:q]', and `np.asarray(k)` is all of it. `alignment` and its relatives read it in
    blocks.

    Args:
        factor: phi, (n, d), of floats.

    Raises:
        ShapeError: not of two axes, or empty.
    """

    __slots__ = ("factor",)

    def __init__(self, factor: Float[np.ndarray, "n d"]) -> None:
        if factor.ndim != 2 or factor.size == 0:
            raise ShapeError(
                f"a factor of shape {factor.shape}", allowed="(n, d), not empty", remedy="phi.reshape(len(phi), -1)"
            )
        self.factor = factor

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self.factor), len(self.factor)

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the factor, and of every block."""
        return self.factor.dtype

    def __len__(self) -> int:
        return len(self.factor)

    def __getitem__(self, block: tuple[slice, slice], /) -> Float[np.ndarray, "r c"]:
        """A rectangle `k[i:j, p:q]`, (j - i, q - p).

        Raises:
            OptionError: anything but two slices.
        """
        if not (isinstance(block, tuple) and len(block) == 2 and all(isinstance(part, slice) for part in block)):
            raise OptionError(
                f"k[{block!r}] of a kernel that is kept as its factor",
                allowed="two slices, k[i:j, p:q]",
                remedy="np.asarray(k), if all of it fits into memory",
            )
        return self.factor[block[0]] @ self.factor[block[1]].T

    def read_tile(self, tile: Tile, /) -> Float[np.ndarray, "r c"]:
        """One tile of any grid, so that a stored kernel and this one are read together by their triangles."""
        return self[tile.rows, tile.columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, (n, n)."""
        if copy is False:
            raise ValueError("the entries are computed when they are asked for: an array of them is always a copy")
        return np.asarray(self[:, :], dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, {self.dtype}, rank at most {min(self.factor.shape)})"
