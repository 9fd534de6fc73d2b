"""Sums over kernels in one pass, tile by tile, so that kernels may be larger than memory.

Anything with a `shape` and two-dimensional slicing serves: an array, a memory map, a store on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.scaling import peak_of, scale_exponent, scale_exponents
from udlbridge.backends.threads import numpy_blas
from udlbridge.errors import DTypeError, InputError, ShapeError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.options import checked_count
from udlbridge.tolerances import rounding_unit

TILE = 2048
"""Side of the blocks that are read at once, unless the kernel is stored in tiles of its own."""

STRIP = 768 * 1024
"""Entries, of all kernels together, that are worked on at once: few enough for the cache, enough to be worth a call."""

CORNER = 64 * 1024
"""Entries that tell whether a kernel has a common offset."""


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


@dataclass(frozen=True)
class Statistics:
    """What centring and alignment need of m kernels, after a constant was taken off each.

    `inner` (m, m): sums of products; `rows`, `columns` (m, n): sums over the other axis; `shifts` (m,): the constants;
    `eps` (m,): the rounding unit of each kernel's entries. A kernel with very large or very small entries is in a unit
    of its own, a power of two, to which alignment is blind.
    """

    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shifts: np.ndarray
    eps: np.ndarray

    def products(self, centred: bool) -> Float[np.ndarray, "m m"]:
        """<Ka, Kb>_F for all pairs, centred or as they are.

        With H = I - 11'/n: <HAH, HBH> = <A, B> - <A1, B1>/n - <A'1, B'1>/n + (1'A1)(1'B1)/n^2.
        """
        n = self.rows.shape[1]
        totals = self.rows.sum(axis=1)
        if centred:
            spread = self.rows @ self.rows.T + self.columns @ self.columns.T
            return self.inner - spread / n + np.outer(totals, totals) / n**2
        crossed = np.outer(self.shifts, totals)
        return self.inner + crossed + crossed.T + np.outer(self.shifts, self.shifts) * float(n) ** 2

    def rounding(self, index: int, centred: bool) -> float:
        """A square norm that kernel `index` may have by rounding alone: of its entries, and of these sums."""
        whole = self.products(centred=False)[index, index]
        own = (4 * self.eps[index]) ** 2 * whole
        return max(own, 16 * np.finfo(np.float64).eps * self.inner[index, index]) if centred else own


def statistics(kernels: Sequence[KernelLike], *, tile: int | None = None) -> Statistics:
    """One pass over all kernels together; every entry is read once.

    Centring is blind to a constant added to a kernel. So a large common offset is taken off, or else it would eat the
    digits of the centred sums. A constant added to one row or column stays, and eats them.

    Args:
        kernels: m of size (n, n).
        tile: side of the blocks that are read at once, as for `alignment`.

    Raises:
        ShapeError, DTypeError: not square, of different size, or not real.
        InputError: something that is no matrix.
        OptionError: no tile.
    """
    n = check_square(kernels)
    if tile is not None:
        tile = checked_count("tile", tile, 1)
    grid = _common_triangle(kernels) if tile is None else None
    bands = list(_triangle(kernels, grid) if grid else _squares(kernels, n, tile))
    first = bands[0].parts[0].read()
    bands[0].parts[0] = bands[0].parts[0]._replace(read=lambda: first)
    shifts = np.array([_offset(block[: max(1, CORNER // block.shape[1])]) for block in first])
    eps = np.array(
        [
            rounding_unit(kernel, block.dtype if block.dtype.kind == "f" else np.dtype(np.float64))
            for kernel, block in zip(kernels, first, strict=True)
        ]
    )

    def one(band: Band) -> Sums:
        # NaN and infinity are reported by what comes of them; errstate is a matter of each thread.
        with np.errstate(invalid="ignore", over="ignore"):
            return _band_sums(band, shifts, n)

    # The sums of a band do not depend on which thread takes it, and bands are added in order: so the result does not
    # depend on the number of threads. BLAS gets one thread, since the bands keep the cores busy.
    workers = min(len(bands), os.cpu_count() or 1)
    m = len(kernels)
    total = Sums(np.zeros(m), np.zeros((m, m)), np.zeros((m, n)), np.zeros((m, n)))
    with numpy_blas.to(1 if workers > 1 else None), ThreadPoolExecutor(workers) as pool:
        for band, part in zip(bands, pool.map(one, bands), strict=True):
            peaks = np.maximum(total.peaks, part.peaks)
            total.grow(peaks)
            part.grow(peaks)
            total.inner[...] += part.inner
            total.rows[:, band.rows] += part.rows
            total.columns[...] += part.columns
    if grid:
        total.rows[...] += total.columns
        total.columns[...] = total.rows
    inner = np.tril(total.inner) + np.tril(total.inner, -1).T
    return Statistics(inner, total.rows, total.columns, np.ldexp(shifts, -scale_exponents(total.peaks)), eps)


def _offset(block: np.ndarray) -> float:
    """The mean of some entries where it is ten times the spread; else 0, which costs at most two of sixteen digits."""
    exponent = scale_exponent(peak_of(block))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.ldexp(block.astype(np.float64), -exponent)
        mean, spread = float(scaled.mean()), float(scaled.std())
    return float(np.ldexp(mean, exponent)) if abs(mean) > 10 * spread else 0.0


class Part(NamedTuple):
    """The same rectangle of all kernels, read when it is its turn, and how often its products count.

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


class Sums(NamedTuple):
    """What a band adds: `inner` (m, m), its lower triangle alone; `rows` (m, height); `columns` (m, n).

    In a triangle, `columns` are those of parts off the diagonal: what they add to rows of the other side. `peaks` (m,)
    are the largest entries so far; they determine the powers of two that the kernels are divided by.
    """

    peaks: np.ndarray
    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def grow(self, peaks: np.ndarray) -> None:
        """Take over larger peaks, and bring the sums to the powers of two that go with them."""
        by = np.ldexp(1.0, scale_exponents(self.peaks) - scale_exponents(peaks))
        self.peaks[...] = peaks
        if (by != 1).any():
            self.inner[...] *= by  # one after the other: their product may be too large
            for sums in (self.inner, self.rows, self.columns):
                sums[...] *= by[:, None]


def _common_triangle(kernels: Sequence[KernelLike]) -> Grid | None:
    """The tiles that all kernels are stored in, if they are stores with the same ones, which hold one triangle.

    Kernels that are kept as their factor take any tiles.
    """
    grids = {
        kernel.grid if isinstance(kernel, Tiled) else None
        for kernel in kernels
        if not isinstance(kernel, FactoredKernel)
    }
    return grids.pop() if len(grids) == 1 else None


def _triangle(kernels: Sequence[KernelLike], grid: Grid) -> Iterator[Band]:
    """Block rows of stores, every tile read once."""
    for row, tiles in groupby(grid.tiles(), key=lambda tile: tile.row):
        parts = [
            Part(
                tile.columns,
                lambda tile=tile: [kernel.read_tile(tile) for kernel in kernels],  # type: ignore[attr-defined, misc]
                1 if tile.column == row else 2,
            )
            for tile in tiles
        ]
        yield Band(grid.block(row, grid.n), parts, triangle=True)


def _squares(kernels: Sequence[KernelLike], n: int, tile: int | None) -> Iterator[Band]:
    """Bands of rows of anything. Arrays are read along whole rows, as they lie in memory."""
    whole = tile is None and all(isinstance(kernel, np.ndarray) for kernel in kernels)
    if tile is None:
        # A store decodes a whole tile to give a part of it.
        tile = max((kernel.grid.tile for kernel in kernels if isinstance(kernel, Tiled)), default=TILE)
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


def _band_sums(band: Band, shifts: np.ndarray, n: int) -> Sums:
    """The sums of one band, part by part, and within a part by strips that stay in the cache."""
    m, tall = len(shifts), band.rows.stop - band.rows.start
    result = Sums(np.zeros(m), np.zeros((m, m)), np.zeros((m, tall)), np.zeros((m, n)))
    for part in band.parts:
        blocks = part.read()
        wide = part.columns.stop - part.columns.start
        height = max(1, min(STRIP // (m * wide), tall))
        strips = np.empty((m, height, wide))
        copies = [np.empty((height, wide), dtype=block.dtype) for block in blocks]
        for top in range(0, tall, height):
            own = slice(top, min(top + height, tall))
            if own.stop - own.start < height:
                strips = np.empty((m, own.stop - own.start, wide))
            for strip, copy, block in zip(strips, copies, blocks, strict=True):
                # A copy as it is comes faster from memory than a conversion does.
                copy[: len(strip)] = block[own]
                strip[...] = copy[: len(strip)]
            result.grow(np.maximum(result.peaks, [peak_of(copy[: strips.shape[1]]) for copy in copies]))
            for strip, exponent, shift in zip(strips, scale_exponents(result.peaks), shifts, strict=True):
                if exponent:
                    np.ldexp(strip, -exponent, out=strip)
                if shift:
                    strip -= np.ldexp(shift, -exponent)
            result.rows[:, own] += (strips.reshape(-1, wide) @ np.ones(wide)).reshape(m, -1)
            if part.weight == 2 or not band.triangle:
                result.columns[:, part.columns] += np.ones(strips.shape[1]) @ strips
            flat = strips.reshape(m, -1)
            for index in range(m):
                for other in range(index + 1):
                    result.inner[index, other] += part.weight * np.dot(flat[index], flat[other])
    return result


def _block(kernel: KernelLike, here: slice, there: slice) -> np.ndarray:
    return check_real(np.asarray(kernel[here, there]))


def check_real(block: np.ndarray) -> np.ndarray:
    """The block itself.

    Raises:
        DTypeError: it is not of real numbers.
    """
    if block.dtype.kind not in "biuf":
        remedy = "take its real part" if block.dtype.kind == "c" else "convert it to float64"
        raise DTypeError(f"a kernel of dtype {block.dtype}", allowed="real numbers", remedy=remedy)
    return block


def check_square(kernels: Sequence[KernelLike]) -> int:
    """The common n of kernels (n, n).

    Raises:
        InputError: something that is no matrix.
        ShapeError: not square, or of different size.
    """
    for kernel in kernels:
        if not isinstance(kernel, KernelLike):
            raise InputError(
                f"a {type(kernel).__name__} in the place of a kernel",
                allowed="an array (n, n), or anything with `shape` and two-dimensional slicing",
                remedy="np.asarray(k), if it holds the numbers",
            )
    shapes = [tuple(kernel.shape) for kernel in kernels]
    for shape in shapes:
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise ShapeError(
                f"a kernel of shape {shape}",
                allowed="a square matrix (n, n)",
                remedy='take one reduction of the outputs, as ntk(..., outputs="trace")',
            )
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"kernels of different size: {', '.join(map(str, dict.fromkeys(shapes)))}" if shapes else "no kernels",
            allowed="kernels of the same samples",
            remedy="compute all of them on the same x",
        )
    return shapes[0][0]
