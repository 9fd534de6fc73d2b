"""How the tiles of a store reach the disk: whole or not at all, past the page cache, and there before they count.

A kernel may be larger than memory, and its tiles are written once and read much later, if at all. Through the page
cache they push out what others need, and on a virtual machine that gets its memory page by page this costs more time
than computing them. So a tile goes from a buffer straight to the disk where the file system can do that (O_DIRECT),
into a file of another name that takes the tile's place when all of it is on the disk: not even a power failure leaves
half a tile. So does the metadata, which says what the tiles mean and when they count.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from udlbridge.atomic import replacing
from udlbridge.store.names import METADATA

SECTOR = 4096
"""What lengths and addresses of direct writes are multiples of; no disk that is in use needs more."""

BUFFER = 4 << 20
"""Bytes that are written at a time."""

SMALL = 1 << 16
"""Tiles up to this size are written as usual, those of small kernels: whole, and flushed before they count."""


class TileFiles(LocalStore):  # type: ignore[misc]
    """Zarr's store in a folder, with another way of writing large files and metadata. It can be pickled."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._writer: DirectWriter | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the buffer, which is made anew when it is needed."""
        return {**self.__dict__, "_writer": None}

    async def set(self, key: str, value: Buffer) -> None:
        """Write one file; called by Zarr."""
        await asyncio.to_thread(self._write, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """As `set`, for the part of Zarr that is not asynchronous."""
        self._write(key, value)

    def _write(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if not self.root.is_dir():  # whoever removed it does not want a part of it back
            raise FileNotFoundError(errno.ENOENT, "the folder of the store is gone", str(self.root))
        if self._writer is None:
            self._writer = DirectWriter()
        self._writer.write(self.root / key, memoryview(value.as_numpy_array()))


class DirectWriter:
    """Writes files through one buffer, which begins at a multiple of `SECTOR`. One file at a time."""

    def __init__(self) -> None:
        self._buffer = mmap.mmap(-1, BUFFER)
        self._turn = threading.Lock()

    def write(self, path: Path, *pieces: memoryview) -> None:
        """Put a file with these pieces of bytes, one after another, at `path`: whole, and, if large, on the disk.

        It takes the place of whatever has that name, of a link or a pipe too, without following or opening it.

        Raises:
            OSError: as of writing; nothing is left then.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = [piece.cast("B") for piece in pieces]
        small = sum(map(len, raw)) <= SMALL
        with replacing(path, links=False, durable=not small or path.name == METADATA) as partial:
            try:
                if small:
                    _write_buffered(partial, raw)
                else:
                    self._write_direct(partial, raw)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                _write_buffered(partial, raw)  # the file system does not do it, as that of a memory disk

    def _write_direct(self, path: Path, pieces: list[memoryview]) -> None:
        flag = getattr(os, "O_DIRECT", None)
        if flag is None:
            raise OSError(errno.EOPNOTSUPP, "no O_DIRECT on this system")
        with self._turn, memoryview(self._buffer) as buffer:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flag, 0o666)
            try:
                filled = 0
                for piece in pieces:
                    done = 0
                    while done < len(piece):
                        part = piece[done : done + BUFFER - filled]
                        buffer[filled : filled + len(part)] = part
                        done, filled = done + len(part), filled + len(part)
                        if filled == BUFFER:
                            _write_all(file, buffer)
                            filled = 0
                _write_all(file, buffer[: -(-filled // SECTOR) * SECTOR])
                os.ftruncate(file, sum(map(len, pieces)))
            finally:
                os.close(file)


def _write_buffered(path: Path, pieces: list[memoryview]) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            _write_all(file.fileno(), piece)


def _write_all(file: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(file, data) :]
