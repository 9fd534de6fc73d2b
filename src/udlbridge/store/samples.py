"""The samples of a store: how they lie in its array, how they are hashed, and how many are read at a time.

Those of a `Model` lie there as they are. Those of somebody's own network may be several inputs, or of dtypes that no
model has: they lie there as the bytes of each sample, and `fields` says what these are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") for name in ("float32", "float64", "int64", "uint8")
}
"""The dtypes that samples have: a network's own, that of tokens, and bytes."""

BYTES = "uint8"

FIELD_DTYPES = ("bool", "int64", "float16", "float32", "float64")
"""The dtypes of inputs that lie there as bytes."""

Fields = Sequence[tuple[str, str, Sequence[int]]]
"""Name, dtype and shape of each input of one sample, in order; "" is the only one."""

SAMPLES_BYTES = 1 << 22
"""Bytes of samples that are read, written and hashed at a time: one chunk."""


def sample_fields(x: np.ndarray) -> Fields | None:
    """What the bytes of each sample are; None for samples that lie there as they are."""
    if x.dtype.names is not None:
        return [(name, x.dtype[name].base.name, list(x.dtype[name].shape)) for name in x.dtype.names]
    return None if x.dtype.name in DTYPES and x.dtype.name != BYTES else [("", x.dtype.name, list(x.shape[1:]))]


def as_stored(x: np.ndarray) -> np.ndarray:
    """Samples as they lie in the array."""
    if sample_fields(x) is None:
        return x
    little = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
    return little.reshape(len(x), -1).view(np.uint8)


def as_given(stored: np.ndarray, fields: Fields | None) -> np.ndarray:
    """Samples as they were given."""
    if fields is None:
        return stored
    types = [(name, np.dtype(dtype).newbyteorder("<"), tuple(shape)) for name, dtype, shape in fields]
    if types[0][0] == "":
        dtype = types[0][1]
        return np.ascontiguousarray(stored).view(dtype).reshape(len(stored), *types[0][2]).astype(dtype.name)
    found = np.ascontiguousarray(stored).view(np.dtype(types)).reshape(len(stored))
    return found.astype([(name, one.newbyteorder("="), shape) for name, one, shape in types])


def bytes_of(fields: Fields) -> int:
    """Of one sample."""
    return sum(np.dtype(dtype).itemsize * prod(shape) for _, dtype, shape in fields)


def data_hash(x: Any, n: int | None = None, fields: Fields | None = None) -> str:
    """SHA-256 of the shape, dtype and bytes of the samples, the first `n` of an array or of Zarr's.

    `fields`: what the bytes of Zarr's array are.
    """
    if isinstance(x, np.ndarray):
        fields = sample_fields(x)
        x = as_stored(x)
    count = x.shape[0] if n is None else n
    digest = hashlib.sha256(f"{(count, *x.shape[1:])}{x.dtype.str}".encode())
    if fields is not None:
        digest.update(json.dumps(fields).encode())
    rows = sample_rows(x)
    for start in range(0, count, rows):
        digest.update(np.ascontiguousarray(x[start : min(start + rows, count)]).data)
    return digest.hexdigest()


def sample_rows(x: Any) -> int:
    """How many of the samples `SAMPLES_BYTES` are, at least one."""
    return max(1, SAMPLES_BYTES // (int(np.prod(x.shape[1:], dtype=np.int64)) * x.dtype.itemsize))
