"""The samples of a store: how they are hashed, and how many are read at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name).newbyteorder("<") for name in ("float32", "float64", "int64")}
"""The dtypes that samples have: a network's own, and that of tokens."""

SAMPLES_BYTES = 1 << 22
"""Bytes of samples that are read, written and hashed at a time: one chunk."""


def data_hash(x: Any, n: int | None = None) -> str:
    """SHA-256 of the shape, dtype and bytes of the samples, the first `n` of an array or of Zarr's."""
    count = x.shape[0] if n is None else n
    digest = hashlib.sha256(f"{(count, *x.shape[1:])}{x.dtype.str}".encode())
    rows = sample_rows(x)
    for start in range(0, count, rows):
        digest.update(np.ascontiguousarray(x[start : min(start + rows, count)]).data)
    return digest.hexdigest()


def sample_rows(x: Any) -> int:
    """How many of the samples `SAMPLES_BYTES` are, at least one."""
    return max(1, SAMPLES_BYTES // (int(np.prod(x.shape[1:], dtype=np.int64)) * x.dtype.itemsize))
