"""How a kernel is cut into tiles, and how tiles are computed one after the other within a bound of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from udlbridge.backends.base import Backend
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.symmetry import STRIP, symmetrise, transposed


@dataclass(frozen=True)
class Tile:
    """One rectangle: block row and block column, and the samples that they stand for."""

    row: int
    column: int
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns; smaller than the tile size at the edges."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def corner(self) -> tuple[int, int]:
        """Where in the kernel it begins."""
        return self.rows.start, self.columns.start


def block_count(n: int, tile: int) -> int:
    """How many blocks of at most `tile` samples `n` samples are."""
    return -(-n // tile)


@dataclass(frozen=True)
class Grid:
    """The tiles of an (n, m) kernel. A symmetric one has the lower triangle alone, with the diagonal tiles whole."""

    n: int
    m: int
    tile: int
    symmetric: bool

    def block(self, index: int, size: int) -> slice:
        """Samples of block `index` along an axis of `size`."""
        return slice(index * self.tile, min((index + 1) * self.tile, size))

    @property
    def count(self) -> int:
        """Number of tiles."""
        rows, columns = block_count(self.n, self.tile), block_count(self.m, self.tile)
        return rows * (rows + 1) // 2 if self.symmetric else rows * columns

    @property
    def pairs(self) -> int:
        """Number of entries that are computed: of a symmetric kernel half, and half of the diagonal tiles besides."""
        if not self.symmetric:
            return self.n * self.m
        whole, rest = divmod(self.n, self.tile)
        return (self.n**2 + whole * self.tile**2 + rest**2) // 2

    @property
    def sides(self) -> int:
        """Number of samples in the rows and columns of all tiles; a diagonal tile has the same in both."""
        rows, columns = block_count(self.n, self.tile), block_count(self.m, self.tile)
        return self.n * rows if self.symmetric else self.n * columns + self.m * rows

    def tiles(self, first_row: int = 0) -> Iterator[Tile]:
        """All tiles from block row `first_row` on, row by row; every other row runs backwards.

        So the block of columns that a row ends with is the one that the next begins with, and is still in memory.
        """
        for row in range(first_row, block_count(self.n, self.tile)):
            yield from self.band(row)

    def band(self, row: int) -> Iterator[Tile]:
        """The tiles of one block row."""
        last = row + 1 if self.symmetric else block_count(self.m, self.tile)
        for column in range(last) if row % 2 == 0 else range(last - 1, -1, -1):
            yield Tile(row, column, self.block(row, self.n), self.block(column, self.m))


def prepared_samples(grid: Grid, cached_blocks: int) -> int:
    """How many samples pass through the network for all tiles, where the factors of so many blocks are kept.

    A row of tiles that cannot keep all of its blocks makes those again that the row before did not leave: of a
    symmetric kernel row r has r + 1, of a cross kernel each has all columns.
    """
    rows, columns = block_count(grid.n, grid.tile), block_count(grid.m, grid.tile)
    cached = max(cached_blocks, 2)
    # What a row finds is less the block of the row before, which is kept for no use, where more than two are.
    found = max(cached - 2, 1)
    last = grid.m - (columns - 1) * grid.tile
    if grid.symmetric:
        if rows <= cached:
            return grid.n
        # A row that runs backwards begins with the row before, which is a column of its own.
        again = sum(row - (found if row % 2 == 0 else cached - 1) for row in range(cached, rows))
        return (rows + again - 1) * grid.tile + last
    again = columns - min(found, columns)
    if rows + columns <= cached or again == 0:
        return grid.n + grid.m
    # Rows that run forwards end with the last column, which may be smaller.
    forwards = (rows - 1) // 2 if again < columns else rows - 1
    return grid.n + grid.m + again * (rows - 1) * grid.tile - forwards * (grid.tile - last)


class TileComputer:
    """Computes tiles on an engine; a context, in which the factors of the last `cached_blocks` blocks are held.

    `advance` is told of operations while they are done: `entry_flops` for an entry of the kernel, `sample_flops` for a
    sample that passes through the network.
    """

    def __init__(
        self,
        engine: Backend[Any],
        job: KernelJob,
        x: np.ndarray,
        x2: np.ndarray | None,
        grid: Grid,
        cached_blocks: int,
        *,
        advance: Callable[[float], None] | None = None,
        entry_flops: float = 0.0,
        sample_flops: float = 0.0,
    ) -> None:
        self._advance, self._entry_flops, self._sample_flops = advance, entry_flops, sample_flops
        self._engine, self._job, self._grid = engine, job, grid
        self._x, self._x2 = x, x2
        self._cached: OrderedDict[tuple[bool, int], Any] = OrderedDict()
        self._limit = max(cached_blocks, 2)  # a tile needs the factors of its rows and those of its columns

    def __enter__(self) -> TileComputer:
        return self

    def __exit__(self, *_: object) -> None:
        self._evict(0)

    def compute(
        self, tile: Tile, out: np.ndarray, params: tuple[str, ...] | None = None, *, share: float = 1.0
    ) -> None:
        """Fill `out` (r, c, *trailing) with the kernel of one tile, or with the part of some layers' `params`.

        A tile on the diagonal of a symmetric kernel is filled on both sides of it. `share`: what this is of the work of
        the whole tile.
        """
        job = self._job if params is None else replace(self._job, params=params)
        left = self._factors(False, tile.row)
        right = self._factors(self._x2 is not None, tile.column)
        r, c = tile.shape
        mirrored = self._grid.symmetric and tile.row == tile.column
        # Whoever takes the tile looks for entries that overflowed.
        with np.errstate(over="ignore", invalid="ignore"), self._watched(job, share * r * c * self._entry_flops) as job:
            self._engine.fill(job, left, slice(0, r), right, slice(0, c), out, lower=mirrored)
        if mirrored:
            symmetrise(out)

    def _factors(self, second: bool, block: int) -> Any:
        key = (second, block)
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        if len(self._cached) >= self._limit:
            self._evict(self._limit - 1)
            self._engine.make_room()
        source = self._x if not second or self._x2 is None else self._x2
        samples = source[self._grid.block(block, len(source))]
        with self._watched(self._job, len(samples) * self._sample_flops) as job:
            found = self._engine.prepare(job, samples)
        self._cached[key] = found
        return found

    @contextmanager
    def _watched(self, job: KernelJob, flops: float) -> Iterator[KernelJob]:
        """The job for a step of so many operations: what the engine does not tell of them is told at the end."""
        if self._advance is None:
            yield job
            return
        advance, told = self._advance, 0.0

        def watch(share: float) -> None:
            nonlocal told
            told += share
            advance(share * flops)

        yield replace(job, watch=watch)
        advance((1.0 - told) * flops)

    def _evict(self, count: int) -> None:
        """Release all factors but those of the `count` blocks that were used last."""
        while len(self._cached) > count:
            self._engine.release(self._cached.popitem(last=False)[1])


def mirror(kernel: np.ndarray, tile: Tile) -> None:
    """Copy a tile of a symmetric kernel (n, n, ...) to the other side of the diagonal."""
    for start in range(tile.rows.start, tile.rows.stop, STRIP):
        rows = slice(start, min(start + STRIP, tile.rows.stop))
        kernel[tile.columns, rows] = transposed(kernel[rows, tile.columns])
