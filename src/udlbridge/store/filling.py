"""Computing the tiles of a store and writing them, here or on the workers of an executor, with figures of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.kernels.tiling import Tile, TileComputer
from udlbridge.progress import Advance, kernel_progress
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.peak_memory import PeakMemory
from udlbridge.store.sharing import Done, share_out
from udlbridge.store.tile_writer import TileWriter
from udlbridge.store.writing import WritableStore


@dataclass(frozen=True)
class Figures:
    """What one run of a computation took, and what was predicted of its time, if anything was.

    A store may have several: it was begun, resumed, repaired, appended to. With an executor, `peak_rss_over_baseline`
    is that of the process that took most, and `lost` counts tasks that were given out anew, since their worker died.
    """

    seconds: float
    predicted_seconds: float | None
    tiles: int
    gflops: float
    bytes_written: int
    peak_rss_over_baseline: int
    storage_error: float
    backend: str
    device: str
    threads: int | None
    executor: str | None = None
    lost: int = 0


def fill(
    store: WritableStore,
    request: KernelRequest,
    x: np.ndarray,
    plan: Plan,
    todo: list[Tile],
    progress: bool | None,
    executor: Any = None,
) -> None:
    """Compute the tiles of `todo` and write them; on any error the finished tiles stay.

    Here one thread computes and another writes; the workers of an `executor` do both.

    Raises:
        NumericalError: an entry is not finite.
        StoreError: the disk is full or refuses, an entry does not fit into the storage, or workers die again and again.
    """
    start = time.perf_counter()
    per_entry = plan.flops / max(plan.grid.pairs, 1)
    total = per_entry * sum(prod(tile.shape) for tile in todo)
    bar = kernel_progress(total, show=progress)
    with PeakMemory() as memory, bar as advance:
        if executor is None:
            done = _compute_here(store, request, x, plan, todo, advance)
        else:
            done = share_out(store, request, x, plan, todo, executor, advance)
    seconds = time.perf_counter() - start
    begun = store.manifest["plan"]
    rate = plan.gflops or begun["gflops"]
    planned = begun if begun["n"] == plan.n else replace(plan, gflops=rate, seconds=rate and plan.flops / rate / 1e9)
    figures = Figures(
        seconds=seconds,
        predicted_seconds=rate and total / rate / 1e9,
        tiles=len(todo),
        gflops=total / seconds / 1e9,
        bytes_written=done.written,
        peak_rss_over_baseline=max(memory.over_baseline, done.peak),
        storage_error=done.error,
        backend=request.backend,
        device=request.device,
        threads=request.threads,
        executor=None if executor is None else type(executor).__name__,
        lost=done.lost,
    )
    store.flush_tiles()
    store.update(
        complete=True,
        actual=[*store.manifest.get("actual", []), asdict(figures)],
        plan=planned if isinstance(planned, dict) else planned.to_dict(),
    )


def _compute_here(
    store: WritableStore, request: KernelRequest, x: np.ndarray, plan: Plan, todo: list[Tile], advance: Advance
) -> Done:
    """One tile after the other, in this process."""
    with TileComputer(
        backends.get(request.backend), request, x, None, plan.grid, plan.cached_blocks,
        advance=partial(advance, written=0), entry_flops=plan.entry_flops, sample_flops=plan.sample_flops,
    ) as computer, TileWriter(store) as writer:  # fmt: skip
        for tile in todo:
            buffer = np.empty((*tile.shape, *request.reduction.trailing), dtype=request.model.dtype)
            computer.compute(tile, buffer)
            writer.put(tile, buffer)
            stored = buffer.size * STORAGE[store.manifest["storage"]].itemsize
            advance(0.0, stored)
    return Done(written=writer.written, error=writer.error)
