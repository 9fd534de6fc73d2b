"""What an index of a kernel on disk means: a rectangle, put together from tiles, and which of its axes are dropped."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from udlbridge.errors import StoreError
from udlbridge.texts import kind_of


def rectangle(key: Any, n: int) -> tuple[slice, slice, tuple[Any, ...]]:
    """The rows and columns of an (n, n) kernel that `store[key]` reads, and the index that drops the axes of integers.

    Raises:
        StoreError: more than two parts, a step other than 1, or neither an integer nor a slice.
        IndexError: a sample that is not there, as Python's own sequences say it.
    """
    keys = key if isinstance(key, tuple) else (key, slice(None))
    if len(keys) != 2:
        raise StoreError(f"an index with {len(keys)} parts", allowed="two, as store[i:j, k:l]")
    found: list[slice] = []
    squeeze: list[Any] = []
    for part in keys:
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            if step != 1:
                raise StoreError(f"an index with step {step}", allowed="step 1", remedy="read, then take steps")
            found.append(slice(start, max(start, stop)))
            squeeze.append(slice(None))
        else:
            index = _index(part, n)
            found.append(slice(index, index + 1))
            squeeze.append(0)
    return found[0], found[1], tuple(squeeze)


def put_together(
    result: np.ndarray, rows: slice, columns: slice, tile: int, block: Callable[[int, int], np.ndarray]
) -> None:
    """Fill `result` with these rows and columns of the kernel; `block` gives the tile (i, j) of the whole square."""
    for i in range(rows.start // tile, -(-rows.stop // tile)):
        for j in range(columns.start // tile, -(-columns.stop // tile)):
            part = block(i, j)
            top, left = i * tile, j * tile
            r = slice(max(rows.start, top), min(rows.stop, top + part.shape[0]))
            c = slice(max(columns.start, left), min(columns.stop, left + part.shape[1]))
            result[r.start - rows.start : r.stop - rows.start, c.start - columns.start : c.stop - columns.start] = part[
                r.start - top : r.stop - top, c.start - left : c.stop - left
            ]


def _index(part: object, n: int) -> int:
    try:
        return range(n)[operator.index(part)]  # type: ignore[arg-type]
    except TypeError:
        raise StoreError(
            f"an index that is {kind_of(part)}",
            allowed="integers and slices, as store[i], store[i:j, k:l]",
            remedy="read a rectangle, and index the array that it gives",
        ) from None
