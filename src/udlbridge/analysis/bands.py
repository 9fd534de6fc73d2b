"""Several kernels of the same samples, read in bands of rows: whole rows, squares, or the tiles of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from udlbridge.analysis.inputs import KernelLike, Tiled, check_real
from udlbridge.arrays import as_array
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.kernels.tiling import Grid, block_count

TILE = 2048
"""Side of the blocks that are read at once, unless the kernel is stored in tiles of its own."""


class Part(NamedTuple):
    """The same rectangle of all kernels, read when it is needed, and how often its products count.

    Of a symmetric kernel one triangle is enough: a rectangle off the diagonal counts twice.
    """

    columns: slice
    read: Callable[[], list[np.ndarray]]
    weight: int


class Band(NamedTuple):
    """A band of rows, in parts; of a triangle, those up to the diagonal."""

    rows: slice
    parts: list[Part]
    triangle: bool


def bands_of(kernels: Sequence[KernelLike], n: int, tile: int | None) -> list[Band]:
    """All bands of kernels (n, n): of their triangles where they are stores with the same tiles, else of squares.

    `tile` is the side of the squares; None takes the tiles of a store, or else `TILE`.
    """
    grid = common_triangle(kernels) if tile is None else None
    return list(_triangle(kernels, grid) if grid else _squares(kernels, n, tile))


def lower_bands(kernels: Sequence[KernelLike], n: int, tile: int | None) -> list[Band]:
    """The bands of one triangle of symmetric kernels, whatever they are; blocks off the diagonal count twice."""
    grid = common_triangle(kernels) if tile is None else None
    return list(_triangle(kernels, grid) if grid else _lower_squares(kernels, n, tile or side_of(kernels)))


def common_triangle(kernels: Sequence[KernelLike]) -> Grid | None:
    """The tiles that all kernels are stored in, if they are stores with the same ones, which hold one triangle.

    Kernels that are kept as a factor can be read in any tiles.
    """
    grids = {
        kernel.grid if isinstance(kernel, Tiled) else None
        for kernel in kernels
        if not isinstance(kernel, FactoredKernel)
    }
    return grids.pop() if len(grids) == 1 else None


def _triangle(kernels: Sequence[KernelLike], grid: Grid) -> Iterator[Band]:
    """Block rows of stores, every tile read once."""
    return (triangle_band(kernels, grid, row) for row in range(block_count(grid.n, grid.tile)))


def triangle_band(kernels: Sequence[KernelLike], grid: Grid, row: int) -> Band:
    """One block row of kernels that are kept in the tiles of a triangle."""
    parts = [
        Part(
            tile.columns,
            lambda tile=tile: [kernel.read_tile(tile) for kernel in kernels],  # type: ignore[attr-defined, misc]
            1 if tile.column == row else 2,
        )
        for tile in grid.band(row)
    ]
    return Band(grid.block(row, grid.n), parts, triangle=True)


def _squares(kernels: Sequence[KernelLike], n: int, tile: int | None) -> Iterator[Band]:
    """Bands of rows of anything. Arrays are read along whole rows, as they lie in memory."""
    whole = tile is None and all(isinstance(kernel, np.ndarray) for kernel in kernels)
    tile = side_of(kernels) if tile is None else tile
    across = [slice(0, n)] if whole else [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    for start in range(0, n, tile):
        rows = slice(start, min(start + tile, n))
        yield Band(
            rows,
            [
                Part(there, lambda rows=rows, there=there: [_block(k, rows, there) for k in kernels], 1)  # type: ignore[misc]
                for there in across
            ],
            triangle=False,
        )


def _lower_squares(kernels: Sequence[KernelLike], n: int, tile: int) -> Iterator[Band]:
    """Squares on and below the diagonal of anything."""
    starts = range(0, n, tile)
    for rows in (slice(start, min(start + tile, n)) for start in starts):
        parts = []
        for there in (slice(start, min(start + tile, n)) for start in starts if start < rows.stop):

            def read(there: slice = there, rows: slice = rows) -> list[np.ndarray]:
                return [_block(kernel, rows, there) for kernel in kernels]

            parts.append(Part(there, read, 1 if there.start == rows.start else 2))
        yield Band(rows, parts, triangle=True)


def side_of(kernels: Sequence[KernelLike]) -> int:
    """The side of squares. A store decodes a whole tile to give a part of it."""
    return max((kernel.grid.tile for kernel in kernels if isinstance(kernel, Tiled)), default=TILE)


def _block(kernel: KernelLike, here: slice, there: slice) -> np.ndarray:
    return check_real(as_array(kernel[here, there], "a block of a kernel"))
