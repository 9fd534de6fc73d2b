"""Where the files of a store are, by names like "kernel/c/0/1": in a folder, or under a URL (`objects`)."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from udlbridge.errors import StoreError
from udlbridge.paths import user_path
from udlbridge.regular import Readable, check_readable, opened_exactly, read_exactly, read_regular, regular_size
from udlbridge.store.tile_files import TileFiles

PIECE = 1 << 20
"""Bytes that are read at a time where a file is read in pieces."""


class Url(str):
    """Where a store is that is not in a folder: a part of it is named with `/`, as with a `Path`."""

    __slots__ = ()

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self}/{name}")

    def absolute(self) -> Url:
        """Itself."""
        return self


class Files(Protocol):
    """The files of a store. What cannot be read is an OSError: FileNotFoundError, PermissionError, or what it says."""

    mode: str
    """How Zarr opens them: "r+", or "r" where they are only read."""

    requests: int
    """How many files are best read at a time, each of them whole; 0 for a folder, where as many as there are cores."""

    def check_there(self) -> None:
        """Raise FileNotFoundError where it is known that there is nothing that could be a store."""

    def size(self, name: str) -> int:
        """Bytes of a file, which may be read."""

    def count(self, folder: str) -> int:
        """How many files and folders there are in a folder, 0 where it is not there."""

    def whole(self, name: str, most: int) -> bytes:
        """A file that has at most `most` bytes."""

    def exactly(self, name: str, size: int) -> np.ndarray:
        """A file that has exactly so many bytes (size,)."""

    def opened(self, name: str, size: int) -> AbstractContextManager[Readable]:
        """A file that has exactly so many bytes, to be read in parts."""

    def pieces(self, name: str, start: int) -> Iterator[bytes]:
        """A file from byte `start` on."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """A file as one on this machine, to be read."""

    def zarr(self) -> Any:
        """What Zarr reads and writes them by."""


class FolderFiles:
    """The files in a folder. Links are not followed, and nothing but a regular file is read."""

    mode = "r+"
    requests = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def located(path: str | os.PathLike[str]) -> Path | Url:
    """Where a store is: a path with its `~` expanded, that of a file:// URL, or another URL.

    Raises:
        StoreError: a URL that names nothing, or another machine's files.
    """
    if not is_url(path):
        return user_path(path)
    url = os.fspath(path).rstrip("/")
    parts = urlsplit(url)
    if parts.query or parts.fragment or not (parts.netloc + parts.path).strip("/"):
        raise StoreError(
            f"{path} is not the URL of a store", allowed="s3://bucket/K.zarr, without ? and #", remedy="check it"
        )
    if parts.scheme != "file":
        return Url(url)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            f"{path} names the files of {parts.netloc}", allowed="file:///path/K.zarr", remedy="use three slashes"
        )
    return Path(url2pathname(parts.path))


def files_of(path: Path | Url) -> Files:
    """The files of the store there.

    Raises:
        StoreError: of a URL that cannot be opened.
    """
    if isinstance(path, Path):
        return FolderFiles(path)
    from udlbridge.store.objects import ObjectFiles

    return ObjectFiles(path)
