"""Kernel stores of a small network, for several tests."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import udlbridge as ub
from helpers import random_model, samples
from udlbridge.store.tile_records import FILE

MODEL = random_model([5, 7, 3], ["tanh", "identity"])
X = samples(MODEL, 60)


def store_of(path: Path, n: int = 21, **options: object) -> ub.KernelStore:
    """The kernel of the first `n` samples, by hand unless `options` say otherwise."""
    return ub.compute_kernel(MODEL, X[:n], path, **{"backend": "reference", **options})  # type: ignore[arg-type]


def tile_files(path: Path) -> dict[str, bytes]:
    """Every file of the kernel in a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in (path / "kernel").rglob("*") if file.is_file()}


def assert_same_bytes(store: ub.KernelStore, other: ub.KernelStore) -> None:
    """Every file of the kernel is the other's; no tile was placed twice, and no draft is left."""
    assert tile_files(store.path) == tile_files(other.path)
    assert (store.path / FILE).stat().st_size == struct.calcsize("<QQIIII") * store.grid.count
    assert ub.KernelStore(store.path).verify().ok
    assert not [name for _, _, names in os.walk(store.path) for name in names if name.endswith(".partial")]
