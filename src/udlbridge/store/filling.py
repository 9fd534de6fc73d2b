"""Computing the tiles of a store and writing them, one after the other, with figures of what it took."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod

import numpy as np

from udlbridge import backends
from udlbridge.kernels.planning import make_plan
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest, kernel_request
from udlbridge.kernels.tiling import Tile, TileComputer
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.model import Model
from udlbridge.progress import kernel_progress
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.peak_memory import PeakMemory
from udlbridge.store.tile_writer import TileWriter
from udlbridge.store.writing import WritableStore


@dataclass(frozen=True)
class Figures:
    """What one run of a computation took, and what was predicted of its time, if anything was.

    A store may have several: it was begun, resumed, repaired, appended to.
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


def request_as_begun(
    store: WritableStore,
    model: Model | ForeignNetwork,
    sample_shape: tuple[int, ...],
    *,
    backend: str | None,
    memory: int | str,
    threads: int | None,
    device: str | None,
) -> KernelRequest:
    """The request of the kernel that a store is of; None is what it was begun with."""
    begun = store.manifest
    same = backend in (None, begun["backend"])
    return kernel_request(
        model,
        sample_shape,
        outputs=store.reduction.outputs,
        params=store.parameters or None,
        backend=begun["backend"] if backend is None else backend,
        method=begun["plan"]["method"],
        memory=memory,
        threads=threads,
        device=begun.get("device") if device is None and same else device,
    )


def plan_as_begun(store: WritableStore, request: KernelRequest, x: np.ndarray, n: int) -> Plan:
    """The plan for `n` samples like those of `x`, in the store's tiles; the engine is known to be able to do it."""
    plan = make_plan(request, n, tile=store.grid.tile)
    try_out(request, x)
    return plan


def try_out(request: KernelRequest, x: np.ndarray) -> None:
    """Let the engine prepare one sample, so that what it cannot do shows before anything is written.

    Raises:
        BackendUnavailable: it cannot run here; and whatever it says of the job.
    """
    engine = backends.get(request.backend)
    engine.release(engine.prepare(request, x[:1]))


def fill(
    store: WritableStore, request: KernelRequest, x: np.ndarray, plan: Plan, todo: list[Tile], progress: bool | None
) -> None:
    """Compute the tiles of `todo` and write them, one thread for each; on any error the finished tiles stay.

    Raises:
        NumericalError: an entry is not finite.
        StoreError: the disk is full or refuses, or an entry does not fit into the storage.
    """
    start = time.perf_counter()
    per_entry = plan.flops / max(plan.grid.pairs, 1)
    total = per_entry * sum(prod(tile.shape) for tile in todo)
    bar = kernel_progress(total, show=progress)
    with PeakMemory() as memory, bar as advance, TileComputer(
        backends.get(request.backend), request, x, None, plan.grid, plan.cached_blocks,
        advance=partial(advance, written=0), entry_flops=plan.entry_flops, sample_flops=plan.sample_flops,
    ) as computer, TileWriter(store) as writer:  # fmt: skip
        for tile in todo:
            buffer = np.empty((*tile.shape, *request.reduction.trailing), dtype=request.model.dtype)
            computer.compute(tile, buffer)
            writer.put(tile, buffer)
            stored = buffer.size * STORAGE[store.manifest["storage"]].itemsize
            advance(0.0, stored)
    seconds = time.perf_counter() - start
    begun = store.manifest["plan"]
    rate = plan.gflops or begun["gflops"]
    planned = begun if begun["n"] == plan.n else replace(plan, gflops=rate, seconds=rate and plan.flops / rate / 1e9)
    figures = Figures(
        seconds=seconds,
        predicted_seconds=rate and total / rate / 1e9,
        tiles=len(todo),
        gflops=total / seconds / 1e9,
        bytes_written=writer.written,
        peak_rss_over_baseline=memory.over_baseline,
        storage_error=writer.error,
        backend=request.backend,
        device=request.device,
        threads=request.threads,
    )
    store.flush_tiles()
    store.update(
        complete=True,
        actual=[*store.manifest.get("actual", []), asdict(figures)],
        plan=planned if isinstance(planned, dict) else planned.to_dict(),
    )
