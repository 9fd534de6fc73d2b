"""A kernel of any size, computed tile by tile into a store: resumable, verified, appended to."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from udlbridge import backends
from udlbridge.backends.base import KernelJob
from udlbridge.errors import NumericalError, ShapeError, StoreError
from udlbridge.inputs import checked_batch, output_size
from udlbridge.model import Model
from udlbridge.narrowing import STORAGE
from udlbridge.options import whole_number
from udlbridge.planning import DEFAULT_MEMORY, Plan, calibrated, make_plan
from udlbridge.progress import kernel_progress
from udlbridge.reduction import Outputs, reduction
from udlbridge.storing import WritableStore, check_room, checked_storage
from udlbridge.tiling import Tile, TileComputer

QUEUE = 2
"""Tiles that may wait to be written while the next are computed; `planning.TILE_BUFFERS` counts them."""


@dataclass(frozen=True)
class Figures:
    """What one run of a computation took."""

    seconds: float
    tiles: int
    gflops: float
    bytes_written: int
    peak_rss_over_baseline: int
    storage_error: float


class KernelStore(WritableStore):
    """A kernel on disk that reads like an array, and that can be appended to, repaired and verified.

    `store[i:j, k:l]`, `store[i]`, `np.asarray(store)` (refused above `memory`), `store.diagonal()`, `store @ v`. The
    upper triangle is mirrored on reading. See `stored.StoredKernel` for the arguments.
    """

    def append(
        self,
        x_new: np.ndarray,
        *,
        backend: str | None = None,
        memory: int | str = DEFAULT_MEMORY,
        threads: int | None = None,
        device: str | None = None,
        progress: bool | None = None,
    ) -> None:
        """Grow from n samples to n + m; only the new rows are computed (and a last block that was not full).

        Args:
            x_new: m more samples, of the same shape and dtype.
            backend, device: the engine and where torch computes; None is what the store was computed with.
            memory, threads, progress: as for `compute_kernel`.

        Raises:
            StoreError: the store is not complete, its network or samples are damaged, another process writes to it, or
                the disk is too small.
            InputError: what is wrong with `x_new`.
            OptionError, BackendUnavailable: as `compute_kernel`.
        """
        model = self.model()
        batch = checked_batch(model, x_new, "x_new")
        with self.writing():
            if not self.complete:
                raise StoreError(
                    f"{self.path} is not complete", remedy="finish it first: `udlbridge store verify --repair`"
                )
            x = self.samples()
            if batch.shape[1:] != x.shape[1:]:
                raise ShapeError(
                    f"the samples of x_new have shape {batch.shape[1:]}, those of {self.path} {x.shape[1:]}",
                    allowed="the same shape", remedy="prepare both in the same way",
                )  # fmt: skip
            check_room(self.path, self.growth_bytes(batch))
            job, made = _as_before(self, model, batch, len(x) + len(batch), backend, memory, threads, device)
            self.grow(batch)
            _fill(self, job, np.concatenate([x, batch]), made, self.unfinished(), progress)

    def repair(
        self,
        *,
        backend: str | None = None,
        memory: int | str = DEFAULT_MEMORY,
        threads: int | None = None,
        device: str | None = None,
        progress: bool | None = None,
    ) -> int:
        """Compute every tile again that is missing or damaged; returns how many there were. Options as for `append`.

        Raises:
            StoreError: the stored network or samples are damaged, another process writes to the store, or the disk
                refuses.
            OptionError, BackendUnavailable: as `compute_kernel`.
        """
        with self.writing():
            model, x = self.model(), self.samples()
            job, made = _as_before(self, model, x, len(x), backend, memory, threads, device)
            todo = self.unfinished()
            _fill(self, job, x, made, todo, progress)
            return len(todo)

    def compare_with_float64(self, tiles: int, *, seed: int = 0, backend: str | None = None) -> float:
        """Compute random tiles again in float64.

        Args:
            tiles: how many tiles, at least 1.
            seed: which ones.
            backend: the engine; None is the one that the store was computed with.

        Returns:
            The largest difference, relative to the largest entry of the tiles that were compared.

        Raises:
            NumericalError: an entry is not finite.
            OptionError: `tiles` is less than 1.
        """
        tiles = whole_number("tiles", tiles, 1)
        model = self.model().astype("float64")
        x = self.samples()
        x = x if model.takes_tokens else x.astype(np.float64)
        every = list(self.grid.tiles())
        picked = np.random.default_rng(seed).choice(len(every), size=min(tiles, len(every)), replace=False)
        engine = backends.get(backend or self.manifest["backend"])
        job = KernelJob(model, self.reduction, self.manifest["plan"]["method"])
        worst, scale = 0.0, 0.0
        for index in picked:
            tile = every[index]
            left = engine.prepare(job, x[tile.rows])
            right = engine.prepare(job, x[tile.columns])
            exact = np.empty((*tile.shape, *self.shape[2:]))
            engine.fill(job, left, slice(0, tile.shape[0]), right, slice(0, tile.shape[1]), exact)
            stored = self.read_tile(tile)
            if not np.isfinite(stored).all() or not np.isfinite(exact).all():
                i, j = np.argwhere(~(np.isfinite(stored) & np.isfinite(exact)))[0, :2].tolist()
                raise NumericalError(
                    f"K[{tile.rows.start + i}, {tile.columns.start + j}] is {stored[i, j]}; in float64: {exact[i, j]}",
                    allowed="finite numbers", remedy="look for overflow in the model, or compute it in float64",
                )  # fmt: skip
            worst = max(worst, float(np.abs(stored - exact).max()))
            scale = max(scale, float(np.abs(exact).max()))
        return worst / scale if scale > 0 else worst


def compute_kernel(
    model: Model,
    x: np.ndarray,
    path: str | os.PathLike[str],
    *,
    outputs: Outputs = "trace",
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str | None = None,
    storage: str | None = None,
    resume: bool = False,
    calibrate: bool = False,
    progress: bool | None = None,
) -> KernelStore:
    """Compute the symmetric kernel of the samples into a store on disk, within a bound of memory.

    Writing overlaps computing. Killed at any moment, the store opens, its finished tiles are valid, and the same call
    with `resume=True` computes the rest; the tiles are then the same bytes as without the interruption.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        path: the folder of the store; it must not exist unless `resume`.
        outputs, backend, method, memory, threads, device: as for `ntk`. `memory` bounds what the process takes besides
            the samples. `device` None is the CPU.
        storage: "float32", "float64", "float16" or "bfloat16"; None is the model's dtype. What a narrower one costs in
            precision is measured and kept in the manifest.
        resume: go on with the store at `path` if there is one; it must be of the same network, samples and reduction.
            `backend`, `method`, `device` and `storage` are those that it was begun with: the bytes depend on them. Left
            out, they are read from it.
        calibrate: spend two seconds to predict the time, for the manifest.
        progress: show a bar; None means: if standard error is a terminal.

    Returns:
        The store. Its manifest has the plan and the actual figures.

    Raises:
        StoreError: the path exists, another process writes to it, the disk is too small or full, or the store to be
            resumed is of another network, other samples or another reduction, or was begun with other options.
        OptionError, InputError, BackendUnavailable: as `ntk`.
    """
    batch = checked_batch(model, x)
    chosen = reduction(outputs, output_size(model, batch))
    folder = Path(path)
    existing = KernelStore(folder, model=model, x=batch) if resume and (folder / "zarr.json").is_file() else None
    if existing is not None:
        begun = existing.manifest
        _same(existing, "outputs", chosen.outputs, begun["outputs"])
        backend = _same(existing, "backend", backend, begun["backend"])
        method = _same(existing, "method", None if method == "auto" else method, begun["plan"]["method"])
        device = _same(existing, "device", device, begun.get("device", "cpu"))
        storage = _same(existing, "storage", storage, begun["storage"])
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    place = "cpu" if device is None else device
    kept = checked_storage(storage, model.dtype)
    if existing is None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(
            f"{folder} exists",
            allowed="a new folder",
            remedy="add --resume (resume=True) to go on with it, or remove it",
        )
    tile = None if existing is None else existing.grid.tile
    made = make_plan(
        model, batch.shape[1:], chosen, len(batch), None, name, method, memory, threads, tile=tile
    )  # fmt: skip
    engine = backends.get(name)
    job = KernelJob(model, chosen, made.method, made.threads, place)
    engine.prepare(job, batch[:1])  # an engine that cannot do the job says so before there is a store
    if calibrate:
        made = calibrated(model, batch.shape[1:], chosen, made, place)
    if existing is None:
        stored = STORAGE[kept].itemsize / model.dtype.itemsize
        check_room(folder, int(made.disk_bytes * stored) + 2 * batch.nbytes)
        description = {"backend": name, "device": place, "versions": engine.versions(), "plan": made.to_dict()}
        existing = KernelStore.create(folder, model, batch, chosen, made.tile, kept, description)
    with existing.writing():
        existing.restore_inputs(model, batch)
        _fill(existing, job, batch, made, existing.unfinished(), progress)
    return existing


T = TypeVar("T")


def _same(store: KernelStore, option: str, given: T | None, begun: T) -> T:
    """What a store was begun with, unless something else is asked for."""
    if given is not None and given != begun:
        raise StoreError(
            f"{store.path} was begun with {option}={begun!r}, given {option}={given!r}",
            allowed=f"{option}={begun!r}",
            remedy="leave it out, or write to another path",
        )
    return begun


def _as_before(
    store: KernelStore,
    model: Model,
    x: np.ndarray,
    n: int,
    backend: str | None,
    memory: int | str,
    threads: int | None,
    device: str | None,
) -> tuple[KernelJob, Plan]:
    """The job that a store is of, for `n` samples like those of `x`, and its plan; the engine is known to do it."""
    begun = store.manifest
    name = backends.checked_name(backend or begun["backend"])
    place = device or (begun.get("device", "cpu") if name == begun["backend"] else "cpu")
    chosen, method = store.reduction, begun["plan"]["method"]
    made = make_plan(
        model, x.shape[1:], chosen, n, None, name, method, memory, threads, tile=store.grid.tile
    )  # fmt: skip
    job = KernelJob(model, chosen, made.method, made.threads, place)
    backends.get(name).prepare(job, x[:1])
    return job, made


def _fill(
    store: KernelStore, job: KernelJob, x: np.ndarray, made: Plan, todo: list[Tile], progress: bool | None
) -> None:
    """Compute the tiles of `todo` and write them, one thread for each; on any error the finished tiles stay."""
    computer = TileComputer(backends.get(made.backend), job, x, None, made.grid, made.kept_blocks)
    baseline = _rss()
    start = time.perf_counter()
    per_entry = made.flops / max(made.grid.pairs, 1)
    total = per_entry * sum(tile.shape[0] * tile.shape[1] for tile in todo)
    with kernel_progress(total, show=progress) as advance, _Writer(store) as writer:
        for tile in todo:
            buffer = np.empty((*tile.shape, *job.reduction.trailing), dtype=job.model.dtype)
            computer.compute(tile, buffer)
            writer.put(tile, buffer)
            advance(per_entry * buffer.shape[0] * buffer.shape[1], buffer.nbytes)
    seconds = time.perf_counter() - start
    figures = Figures(
        seconds=seconds,
        tiles=len(todo),
        gflops=total / seconds / 1e9,
        bytes_written=writer.written,
        peak_rss_over_baseline=max(0, _peak_rss() - baseline),
        storage_error=max(writer.error, store.manifest.get("storage_error", 0.0)),
    )
    runs = [*store.manifest.get("actual", []), asdict(figures)]
    store.flush_tiles()
    store.update(complete=True, actual=runs, storage_error=figures.storage_error, plan=made.to_dict())


class _Writer:
    """Writes tiles in a thread of its own, so that the disk and the engine work at the same time."""

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self._queue: queue.Queue[tuple[Tile, np.ndarray] | None] = queue.Queue(maxsize=QUEUE - 1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="udlbridge-writer", daemon=True)
        self.error = 0.0
        self.written = 0

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def put(self, tile: Tile, block: np.ndarray) -> None:
        """Hand a tile over; waits while the queue is full. Raises what the writing raised."""
        if self._failure is not None:
            raise self._failure
        self._queue.put((tile, block))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._queue.put(None)  # what was handed over is written, also after Ctrl-C
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue  # drain, so that the other side does not wait for ever
            try:
                self.error = max(self.error, self._store.write_tile(*item))
                self.written += item[1].nbytes
            except BaseException as failure:  # handed to the computing thread, whatever it is
                self._failure = failure


def _rss() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak_rss() -> int:
    """The largest resident size of this process so far, in bytes."""
    with contextlib.suppress(ImportError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if sys.platform == "darwin" else peak * 1024)
    return _rss()
