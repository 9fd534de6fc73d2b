"""A kernel of any size, computed tile by tile into a store: resumable, verified, appended to."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import Outputs, reduction
from udlbridge.errors import NumericalError, ShapeError, StoreError
from udlbridge.kernels.planning import DEFAULT_MEMORY, Plan, calibrated, make_plan
from udlbridge.kernels.tiling import Tile, TileComputer
from udlbridge.networks.inputs import checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, selected_parameters
from udlbridge.options import checked_count
from udlbridge.progress import kernel_progress
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.peak_memory import PeakMemory
from udlbridge.store.tile_writer import TileWriter
from udlbridge.store.writing import WritableStore, check_room, checked_storage

CALIBRATED_FROM = 2e12
"""Operations from which on a time is predicted unasked. The prediction costs two seconds; two cores take twenty or more
for so many, and whoever waits for less needs no prediction. The notebook's kernel, n = 60,000, has 3.7e12."""


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
            if todo or not self.complete:
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
        tiles = checked_count("tiles", tiles, 1)
        model = self.model().astype("float64")
        x = self.samples()
        x = x if model.takes_tokens else x.astype(np.float64)
        every = list(self.grid.tiles())
        picked = np.random.default_rng(seed).choice(len(every), size=min(tiles, len(every)), replace=False)
        engine = backends.get(backend or self.manifest["backend"])
        job = KernelJob(model, self.reduction, self.manifest["plan"]["method"], params=self.parameters)
        worst, scale = 0.0, 0.0
        with TileComputer(engine, job, x, None, self.grid, 2) as computer:
            for index in picked:
                tile = every[index]
                exact = np.empty((*tile.shape, *self.shape[2:]))
                computer.compute(tile, exact)
                stored = self.read_tile(tile)
                if not np.isfinite(stored).all() or not np.isfinite(exact).all():
                    i, j = np.argwhere(~(np.isfinite(stored) & np.isfinite(exact)))[0, :2].tolist()
                    place = f"K[{tile.rows.start + i}, {tile.columns.start + j}]"
                    raise NumericalError(
                        f"{place} is {stored[i, j]}; in float64: {exact[i, j]}",
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
    params: Selection = None,
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str | None = None,
    storage: str | None = None,
    resume: bool = False,
    calibrate: bool | None = None,
    progress: bool | None = None,
) -> KernelStore:
    """Compute the symmetric kernel of the samples into a store on disk, within a bound of memory.

    Writing overlaps computing. Killed at any moment, the store opens, its finished tiles are valid, and the same call
    with `resume=True` computes the rest; the tiles are then the same bytes as without the interruption.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        path: the folder of the store; it must not exist unless `resume`.
        outputs, params, backend, method, memory, threads, device: as for `ntk`. `memory` bounds what the process takes
            besides the samples. `device` None is the CPU.
        storage: "float32", "float64", "float16" or "bfloat16"; None is the model's dtype. What a narrower one costs in
            precision is measured and kept in the manifest.
        resume: go on with the store at `path` if there is one; it must be of the same network, samples, reduction and
            parameters. `backend`, `method`, `device` and `storage` are those that it was begun with: the bytes depend
            on them. Left out, they are read from it.
        calibrate: spend two seconds to predict the time, for the manifest; None means: if the work is so long (from
            `CALIBRATED_FROM` operations on) that it is a small part of it.
        progress: show a bar; None means: if standard error is a terminal.

    Returns:
        The store. Its manifest has the plan and the actual figures.

    Raises:
        StoreError: the path exists, another process writes to it, the disk is too small or full, or the store to be
            resumed is of another network, other samples, another reduction or other parameters, or was begun with other
            options.
        OptionError, ParameterError, InputError, BackendUnavailable: as `ntk`.
    """
    batch = checked_batch(model, x)
    chosen = reduction(outputs, output_size(model, batch))
    folder = Path(path)
    existing = KernelStore(folder, model=model, x=batch) if resume and (folder / "zarr.json").is_file() else None
    names = selected_parameters(model, params)
    if existing is not None:
        begun = existing.manifest
        _same(existing, "outputs", chosen.outputs, begun["outputs"])
        _same(existing, "params", names, existing.parameters)
        backend = _same(existing, "backend", backend, begun["backend"])
        method = _same(existing, "method", None if method == "auto" else method, begun["plan"]["method"])
        device = _same(existing, "device", device, begun.get("device", "cpu"))
        storage = _same(existing, "storage", storage, begun["storage"])
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    place = backends.checked_device(name, "cpu" if device is None else device)
    kept = checked_storage(storage, model.dtype)
    if existing is None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(
            f"{folder} exists",
            allowed="a new folder",
            remedy="add --resume (resume=True) to go on with it, or remove it",
        )
    tile = None if existing is None else existing.grid.tile
    made = make_plan(
        model, batch.shape[1:], chosen, len(batch), None, name, method, memory, threads, tile=tile, params=names
    )  # fmt: skip
    engine = backends.get(name)
    job = KernelJob(model, chosen, made.method, made.threads, place, names)
    engine.release(engine.prepare(job, batch[:1]))  # an engine that cannot do the job says so before there is a store
    if made.flops >= CALIBRATED_FROM if calibrate is None else calibrate:
        made = calibrated(model, batch.shape[1:], chosen, made, names, place)
    if existing is None:
        stored = STORAGE[kept].itemsize / model.dtype.itemsize
        check_room(folder, int(made.disk_bytes * stored) + 2 * batch.nbytes)
        description = {
            "backend": name,
            "device": place,
            "versions": engine.versions(),
            "plan": made.to_dict(),
            "params": list(names),
        }
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
    backends.checked_device(name, place)
    chosen, method = store.reduction, begun["plan"]["method"]
    made = make_plan(
        model, x.shape[1:], chosen, n, None, name, method, memory, threads, store.grid.tile, store.parameters
    )  # fmt: skip
    job = KernelJob(model, chosen, made.method, made.threads, place, store.parameters)
    engine = backends.get(name)
    engine.release(engine.prepare(job, x[:1]))
    return job, made


def _fill(
    store: KernelStore, job: KernelJob, x: np.ndarray, made: Plan, todo: list[Tile], progress: bool | None
) -> None:
    """Compute the tiles of `todo` and write them, one thread for each; on any error the finished tiles stay."""
    tiles = TileComputer(backends.get(made.backend), job, x, None, made.grid, made.kept_blocks)
    start = time.perf_counter()
    per_entry = made.flops / max(made.grid.pairs, 1)
    total = per_entry * sum(tile.shape[0] * tile.shape[1] for tile in todo)
    bar = kernel_progress(total, show=progress)
    with PeakMemory() as memory, bar as advance, tiles as computer, TileWriter(store) as writer:
        for tile in todo:
            buffer = np.empty((*tile.shape, *job.reduction.trailing), dtype=job.model.dtype)
            computer.compute(tile, buffer)
            writer.put(tile, buffer)
            stored = buffer.size * STORAGE[store.manifest["storage"]].itemsize
            advance(per_entry * buffer.shape[0] * buffer.shape[1], stored)
    seconds = time.perf_counter() - start
    begun = store.manifest["plan"]
    rate = made.gflops or begun["gflops"]
    planned = begun if begun["n"] == made.n else replace(made, gflops=rate, seconds=rate and made.flops / rate / 1e9)
    figures = Figures(
        seconds=seconds,
        predicted_seconds=rate and total / rate / 1e9,
        tiles=len(todo),
        gflops=total / seconds / 1e9,
        bytes_written=writer.written,
        peak_rss_over_baseline=memory.over_baseline,
        storage_error=writer.error,
        backend=made.backend,
        device=job.device,
        threads=job.threads,
    )
    store.flush_tiles()
    store.update(
        complete=True,
        actual=[*store.manifest.get("actual", []), asdict(figures)],
        plan=planned if isinstance(planned, dict) else planned.to_dict(),
    )
