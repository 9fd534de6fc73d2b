"""A new kernel store: its manifest, network and samples, without any tiles yet."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from safetensors import SafetensorError

from udlbridge.atomic import may_not, remedy_of
from udlbridge.backends.sites import parameter_count
from udlbridge.errors import ModelFileError, OptionError, StoreError, UDLBridgeError
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.frozen import FrozenNetwork
from udlbridge.networks.model import Model
from udlbridge.options import brief
from udlbridge.store.arrays import make_arrays
from udlbridge.store.files import Files, Url, files_of
from udlbridge.store.manifest import FORMAT, KEY, signed
from udlbridge.store.names import METADATA, MODEL
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.samples import as_stored, data_hash, sample_fields, sample_rows


def fields_of(request: KernelRequest, plan: Plan, storage: str, versions: dict[str, str]) -> dict[str, Any]:
    """What the manifest says of a finite network's kernel; `versions` are those of the engine's parts."""
    network, module = request.model, {}
    if not isinstance(network, FrozenNetwork):
        count = parameter_count(network, request.parameters)
        module = {"module": {"name": network.name, "n_params": count}}
    return {
        **module,
        "outputs": request.reduction.outputs,
        "n_outputs": request.reduction.n_outputs,
        "scale": request.reduction.scale,
        "dtype": request.model.dtype.name,
        "storage": storage,
        "tile": plan.tile,
        "backend": request.backend,
        "device": request.device,
        "versions": versions,
        "plan": plan.to_dict(),
        "params": list(request.parameters),
    }


def create(path: Path | Url, model: Model | ForeignNetwork, x: np.ndarray, fields: dict[str, Any]) -> None:
    """Make a store without tiles, of the kernel of the samples `x`; its manifest says `fields` of the kernel.

    It is there with its manifest, network and samples, or not at all, whenever this is interrupted.

    Raises:
        StoreError: something is there, another process is making it, or the disk or the storage is full or refuses.
    """
    files = files_of(path)
    try:
        with files.making() as building:
            _begin(building, model, x, fields)
    except UDLBridgeError:
        raise
    except OSError as failure:
        if isinstance(path, Path) and may_not(failure):
            raise StoreError(
                f"{path} could not be made: this user may not write there ({failure})",
                allowed="a folder in which this user may write, on a disk that is not read-only",
                remedy=f"{remedy_of(failure)}, or choose another place",
            ) from failure
        raise StoreError(
            f"{path} could not be made ({failure})", remedy=f"{files.remedy}, or choose another place"
        ) from failure


def _begin(files: Files, model: Model | ForeignNetwork, x: np.ndarray, fields: dict[str, Any]) -> None:
    """Everything but the tiles."""
    manifest = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "model": model.hash(),
        "model_bytes": sum(value.nbytes for value in model.arrays.values()) if isinstance(model, FrozenNetwork) else 0,
        "data": data_hash(x),
        "samples": _samples(x),
        "n": len(x),
        "complete": False,
        "storage_error": 0.0,
        **fields,
    }
    documents: dict[str, Any] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(documents), attributes={KEY: signed(manifest)})
    make_arrays(group, manifest)
    of_the_group = documents.pop(METADATA)
    for name, document in documents.items():
        files.write(name, memoryview(document.to_bytes()))
    write_inputs(files, model, x)
    files.write(METADATA, memoryview(of_the_group.to_bytes()))  # last: without it there is no store


def _samples(x: np.ndarray) -> dict[str, Any]:
    """How the samples lie in their array."""
    stored, fields = as_stored(x), sample_fields(x)
    found = {"shape": list(stored.shape[1:]), "dtype": stored.dtype.name, "rows": min(len(stored), sample_rows(stored))}
    return found if fields is None else {**found, "fields": fields}


def checked_storage(storage: str | None, dtype: np.dtype[Any]) -> str:
    """How the entries of a kernel of that dtype are stored; None is as they are.

    Raises:
        OptionError: unknown, or wider than the kernel.
    """
    name = dtype.name if storage is None else storage
    if not isinstance(name, str) or name not in STORAGE or (name == "float64" and dtype == np.float32):
        raise OptionError(
            f"storage={brief(storage)} for a {dtype} kernel",
            allowed=", ".join(k for k in STORAGE if k != "float64" or dtype == np.float64),
            remedy="leave it out to store the kernel's own dtype",
        )
    return name


def write_inputs(files: Files, model: Model | ForeignNetwork, x: np.ndarray) -> None:
    """Write the samples and the network of a store, if it is a `Model` or a `Graph`: of a module it has a hash alone.

    Raises:
        OSError: the disk is full or refuses.
    """
    with zarr.config.set({"array.write_empty_chunks": True}):  # a chunk of zeros that is not there was lost
        write_samples(zarr.open_array(files.zarr(), path="x", mode="r+"), 0, as_stored(x))
    if not isinstance(model, FrozenNetwork):
        return
    try:
        with files.saved(MODEL) as path:
            model.write(path)
    except (ModelFileError, SafetensorError) as failure:  # what these say of a full disk
        raise OSError(str(failure)) from failure


def write_samples(target: Any, start: int, x: np.ndarray) -> None:
    """Write samples (m, *D), as they lie in the array, after the first `start`, one chunk after the other."""
    rows, end, length = target.chunks[0], start + len(x), target.shape[0]
    while start < end:
        last = (start // rows + 1) * rows
        stop = min(end, last)
        piece = x[len(x) - (end - start) : len(x) - (end - stop)]
        if start % rows == 0:  # all of a chunk, so that Zarr does not read the old one, which may be damaged
            more = min(last, length) - stop
            piece = np.concatenate([piece, np.zeros((more, *x.shape[1:]), x.dtype)]) if more else piece
        target[start : start + len(piece)] = piece
        start = stop
