"""A symmetric matrix times vectors, from the tiles of its lower triangle: each is read once and serves both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_info

from udlbridge.backends.threads import numpy_blas
from udlbridge.kernels.tiling import Grid, Tile

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


def triangle_product(
    grid: Grid, read: Callable[[Tile, int], Iterable[np.ndarray]], vectors: Float[np.ndarray, " n *k"], threads: int
) -> Float[np.ndarray, " n *k"]:
    """K v in float64, for a symmetric K whose lower triangle `read` gives tile by tile, and each strip by strip.

    Block rows are shared out to threads, and what they give is added in their order: the result does not depend on the
    number of threads.

    Args:
        grid: the tiles, symmetric.
        read: gives one tile (r, c) from above to below, in strips (h, c) of at most so many rows, of any float dtype; a
            strip may be overwritten by the next. It is called from several threads.
        vectors: one vector (n,) or several (n, k), float64.
        threads: how many block rows are multiplied at once; each has one strip in memory.
    """
    result, height = np.zeros_like(vectors), strip_height(grid.tile)
    bands: dict[int, list[Tile]] = {}
    for tile in grid.tiles():
        bands.setdefault(tile.row, []).append(tile)

    def one(tiles: list[Tile]) -> tuple[np.ndarray, np.ndarray]:
        """What a block row adds to its own rows of the result, and to all rows before them."""
        rows = tiles[0].rows
        own = np.zeros((rows.stop - rows.start, *vectors.shape[1:]))
        before = np.zeros((rows.start, *vectors.shape[1:]))
        wide = np.empty((height, grid.tile))
        for tile in tiles:
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

    # The last rows are the longest. BLAS gets one thread, since the block rows keep the cores busy.
    order = sorted(bands, reverse=True)
    workers = min(len(order), threads)
    with numpy_blas.to(1 if workers > 1 else None), ThreadPoolExecutor(workers) as pool:
        for row, (own, before) in zip(order, pool.map(one, [bands[row] for row in order]), strict=True):
            result[bands[row][0].rows] += own
            result[: len(before)] += before
    return result
