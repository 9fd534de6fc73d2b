"""Sums over several kernels in one pass, tile by tile, so that kernels may be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.bands import Band, Part, bands_of, common_triangle, triangle_band
from udlbridge.analysis.inputs import KernelLike, check_square
from udlbridge.analysis.scaling import peak_of, scale_exponent, scale_exponents
from udlbridge.arrays import as_kernel
from udlbridge.backends.threads import numpy_blas
from udlbridge.kernels.tiling import Grid, block_count
from udlbridge.options import checked_count
from udlbridge.store.tasks import Tasks
from udlbridge.tolerances import rounding_unit

STRIP = 768 * 1024
"""Entries, of all kernels together, that are worked on at once: few enough for the cache, enough to be worth a call."""

ALONE = 128 * 1024
"""Entries of a kernel up to which starting threads takes longer than what they could save."""

CORNER = 64 * 1024
"""Entries that tell whether a kernel has a common offset."""

WAITING = 1 << 30
"""Bytes of the sums of bands that may be with workers, or wait for their turn to be added."""


@dataclass(frozen=True)
class Statistics:
    """What centring and alignment need of m kernels, after a constant was taken off each.

    `inner` (m, m): sums of products; `rows`, `columns` (m, n): sums over the other axis; `diagonals` (m, n);
    `shifts` (m,): the constants; `eps` (m,): the rounding unit of each kernel's entries. A kernel with very large or
    very small entries is in a unit of its own, 2^`exponents` (m,), to which alignment is blind. `skew` (m,) is above 1
    for kernels that are not symmetric; it is known where it was asked for, and else 0.
    """

    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    diagonals: np.ndarray
    shifts: np.ndarray
    eps: np.ndarray
    exponents: np.ndarray
    skew: np.ndarray

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


Visit = Callable[[Band, Part, Sequence[np.ndarray], np.ndarray], None]
"""What else is made of the blocks of a part while they are there, in the thread that sums them. The last argument (m,)
are the constants that come off the kernels. Threads take the bands in any order."""


def statistics(
    kernels: Sequence[KernelLike], *, tile: int | None = None, symmetric: bool = False, visit: Visit | None = None
) -> Statistics:
    """One pass over all kernels together; every entry is read once.

    Centring is blind to a constant added to a kernel. So a large common offset is taken off, or else it would eat the
    digits of the centred sums. A constant added to one row or column stays, and eats them.

    Args:
        kernels: m of size (n, n).
        tile: side of the blocks that are read at once, as for `alignment`.
        symmetric: find out which kernels are not symmetric, by the difference of K v and K' v for a vector v of signs.
        visit: is called with every part of every band, so that nothing has to be read again.

    Raises:
        ShapeError, DTypeError: not square, of different size, or not real.
        InputError: something that is not a matrix.
        OptionError: a tile that is not a number of samples.
    """
    kernels = [as_kernel(kernel, f"kernel {index}") for index, kernel in enumerate(kernels)]
    n = check_square(kernels)
    if tile is not None:
        tile = checked_count("tile", tile, 1)
    bands = bands_of(kernels, n, tile)
    workers = min(len(bands), os.cpu_count() or 1) if n * n > ALONE else 1
    # The sums of a band do not depend on which thread or worker takes it, and bands are added in order: so the result
    # does not depend on their number. BLAS, whose sums do, gets one thread: of stores always, as their workers do.
    with numpy_blas.to(1 if workers > 1 or bands[0].triangle else None):
        return _summed(kernels, n, bands, workers, symmetric, visit, shared=tile is None and visit is None)


def _summed(
    kernels: Sequence[KernelLike],
    n: int,
    bands: list[Band],
    workers: int,
    symmetric: bool,
    visit: Visit | None,
    *,
    shared: bool,
) -> Statistics:
    """The sums over bands, by so many threads; or, where they may be `shared`, by the workers of a store."""
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
            return _band_sums(band, shifts, n, signs, visit)

    skewed = symmetric and not bands[0].triangle
    signs = np.random.default_rng(0).choice([-1.0, 1.0], n) if skewed else np.zeros(n)
    m = len(kernels)
    total = Sums.zeros(m, n, n)
    others = _by_workers(kernels, shifts) if shared and bands[0].triangle else None
    mapped = _mapped(one, bands, workers) if others is None else closing(others)
    with mapped as parts, np.errstate(invalid="ignore", over="ignore"):
        for band, part in zip(bands, parts, strict=True):
            peaks = np.maximum(total.peaks, part.peaks)
            total.grow(peaks)
            part.grow(peaks)
            total.inner[...] += part.inner
            total.columns[...] += part.columns
            total.twists[...] += part.twists
            for whole, own in ((total.rows, part.rows), (total.diagonals, part.diagonals), (total.twists, part.turns)):
                whole[:, band.rows] += own
    if bands[0].triangle:
        total.rows[...] += total.columns
        total.columns[...] = total.rows
    inner = np.tril(total.inner) + np.tril(total.inner, -1).T
    exponents = scale_exponents(total.peaks)
    found = Statistics(
        inner=inner,
        rows=total.rows,
        columns=total.columns,
        diagonals=total.diagonals,
        shifts=np.ldexp(shifts, -exponents),
        eps=eps,
        exponents=exponents,
        skew=np.zeros(m),
    )
    if not skewed:
        return found
    # A hundred times the rounding of a row of n entries as large as they are on average, if it were all of one sign.
    with np.errstate(invalid="ignore", over="ignore"):
        rounding = 100 * eps * np.sqrt(np.abs(np.diag(found.products(centred=False))))
    return replace(found, skew=np.abs(total.twists).max(axis=1) / np.maximum(rounding, np.finfo(np.float64).tiny))


@contextmanager
def _mapped(one: Callable[[Band], Sums], bands: Sequence[Band], workers: int) -> Iterator[Iterator[Sums]]:
    """The sums of all bands in their order, from as many threads as there are workers."""
    if workers == 1:
        yield map(one, bands)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool.map(one, bands)


def _by_workers(kernels: Sequence[Any], shifts: np.ndarray) -> Generator[Sums, None, None] | None:
    """The sums of all bands in their order, from the workers of a store's executor; None where no store has one.

    What is not a store, as a label kernel, goes to them as it is: it is kept as a factor.
    """
    crew = next((kernel.crew for kernel in kernels if getattr(kernel, "crew", None) is not None), None)
    grid = common_triangle(kernels)
    if crew is None or grid is None:
        return None
    found = [kernel.handle() if hasattr(kernel, "handle") else kernel for kernel in kernels]
    arguments = ((found, grid, row, shifts) for row in range(block_count(grid.n, grid.tile)))
    most = WAITING // sum(part.nbytes for part in Sums.zeros(len(kernels), grid.tile, grid.n))
    return Tasks(crew, _stored_band_sums, arguments, "ask for the alignment again").in_order(most)


def _stored_band_sums(kernels: Sequence[Any], grid: Grid, row: int, shifts: np.ndarray) -> Sums:
    """A task: the sums of a block row that is read here, by one thread."""
    read = [kernel.opened() if hasattr(kernel, "opened") else kernel for kernel in kernels]
    with numpy_blas.to(1), np.errstate(invalid="ignore", over="ignore"):
        return _band_sums(triangle_band(read, grid, row), shifts, grid.n, np.zeros(grid.n), None)


def _offset(block: np.ndarray) -> float:
    """The mean of some entries where it is ten times the spread; else 0, which costs at most two of sixteen digits."""
    exponent = scale_exponent(peak_of(block))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.ldexp(block.astype(np.float64), -exponent)
        mean, spread = float(scaled.mean()), float(scaled.std())
    return float(np.ldexp(mean, exponent)) if abs(mean) > 10 * spread else 0.0


class Sums(NamedTuple):
    """What a band adds: `inner` (m, m), its lower triangle alone; `rows`, `diagonals` (m, height); `columns` (m, n).

    In a triangle, `columns` are those of parts off the diagonal: what they add to rows of the other side. `peaks` (m,)
    are the largest entries so far; they determine the powers of two that the kernels are divided by. `turns`
    (m, height) and `twists` (m, n) add up to K v - K' v for a vector v of signs.
    """

    peaks: np.ndarray
    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    diagonals: np.ndarray
    turns: np.ndarray
    twists: np.ndarray

    @classmethod
    def zeros(cls, m: int, height: int, n: int) -> Sums:
        """Of a band of so many rows, before anything is added."""
        tall, wide = (m, height), (m, n)
        return cls(*(np.zeros(shape) for shape in ((m,), (m, m), tall, wide, tall, tall, wide)))

    def grow(self, peaks: np.ndarray) -> None:
        """Take over larger peaks, and bring the sums to the powers of two that go with them."""
        by = np.ldexp(1.0, scale_exponents(self.peaks) - scale_exponents(peaks))
        self.peaks[...] = peaks
        if (by != 1).any():
            self.inner[...] *= by  # one after the other: their product may be too large
            for sums in self[1:]:
                sums[...] *= by[:, None]


def _band_sums(band: Band, shifts: np.ndarray, n: int, signs: np.ndarray, visit: Visit | None) -> Sums:
    """The sums of one band, part by part, and within a part by strips that stay in the cache."""
    m, tall = len(shifts), band.rows.stop - band.rows.start
    result = Sums.zeros(m, tall, n)
    skewed = bool(signs.any())
    for part in band.parts:
        blocks = part.read()
        if visit is not None:
            visit(band, part, blocks, shifts)
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
            first = band.rows.start + top
            if part.columns.start < first + strips.shape[1] and first < part.columns.stop:
                found = np.diagonal(strips, first - part.columns.start, axis1=1, axis2=2)
                begin = max(part.columns.start - first, 0) + top
                result.diagonals[:, begin : begin + found.shape[1]] = found
            if skewed:
                result.turns[:, own] += (strips.reshape(-1, wide) @ signs[part.columns]).reshape(m, -1)
                result.twists[:, part.columns] -= signs[first : first + strips.shape[1]] @ strips
            flat = strips.reshape(m, -1)
            for index in range(m):
                for other in range(index + 1):
                    result.inner[index, other] += part.weight * np.dot(flat[index], flat[other])
    return result
