"""Kernels at infinite width in stores: tile by tile on disk, checked, and gone on with after an interruption."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.arrays import as_indices
from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import StoreError
from udlbridge.infinite.kernels import kernels, own_samples
from udlbridge.kernels import planning
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.layers import Layer
from udlbridge.networks.model import Model
from udlbridge.options import checked_choice, checked_flag, parse_bytes
from udlbridge.progress import kernel_progress
from udlbridge.store.computing import store_path
from udlbridge.store.creating import checked_storage, create
from udlbridge.store.files import Url, files_of
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.room import check_room
from udlbridge.store.tile_writer import QUEUE, TileWriter
from udlbridge.store.writing import WritableStore

ENGINE = "infinite"
"""What the manifest says in the place of an engine: no engine computes these kernels."""


class InfiniteStore(WritableStore):
    """A kernel at infinite width on disk that reads like an array, as `udlbridge.KernelStore` does: slices, products
    with vectors, `spectrum`, `alignment`, `predict.solve`.

    Args:
        path: the folder or URL, as `infinite.compute_kernel` made it.
        memory: how large an array may be that a read makes, and how much a product holds at once.
        executor: whose workers read the tiles for products and alignments, as for `udlbridge.KernelStore`; `repair`
            computes in this process.

    Raises:
        StoreError: there is no such store, or it is that of a finite network.
        OptionError: no tasks can be given to the executor.
    """

    def __init__(self, path: str | os.PathLike[str], *, memory: int | str = "2GB", executor: Any = None) -> None:
        super().__init__(path, memory=memory, executor=executor)

    def _load(self) -> None:
        super()._load()
        if "infinite" not in self.manifest:
            raise StoreError(
                f"{self.path} is the kernel of a finite network",
                allowed="what ub.infinite.compute_kernel wrote",
                remedy="open it as ub.KernelStore(path)",
            )

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, with the options of the limit in the place of an engine."""
        own = {"outputs", "backend"}
        return [row for row in super().as_rows() if row[""] not in own] + [
            {"": name, str(self.path): value} for name, value in self.manifest["infinite"].items()
        ]

    @property
    def _title(self) -> str:
        return f"{self.manifest['infinite']['get'].upper()} at infinite width"

    @property
    def _resumption(self) -> str:
        return "ub.infinite.compute_kernel(..., resume=True)"

    @property
    def _mending(self) -> str:
        return f'ub.infinite.InfiniteStore("{self.path}").repair()'

    @property
    def rank_bound(self) -> int:
        """n: infinitely many parameters bound nothing."""
        return self.shape[0]

    def columns(self, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
        """These columns, (n, r), computed anew: reading them would take all of the tiles.

        Raises:
            DTypeError, ShapeError, InputError: `indices` are not whole numbers along one axis, or out of range.
            StoreError: the stored layers or samples are damaged.
        """
        own, inverse = np.unique(as_indices(indices, self.shape[0]), return_inverse=True)
        x, model = self.samples(), self.model()
        count = len(own)
        found = _block(self, model, x, x[own], np.empty((len(x), count)), self._memory, None)
        # A sample with itself has correlation 1, where a kernel of two sets, which cannot know that, loses half its
        # digits: one of a single set does not.
        found[own] = _block(self, model, x[own], None, np.empty((count, count)), self._memory, None)
        return found[:, inverse]

    def repair(self, *, memory: int | str = "2GB", threads: int | None = None, progress: bool | None = None) -> int:
        """Compute every tile again that is missing or damaged; returns how many there were.

        Raises:
            StoreError: the stored layers or samples are damaged, another process writes to the store, or the disk
                refuses.
        """
        with self.writing():
            todo = self.unfinished()
            if todo or not self.complete:
                _fill(self, self.samples(), todo, parse_bytes(memory), threads, progress)
            return len(todo)


def compute_kernel(
    model: Model | Sequence[Layer],
    x: np.ndarray,
    path: str | os.PathLike[str],
    *,
    w_std: float,
    b_std: float,
    parameterization: str = "ntk",
    get: str = "ntk",
    memory: int | str = "2GB",
    threads: int | None = None,
    storage: str | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> InfiniteStore:
    """Compute the NTK or the NNGP kernel at infinite width into a store on disk, within a bound of memory.

    As with `udlbridge.compute_kernel`: one triangle is stored, writing overlaps computing, and what was finished is
    kept when it is killed.

    Args:
        model: a Model, whose weights play no part, or its layers.
        x: samples (n, *D) of float32 or float64.
        path: the folder of the store, or its URL; nothing may be there unless `resume`.
        w_std, b_std, parameterization, threads: as for `kernels`.
        get: "ntk" or "nngp".
        memory: bound of what is taken besides the samples.
        storage: "float64", "float32", "float16" or "bfloat16"; None is "float64".
        resume: go on with the store at `path` if there is one: of the same layers, samples and options.
        progress: show a bar; None means: if standard error is a terminal.

    Raises:
        StoreError: the path exists, the disk is too small or full, or the store to be resumed is of another kernel.
        LayerError, InputError, ShapeError, DTypeError, OptionError, NumericalError: as `kernels`.
    """
    name, resume, room = (
        checked_choice("get", get, ("nngp", "ntk")),
        checked_flag("resume", resume),
        parse_bytes(memory),
    )
    network, samples = own_samples(model, x, "x")
    network = Model(network.layers, dtype=network.dtype)  # weights play no part: those of the default seed
    # What cannot be shows before anything is written.
    kernels(
        network, samples[:1], w_std=w_std, b_std=b_std, parameterization=parameterization, threads=threads,
        memory=max(1, room // 2),
    )  # fmt: skip
    asked = {"w_std": float(w_std), "b_std": float(b_std), "parameterization": parameterization, "get": name}
    target = store_path(path)
    if resume and files_of(target).begun():
        store = InfiniteStore(target)
        store.check_inputs(network, samples)
        begun, given = (
            {**store.manifest["infinite"], "storage": store.manifest["storage"]},
            {**asked, "storage": storage},
        )
        if storage is None:
            given["storage"] = begun["storage"]
        if begun != given:
            raise StoreError(
                f"{target} was begun with {_listed(begun)}, given {_listed(given)}",
                allowed="the same options",
                remedy="give those, or write to another path",
            )
    else:
        store = _begun(target, network, samples, asked, checked_storage(storage, np.dtype(np.float64)), room)
    with store.writing():
        store.restore_inputs(network, samples)
        _fill(store, samples, store.unfinished(), room, threads, progress)
    return store


def _begun(
    target: Path | Url, network: Model, x: np.ndarray, asked: dict[str, Any], storage: str, memory: int
) -> InfiniteStore:
    if files_of(target).taken():
        raise StoreError(f"{target} exists", allowed="a new store", remedy="add resume=True to go on, or remove it")
    grid = Grid(len(x), len(x), _tile(len(x), memory), True)
    check_room(target, grid.count * grid.tile**2 * STORAGE[storage].itemsize + 2 * x.nbytes)
    reduction = checked_reduction("mean", math.prod(network.output_shape(x.shape[1:])))
    fields: dict[str, Any] = {
        "outputs": reduction.outputs,
        "n_outputs": reduction.n_outputs,
        "scale": reduction.scale,
        "dtype": "float64",
        "storage": storage,
        "tile": grid.tile,
        "backend": ENGINE,
        "versions": {"numpy": np.__version__},
        "plan": {"method": ENGINE, "n": len(x)},
        "params": [],
        "infinite": asked,
    }
    create(target, network, x, fields)
    return InfiniteStore(target)


def _tile(n: int, memory: int) -> int:
    """The size of tiles of which those that wait, and the one that is computed, take half of the memory."""
    return max(1, min(n, planning.LARGEST_TILE, math.isqrt(memory // 2 // (8 * (QUEUE + 1)))))


def _fill(
    store: InfiniteStore, x: np.ndarray, todo: list[Tile], memory: int, threads: int | None, progress: bool | None
) -> None:
    """Compute the tiles of `todo` and write them; on any error the finished ones stay."""
    began, model = time.perf_counter(), store.model()
    bar = kernel_progress(float(len(todo)), show=progress, operations=False)
    with bar as advance, TileWriter(store) as writer:
        for tile in todo:
            other = None if tile.row == tile.column else x[tile.columns]
            writer.put(tile, _block(store, model, x[tile.rows], other, np.empty(tile.shape), memory // 2, threads))
            advance(1.0, math.prod(tile.shape) * STORAGE[store.manifest["storage"]].itemsize)
    figures = {
        "seconds": time.perf_counter() - began,
        "tiles": len(todo),
        "bytes_written": writer.written,
        "storage_error": writer.error,
        "backend": ENGINE,
        "threads": threads,
    }
    store.flush_tiles()
    store.update(complete=True, actual=[*store.manifest.get("actual", []), figures])


def _block(
    store: InfiniteStore,
    model: Model,
    rows: np.ndarray,
    columns: np.ndarray | None,
    out: np.ndarray,
    memory: int,
    threads: int | None,
) -> np.ndarray:
    """The store's kernel of these samples, in `out`."""
    asked = dict(store.manifest["infinite"])
    name = asked.pop("get")
    kernels(model, rows, columns, get=name, out={name: out}, memory=memory, threads=threads, **asked)
    return out


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
