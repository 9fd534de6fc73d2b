"""A symmetric matrix times vectors, from the tiles of its lower triangle: each is read once and serves both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_info

from udlbridge.backends.threads import numpy_blas
from udlbridge.kernels.tiling import Grid, Tile, block_count

STRIP = 64 * 1024
"""Entries of a tile that are read and multiplied at a time: as float64 too they stay in a core's cache."""


def strip_height(tile: int) -> int:
    """Rows of a strip of tiles of this size."""
    return max(1, min(tile, STRIP // tile))


def strip_bytes(tile: int) -> int:
    """Bytes that a thread holds of a matrix, at most: a strip as it is stored and in float64."""
    return 16 * strip_height(tile) * tile


def blas_threads() -> int:
    """How many threads NumPy's BLAS would take now: as many as the cores, or as it was told (`threadpool_limits`)."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


Read = Callable[[Tile, int], Iterable[np.ndarray]]
"""Gives one tile (r, c) from above to below, in strips (h, c) of at most so many rows, of any float dtype; a strip may
be overwritten by the next. It is called from several threads."""

Bands = Callable[[Sequence[int]], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Gives `band_product` of these block rows, in their order."""


def triangle_product(grid: Grid, bands: Bands, vectors: Float[np.ndarray, " n *k"]) -> Float[np.ndarray, " n *k"]:
    """K v in float64, for a symmetric K of which the lower triangle is there.

    What block rows give is added in their order: the result does not depend on who multiplies them.

    Args:
        grid: the tiles, symmetric.
        bands: multiplies block rows, by threads or by workers.
        vectors: one vector (n,) or several (n, k), float64.
    """
    result = np.zeros_like(vectors)
    order = range(block_count(grid.n, grid.tile) - 1, -1, -1)  # the last rows are the longest
    for row, (own, before) in zip(order, bands(order), strict=True):
        result[grid.block(row, grid.n)] += own
        result[: len(before)] += before
    return result


def by_threads(grid: Grid, read: Read, vectors: Float[np.ndarray, " n *k"], threads: int) -> Bands:
    """So many threads of this process multiply block rows at once; each has one strip in memory."""

    def bands(order: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        workers = min(len(order), threads)
        # BLAS gets one thread, since the block rows keep the cores busy; also where there is one alone, since sums by
        # several have other bits.
        with numpy_blas.to(1), ThreadPoolExecutor(workers) as pool:
            yield from pool.map(lambda row: band_product(grid, row, read, vectors), order)

    return bands


def band_product(
    grid: Grid, row: int, read: Read, vectors: Float[np.ndarray, " m *k"]
) -> tuple[Float[np.ndarray, " r *k"], Float[np.ndarray, " b *k"]]:
    """What a block row adds to its own rows of the result, and to all rows before them.

    Args:
        grid: the tiles, symmetric.
        row: the number of the block row.
        read: gives its tiles.
        vectors: at least as far as the block row reaches.
    """
    rows, height = grid.block(row, grid.n), strip_height(grid.tile)
    own = np.zeros((rows.stop - rows.start, *vectors.shape[1:]))
    before = np.zeros((rows.start, *vectors.shape[1:]))
    wide = np.empty((height, grid.tile))
    for tile in grid.band(row):
        top = 0
        for stored in read(tile, height):
            strip = wide[: len(stored), : stored.shape[1]]
            strip[...] = stored
            inside = slice(top, top + len(strip))
            own[inside] += strip @ vectors[tile.columns]
            if tile.row != tile.column:
                before[tile.columns] += strip.T @ vectors[rows][inside]
            top += len(strip)
    return own, before
