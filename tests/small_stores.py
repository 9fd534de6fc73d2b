"""Kernel stores of a small network, and executors for their tiles, for several tests."""

from __future__ import annotations

import multiprocessing
import os
import struct
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import udlbridge as ub
from helpers import random_model, samples
from udlbridge.kernels.tiling import Tile
from udlbridge.store.names import RECORDS

MODEL = random_model([5, 7, 3], ["tanh", "identity"])
X = samples(MODEL, 60)


def store_of(path: Path, n: int = 21, **options: object) -> ub.KernelStore:
    """The kernel of the first `n` samples, by hand unless `options` say otherwise."""
    return ub.compute_kernel(MODEL, X[:n], path, **{"backend": "reference", **options})  # type: ignore[arg-type]


def tile_path(store: ub.KernelStore, tile: Tile) -> Path:
    """The file of a tile."""
    return store.path / store._name(tile)


def tile_files(path: Path) -> dict[str, bytes]:
    """Every file of the kernel in a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in (path / "kernel").rglob("*") if file.is_file()}


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a store but its lock."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def assert_same_bytes(store: ub.KernelStore, other: ub.KernelStore) -> None:
    """Every file of the kernel is the other's; no tile was placed twice, and no draft is left."""
    assert tile_files(store.path) == tile_files(other.path)
    assert (store.path / RECORDS).stat().st_size == struct.calcsize("<QQIIII") * store.grid.count
    assert ub.KernelStore(store.path).verify().ok
    assert not [name for _, _, names in os.walk(store.path) for name in names if name.endswith(".partial")]


def processes(count: int = 2, **options: Any) -> ProcessPoolExecutor:
    """Workers that are started anew."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), **options)


class Losing:
    """An executor in this thread, some of whose tasks are lost with their workers."""

    def __init__(self, lost: set[int]) -> None:
        self.lost, self.count = lost, 0

    def submit(self, function: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.count += 1
        if self.count in self.lost:
            future.set_exception(ConnectionError("the worker is gone"))
        else:
            future.set_result(function(*args))
        return future
