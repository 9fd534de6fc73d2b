"""Sums over kernels in one pass, tile by tile, so that kernels may be larger than memory.

Anything with a `shape` and two-dimensional slicing serves: an array, a memory map, a store on disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from udlbridge.errors import DTypeError, OptionError, ShapeError
from udlbridge.tolerances import rounding_unit

TILE = 2048
"""Side of the blocks that are read at once, unless the kernel is stored in tiles of its own."""

STRIP = 64 * 1024
"""Entries, of all kernels together, that are worked on at once: as float64 they stay in a core's cache."""


@runtime_checkable
class KernelLike(Protocol):
    """A square matrix that can be read in blocks: `k[i:j, p:q]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        """One block, as an array or something that `np.asarray` takes."""


@dataclass(frozen=True)
class Statistics:
    """What centring and alignment need of m kernels, after a constant was taken off each.

    `inner` (m, m): sums of products; `rows`, `columns` (m, n): sums over the other axis; `shifts` (m,): the constants;
    `eps` (m,): the rounding unit of each kernel's entries.
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
    digits of the centred sums.

    Args:
        kernels: m of size (n, n).
        tile: side of the blocks that are read at once, as for `alignment`.

    Raises:
        ShapeError, DTypeError: not square, of different size, or not real.
        OptionError: no tile.
    """
    n = check_square(kernels)
    if tile is None:
        # A store decodes a whole tile to give a part of it.
        tile = max((int(kernel.grid.tile) for kernel in kernels if hasattr(kernel, "grid")), default=TILE)
    if tile < 1:
        raise OptionError(f"tile={tile}", allowed="at least 1", remedy="leave it at its default")
    corner = slice(0, min(tile, n))
    first = [_block(kernel, corner, corner) for kernel in kernels]
    shifts = np.array([_offset(block[: max(1, STRIP // len(block))]) for block in first])
    eps = np.array(
        [
            rounding_unit(kernel, block.dtype if block.dtype.kind == "f" else np.dtype(np.float64))
            for kernel, block in zip(kernels, first, strict=True)
        ]
    )
    bands = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]

    def one(band: slice) -> Band:
        # NaN and infinity are reported by what comes of them; errstate is a matter of each thread.
        with np.errstate(invalid="ignore", over="ignore"):
            return _band_statistics(kernels, shifts, band, bands, first if band.start == 0 else None)

    # The sums of a band do not depend on which thread takes it, and bands are added in order: so the result does not
    # depend on the number of threads. BLAS gets one thread, since the bands keep the cores busy.
    workers = min(len(bands), os.cpu_count() or 1)
    if workers == 1:
        parts = [one(band) for band in bands]
    else:
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(one, bands))
    inner = np.sum([part.inner for part in parts], axis=0)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    columns = np.sum([part.columns for part in parts], axis=0)
    return Statistics(np.tril(inner) + np.tril(inner, -1).T, rows, columns, shifts, eps)


def _offset(block: np.ndarray) -> float:
    """The mean of some entries where it is ten times the spread; else 0, which costs at most two of sixteen digits."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean, spread = float(block.mean(dtype=np.float64)), float(block.std(dtype=np.float64))
    return mean if abs(mean) > 10 * spread else 0.0


class Band(NamedTuple):
    """What a band of rows adds: `inner` (m, m), its lower triangle alone; `rows` (m, height); `columns` (m, n)."""

    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def _band_statistics(
    kernels: Sequence[KernelLike],
    shifts: np.ndarray,
    band: slice,
    across: Sequence[slice],
    first: list[np.ndarray] | None,
) -> Band:
    """The sums of one band of rows, block by block, and within a block by strips that stay in the cache.

    `first`: the blocks of the corner, if this band has them.
    """
    m, n, tall = len(kernels), across[-1].stop, band.stop - band.start
    result = Band(np.zeros((m, m)), np.zeros((m, tall)), np.zeros((m, n)))
    for there in across:
        read_already = first if there.start == 0 else None
        blocks = read_already or [_block(kernel, band, there) for kernel in kernels]
        wide = there.stop - there.start
        height = max(1, min(STRIP // (m * wide), tall))
        strips = np.empty((m, height, wide))
        for top in range(0, tall, height):
            own = slice(top, min(top + height, tall))
            if own.stop - own.start < height:
                strips = np.empty((m, own.stop - own.start, wide))
            for strip, block, shift in zip(strips, blocks, shifts, strict=True):
                if shift:
                    np.subtract(block[own], shift, out=strip)
                else:
                    strip[...] = block[own]
            result.rows[:, own] += (strips.reshape(-1, wide) @ np.ones(wide)).reshape(m, -1)
            result.columns[:, there] += np.ones(strips.shape[1]) @ strips
            flat = strips.reshape(m, -1)
            for index in range(m):
                for other in range(index + 1):
                    result.inner[index, other] += np.dot(flat[index], flat[other])
    return result


def _block(kernel: KernelLike, here: slice, there: slice) -> np.ndarray:
    block = np.asarray(kernel[here, there])
    if block.dtype.kind not in "biuf":
        raise DTypeError(f"a kernel of dtype {block.dtype}", allowed="real numbers", remedy="convert it")
    return block


def check_square(kernels: Sequence[KernelLike]) -> int:
    """The common n of kernels (n, n).

    Raises:
        ShapeError: not square, or of different size.
    """
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
