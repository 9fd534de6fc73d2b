"""What may come in as a kernel: anything square with a `shape` and two-dimensional slicing, on disk or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np

from udlbridge.errors import DTypeError, InputError, ShapeError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.texts import kind_of

BLOCK = 1024
"""Rows and columns that are looked through at a time."""


@runtime_checkable
class KernelLike(Protocol):
    """A square matrix that can be read in blocks: `k[i:j, p:q]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        """One block, as an array or something that `np.asarray` takes."""


@runtime_checkable
class Tiled(KernelLike, Protocol):
    """A symmetric kernel that is kept as the tiles of its lower triangle, as a store does."""

    @property
    def grid(self) -> Grid:
        """The tiles."""

    def read_tile(self, tile: Tile, /) -> np.ndarray:
        """One of them, (r, c)."""


def check_real(block: np.ndarray) -> np.ndarray:
    """The block itself.

    Raises:
        DTypeError: its entries are not real numbers.
    """
    if block.dtype.kind not in "biuf":
        remedy = "take its real part" if block.dtype.kind == "c" else "convert it to float64"
        raise DTypeError(f"a kernel of dtype {block.dtype}", allowed="real numbers", remedy=remedy)
    return block


def check_square(kernels: Sequence[KernelLike]) -> int:
    """The common n of kernels (n, n).

    Raises:
        InputError: something that is not a matrix.
        ShapeError: not square, or of different size.
    """
    for kernel in kernels:
        if not isinstance(kernel, KernelLike):
            raise InputError(
                f"{kind_of(kernel)} in the place of a kernel",
                allowed="an array (n, n), or anything with `shape` and two-dimensional slicing",
                remedy="np.asarray(k), if it holds the numbers",
            )
    shapes = [tuple(kernel.shape) for kernel in kernels]
    for shape in shapes:
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise not_a_matrix("a kernel of", shape)
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"kernels of different size: {', '.join(map(str, dict.fromkeys(shapes)))}" if shapes else "no kernels",
            allowed="kernels of the same samples",
            remedy="compute all of them on the same x",
        )
    return shapes[0][0]


def not_a_matrix(words: str, shape: tuple[int, ...], file: str = "FILE") -> ShapeError:
    """The error for what is no square matrix, by its shape: a kernel of several outputs, or samples in its place.

    Args:
        words: what stands before the shape.
        shape: of what was given.
        file: where it is.
    """
    if len(shape) > 2 and shape[0] == shape[1]:
        one = "; k[..., 0] is one of these" if len(shape) == 3 else ""
        return ShapeError(
            f"{words} shape {shape}: it keeps outputs apart",
            allowed="a matrix (n, n)",
            remedy=f'ask for outputs="trace", or for one output{one}',
            shell="compute it with --outputs trace, or of one output",
        )
    return ShapeError(
        f"{words} shape {shape}, which is not square" + (": are these samples?" if shape and 0 not in shape else ""),
        allowed="a matrix (n, n), with a row and a column for each sample",
        remedy="of samples x, give ub.ntk(model, x); of samples x2 and x, their cross kernel is none",
        shell=f"samples go with a network: --model NETWORK --samples {file}",
    )


def first_not_finite(kernel: KernelLike, name: str) -> str:
    """What to say of a kernel that sums have shown not to be finite: it is read again, for the first entry that is not.

    "First" by blocks of `BLOCK` samples, from the left to the right and from above to below.
    """
    n = kernel.shape[0]
    for top, left in product(range(0, n, BLOCK), repeat=2):
        block = np.asarray(kernel[top : top + BLOCK, left : left + BLOCK])
        for i, j in np.argwhere(~np.isfinite(block)):
            return f"{name} is not finite: it is {block[i, j]} at ({top + i}, {left + j})"
    return f"{name} is finite, and sums over it are not"
