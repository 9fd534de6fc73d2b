"""`compute_kernel`: a kernel of any size, computed tile by tile into a store."""

from __future__ import annotations

import os
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from udlbridge import backends
from udlbridge.backends.reduction import Outputs
from udlbridge.calls import explained
from udlbridge.errors import StoreError
from udlbridge.kernels.calibration import calibrated
from udlbridge.kernels.planning import make_plan
from udlbridge.kernels.request import DEFAULT_MEMORY, as_network, device_name, kernel_request
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection
from udlbridge.options import checked_flag
from udlbridge.store.begun import try_out
from udlbridge.store.creating import checked_storage, create, fields_of
from udlbridge.store.executors import checked_executor
from udlbridge.store.files import Url, files_of, located
from udlbridge.store.filling import fill
from udlbridge.store.kernel_store import KernelStore
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.removing import check_removable, remove_store
from udlbridge.store.room import check_room
from udlbridge.words import EngineWord, MethodWord, StorageWord

CALIBRATED_FROM = 2e12
"""Operations from which on a time is predicted unasked. The prediction costs two seconds; two cores take twenty or more
for so many, and whoever waits for less needs no prediction. The notebook's kernel, n = 60,000, has 3.7e12."""


@explained()
def compute_kernel(
    model: Model | Any,
    x: Any,
    path: str | os.PathLike[str],
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    method: MethodWord = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: Any = None,
    storage: StorageWord | None = None,
    resume: bool = False,
    overwrite: bool = False,
    calibrate: bool | None = None,
    executor: Any = None,
    progress: bool | None = None,
    output: Any = None,
) -> KernelStore:
    """Compute the symmetric kernel of the samples into a store on disk or at a URL, within a bound of memory.

    Writing overlaps computing. Killed at any moment, the store opens, its finished tiles are valid, and the same call
    with `resume=True` computes the rest; the tiles are then the same bytes as without the interruption.

    Args:
        model: the network, which the store holds; a `torch.nn.Module` will do too. Of a module the store holds a hash:
            whoever goes on with it hands it in again, with the same weights.
        x: samples (n, *D), of the model's dtype; several inputs as for `ntk`.
        path: the folder of the store, or its URL, as "s3://bucket/K.zarr" (extra `objects`); nothing may be there
            unless `resume` or `overwrite`. To a URL one process writes at a time, by a lease that it renews.
        outputs, params, backend, method, memory, threads, device: as for `ntk`. `memory` bounds what the process takes
            besides the samples.
        storage: "float32", "float64", "float16" or "bfloat16"; None is the model's dtype. What a narrower one costs in
            precision is measured and kept in the manifest.
        resume: continue the store at `path` if there is one; it must be of the same network, samples, reduction and
            parameters. `backend`, `method`, `device` and `storage` are those that it was begun with: the bytes depend
            on them. Left out, they are read from it.
        overwrite: remove a store at `path`, and nothing else, once all is ready to begin anew. A store that `resume`
            goes on with stays.
        calibrate: spend two seconds to predict the time, for the manifest; None means: if the work is so long (from
            `CALIBRATED_FROM` operations on) that it is a small part of it.
        executor: whose workers compute the tiles and write them: a `ProcessPoolExecutor` that spawns, a
            `ThreadPoolExecutor`, a `dask.distributed.Client`, or anything else with their `submit`. They open the store
            at the same path or URL, each with its own engine, and `memory` and `threads` are for each of them. The
            bytes are the same as without. A module goes to them by pickle.
        progress: show a bar; None means: if standard error is a terminal.
        output: of a module, as for `as_network`.

    Returns:
        The store. Its manifest has the plan and the actual figures.

    Raises:
        StoreError: the path exists, or what is to be overwritten is not a store alone; another process writes to it;
            the disk is too small or full, or the storage at a URL does not answer or refuses; or the store to be
            resumed is of another network, other samples, another reduction or other parameters, or was begun with
            other options; or the workers of the executor die again and again, or a Dask cluster is gone or stays
            without workers.
        ConversionError: a module that cannot be pickled, for workers in other processes.
        OptionError, ParameterError, InputError, BackendUnavailable: as `ntk`.

    Examples:
        >>> from tempfile import mkdtemp
        >>> model, x = ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS
        >>> store = ub.compute_kernel(model, x, mkdtemp() + "/K.zarr", progress=False)
        >>> bool(np.allclose(store[:], ub.ntk(model, x)))
        True
    """
    if executor is not None:
        checked_executor(executor)
    model = as_network(model, output=output)
    batch = checked_samples(model, x)
    resume, overwrite = checked_flag("resume", resume), checked_flag("overwrite", overwrite)
    calibrate = None if calibrate is None else checked_flag("calibrate", calibrate)
    target = store_path(path)
    files = files_of(target)
    existing = KernelStore(target, model=model, x=batch) if resume and files.begun() else None
    if existing is not None:
        begun = existing.manifest
        backend = _same(existing, "backend", backend, begun["backend"])
        method = _same(existing, "method", None if method == "auto" else method, begun["plan"]["method"])
        device = _same(existing, "device", None if device is None else device_name(device), begun.get("device", "cpu"))
        storage = _same(existing, "storage", storage, begun["storage"])
    request = kernel_request(
        model, batch.shape[1:], outputs=outputs, params=params, backend=backend, method=method, memory=memory,
        threads=threads, device=device,
    )  # fmt: skip
    if existing is not None:
        _same(existing, "outputs", request.reduction.outputs, existing.manifest["outputs"])
        _same(existing, "params", request.parameters, existing.parameters)
    storage_dtype = checked_storage(storage, model.dtype)
    replaced = existing is None and files.taken()
    if replaced:
        if not overwrite:
            raise StoreError(
                f"{target} exists",
                allowed="a new store",
                remedy="add --resume (resume=True) to continue it, or --force (overwrite=True) to compute it anew",
            )
        check_removable(target)
    plan = make_plan(request, len(batch), tile=None if existing is None else existing.grid.tile)
    try_out(request, batch)
    if plan.flops >= CALIBRATED_FROM if calibrate is None else calibrate:
        plan = calibrated(request, plan)
    if existing is None:
        if replaced:
            remove_store(target)
        narrower = STORAGE[storage_dtype].itemsize / model.dtype.itemsize
        check_room(target, int(plan.disk_bytes * narrower) + 2 * batch.nbytes)
        versions = backends.get(request.backend).versions()
        create(target, model, batch, fields_of(request, plan, storage_dtype, versions))
        existing = KernelStore(target, model=model)
    with existing.writing():
        existing.restore_inputs(model, batch)
        fill(existing, request, batch, plan, existing.unfinished(), progress, executor)
    return existing


def store_path(path: str | os.PathLike[str]) -> Path | Url:
    """Where a store is to be: a path, its `~` expanded, or a URL.

    Raises:
        StoreError: its name ends as that of a file does, of which nothing would be written, or is too long; or it is a
            URL that names nothing.
    """
    target = located(path)
    name: PurePath = target if isinstance(target, Path) else PurePosixPath(target)
    if name.suffix not in ("", ".zarr"):
        raise StoreError(
            f"a kernel store at {target}, which ends in {name.suffix!r}",
            allowed="a folder or a URL whose name ends in .zarr, or in nothing",
            remedy=f"name it {name.with_suffix('.zarr').name}; `ub.ntk` gives an array, for files of other kinds",
        )
    try:
        if isinstance(target, Path):
            target.exists()
    except OSError as error:
        raise StoreError(f"{target} cannot be a path here ({error.strerror})", remedy="choose a shorter one") from error
    return target


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
