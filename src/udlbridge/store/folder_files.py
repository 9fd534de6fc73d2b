"""The files of a store in a folder."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from udlbridge.atomic import flush, is_partial, partial_of
from udlbridge.errors import StoreError
from udlbridge.regular import check_readable, opened_exactly, read_exactly, read_regular, regular_size
from udlbridge.store import folders
from udlbridge.store.names import METADATA
from udlbridge.store.tile_files import DirectWriter, TileFiles

PIECE = 1 << 20
"""Bytes that are read at a time where a file is read in pieces."""


class FolderFiles:
    """The files in a folder; `files.Files` says what is what. Links are not followed, nothing but files is read."""

    requests = 0
    remedy = "free some space"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # --- reading --------------------------------------------------------------------------------------------------

    def check_there(self) -> None:
        """Raise FileNotFoundError where there is no folder."""
        if not self._folder.is_dir():
            words = "it is a file; an array has no manifest" if self._folder.exists() else "there is no such folder"
            raise FileNotFoundError(words)

    def size(self, name: str) -> int:
        """Bytes of a file, which may be read."""
        return check_readable(self._folder / name)

    def count(self, folder: str) -> int:
        """How many there are in a folder."""
        try:
            with os.scandir(self._folder / folder) as entries:
                return sum(1 for _ in entries)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def sizes(self, folder: str) -> dict[str, int]:
        """The regular files below a folder, and their bytes."""
        found = {}
        for top, _, names in os.walk(self._folder / folder):
            for name in names:
                path = Path(top, name)
                try:
                    found[path.relative_to(self._folder).as_posix()] = regular_size(path)
                except OSError:  # a link or a pipe, or it was removed a moment ago
                    continue
        return found

    def whole(self, name: str, most: int) -> bytes:
        """A file that has at most `most` bytes."""
        return read_regular(self._folder / name, most)

    def exactly(self, name: str, size: int) -> np.ndarray:
        """A file that has exactly so many bytes (size,)."""
        return read_exactly(self._folder / name, size)

    def opened(self, name: str, size: int) -> AbstractContextManager[io.FileIO]:
        """A file that has exactly so many bytes."""
        return opened_exactly(self._folder / name, size)

    def pieces(self, name: str, start: int) -> Iterator[bytes]:
        """A file from byte `start` on."""
        regular_size(self._folder / name)
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self._folder / name

    def zarr(self) -> TileFiles:
        """Zarr's store in the folder."""
        return TileFiles(self._folder)

    # --- writing --------------------------------------------------------------------------------------------------

    def entries(self) -> set[str]:
        """The names in the folder."""
        return {entry.name for entry in self._folder.iterdir()}

    def begun(self) -> bool:
        """Whether a store is there, or was begun."""
        return (self._folder / METADATA).is_file()

    def taken(self) -> bool:
        """Whether there is anything but an empty folder.

        Raises:
            StoreError: there is a file.
        """
        if not self._folder.exists():
            return False
        if not self._folder.is_dir():
            raise StoreError(
                f"{self._folder} is a file", allowed="a new folder", remedy="write to another path, or remove it"
            )
        return any(self._folder.iterdir())

    @contextmanager
    def making(self) -> Iterator[FolderFiles]:
        """Files beside the folder; in the end they are in the folder."""
        with folders.new_folder(self._folder) as building:
            yield FolderFiles(building)

    def held(self) -> AbstractContextManager[folders.Held]:
        """The lock of the folder."""
        return folders.locked(self._folder, self._folder)

    def write(self, name: str, *pieces: memoryview) -> None:
        """Put a file there, past the page cache if it is large."""
        self._writer.write(self._folder / name, *pieces)

    @contextmanager
    def saved(self, name: str) -> Iterator[Path]:
        """Where whoever writes it, whole or not at all, writes it."""
        yield self._folder / name

    def append(self, name: str, records: bytes, size: int) -> None:
        """Write records of so many bytes after those that are there; what is torn at the end is written over."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        file = os.open(self._folder / name, flags, 0o666)
        with os.fdopen(file, "r+b") as opened:
            opened.seek(os.fstat(file).st_size // size * size)
            opened.write(records)

    def draft(self, name: str, *pieces: memoryview) -> str:
        """Write a file beside its place; its own name.

        Raises:
            FileNotFoundError: the store is gone.
        """
        if not self.begun():  # whoever removed it does not want a part of it back
            raise FileNotFoundError(errno.ENOENT, "the folder of the store is gone", str(self._folder))
        partial = partial_of(self._folder / name)
        self._writer.write(partial, *pieces)
        return partial.relative_to(self._folder).as_posix()

    def place(self, drafts: Sequence[tuple[str, str]]) -> None:
        """Rename drafts."""
        for draft, name in drafts:
            os.replace(self._folder / draft, self._folder / name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def clear_drafts(self) -> None:
        """Remove drafts, and what else a writer that died had not finished."""
        for top, _, names in os.walk(self._folder):
            for name in filter(is_partial, names):
                Path(top, name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder)

    def flush(self, name: str) -> None:
        """Wait until a file, or all in a folder, are on the disk."""
        path = self._folder / name
        if path.is_dir():
            folders.flush(path)
        elif path.exists():
            flush(path)

    @cached_property
    def _writer(self) -> DirectWriter:
        return DirectWriter()
