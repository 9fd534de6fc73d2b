"""One tile as a file: its entries in C order, little-endian, and after them their CRC32C, as Zarr v3 has it.

Any reader of Zarr reads these files. They are read and written here without it, because the checksum has to be known
before a file takes its place (`places`), and what is read has to be the very bytes whose size, checksum and place were
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import numpy as np

from udlbridge.regular import fill_from
from udlbridge.store.files import Files
from udlbridge.store.narrowing import STORAGE

CHECKSUM = np.dtype("<u4")
"""The last four bytes of a file."""


def fill_value(storage: str) -> Any:
    """What stands for entries that were not computed: NaN, of bfloat16 the bits of it."""
    return 0x7FC0 if storage == "bfloat16" else np.nan


def chunk_bytes(storage: str, tile: int, trailing: tuple[int, ...]) -> int:
    """Bytes of the file of any tile: those at the edges are filled up."""
    return tile * tile * math.prod(trailing) * STORAGE[storage].itemsize + CHECKSUM.itemsize


def packed(raw: np.ndarray, storage: str, tile: int) -> tuple[np.ndarray, int]:
    """The entries (r, c, *trailing) of a tile as its file has them (tile, tile, *trailing), and their checksum."""
    dtype = STORAGE[storage]
    if raw.shape[:2] == (tile, tile):
        whole = np.ascontiguousarray(raw, dtype=dtype)
    else:
        whole = np.full((tile, tile, *raw.shape[2:]), fill_value(storage), dtype=dtype)
        whole[: raw.shape[0], : raw.shape[1]] = raw
    return whole, google_crc32c.value(whole.reshape(-1).view(np.uint8))


def read_chunk(files: Files, name: str, storage: str, tile: int, trailing: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The entries (tile, tile, *trailing) in a file, as they are stored, and their checksum.

    Raises:
        OSError: it cannot be read, is not a regular file, or has another size than a tile.
        ValueError: its checksum is not that of the entries.
    """
    content = files.exactly(name, chunk_bytes(storage, tile, trailing))
    entries, own = content[: -CHECKSUM.itemsize], int(content[-CHECKSUM.itemsize :].view(CHECKSUM)[0])
    found = google_crc32c.value(entries)
    _compare(found, own)
    return entries.view(STORAGE[storage]).reshape(tile, tile, *trailing), own


def chunk_strips(
    files: Files, name: str, storage: str, tile: int, height: int, check: Callable[[int], object]
) -> Iterator[tuple[int, np.ndarray]]:
    """The entries of a matrix's tile as `read_chunk` gives them, `height` rows (h, tile) at a time, with the first row.

    Each strip is overwritten by the next: so few bytes stay in a core's cache on their way from the file, through the
    checksum, to whatever takes them. They are proved only when the iterator ends, and `check` has taken the checksum.

    Raises:
        OSError, ValueError: as `read_chunk`, and what `check` raises.
    """
    strip = np.empty((min(height, tile), tile), dtype=STORAGE[storage])
    found = 0
    with files.opened(name, chunk_bytes(storage, tile, ())) as file:
        for top in range(0, tile, height):
            part = strip[: tile - top]
            content = part.reshape(-1).view(np.uint8)
            fill_from(file, content.data)
            found = google_crc32c.extend(found, content)
            yield top, part
        stored = np.empty(1, dtype=CHECKSUM)
        fill_from(file, stored.view(np.uint8).data)
    own = int(stored[0])
    _compare(found, own)
    check(own)


def _compare(found: int, own: int) -> None:
    if found != own:
        raise ValueError(f"its checksum is {found:08x}, and it says {own:08x}")
