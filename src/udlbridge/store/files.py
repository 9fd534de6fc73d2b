"""Where the files of a store are, by names like "kernel/c/0/1": in a folder, or under a URL (`objects`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from udlbridge.errors import StoreError
from udlbridge.paths import user_path
from udlbridge.regular import Readable
from udlbridge.store.folder_files import FolderFiles


class Url(str):
    """Where a store is that is not in a folder: a part of it is named with `/`, as with a `Path`."""

    __slots__ = ()

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self}/{name}")

    def absolute(self) -> Url:
        """Itself."""
        return self


def unanswered(error: object) -> bool:
    """Whether it is the error of a storage that failed or did not answer: an operating system gives a number."""
    return type(error) is OSError and error.errno is None


def no_answer(what: object, error: object) -> StoreError:
    """The error of what could not be read because a storage failed; it may be as it should be."""
    return StoreError(
        f"{what} cannot be read ({error})",
        allowed="a storage that answers",
        remedy="see what it says, and try again: nothing is known to be damaged",
    )


class Right(Protocol):
    """The right to write to a store, while it is held."""

    def check(self) -> None:
        """Raise StoreError where it is not held any more."""


class Files(Protocol):
    """The files of a store. What cannot be read or written is an OSError: FileNotFoundError, PermissionError, or other.

    Files are written whole or not at all, whenever this is interrupted.
    """

    requests: int
    """How many files are best read or written at a time, each of them whole; 0 for a folder: as there are cores."""

    remedy: str
    """What helps where they cannot be written."""

    # --- reading --------------------------------------------------------------------------------------------------

    def check_there(self) -> None:
        """Raise FileNotFoundError where it is known that there is nothing that could be a store."""

    def size(self, name: str) -> int:
        """Bytes of a file, which may be read."""

    def count(self, folder: str) -> int:
        """How many files and folders there are in a folder, 0 where it is not there."""

    def sizes(self, folder: str) -> dict[str, int]:
        """All regular files below a folder, by their names, and their bytes."""

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

    # --- writing --------------------------------------------------------------------------------------------------

    def entries(self) -> set[str]:
        """The names of files and folders, without those in folders."""

    def begun(self) -> bool:
        """Whether a store is there, finished or not."""

    def taken(self) -> bool:
        """Whether a new store would have to take the place of something. Raises StoreError where it never could."""

    def making(self) -> AbstractContextManager[Files]:
        """Files to fill, the metadata last: they are a store when it ends, and gone where it raises.

        Raises StoreError where something is there, or somebody else makes one.
        """

    def held(self) -> AbstractContextManager[Right]:
        """The right to write, which one process has at a time. Raises StoreError where another has it."""

    def write(self, name: str, *pieces: memoryview) -> None:
        """Put a file with these pieces of bytes, one after another, in the place of one that is there."""

    def saved(self, name: str) -> AbstractContextManager[Path]:
        """A path on this machine: what is written there is the file in the end."""

    def append(self, name: str, records: bytes, size: int) -> None:
        """Add records of so many bytes each to a file, which need not be there."""

    def draft(self, name: str, *pieces: memoryview) -> str:
        """Write a file beside its place, into a store that is there; the name of the draft."""

    def place(self, drafts: Sequence[tuple[str, str]]) -> None:
        """Let drafts take their places: names of drafts, and those of the files."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def clear_drafts(self) -> None:
        """Remove all drafts, and what else a writer that died had not finished."""

    def clear(self) -> None:
        """Remove all of a store."""

    def flush(self, name: str) -> None:
        """Wait until a file, or all that is in a folder, outlasts a loss of power."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def located(path: str | os.PathLike[str]) -> Path | Url:
    """Where a store is: a path with its `~` expanded, that of a file:// URL, or another URL.

    Raises:
        StoreError: a URL that names nothing, or another machine's files, or that lacks a slash.
        OptionError: neither text nor a path.
    """
    if not isinstance(path, str):
        path = user_path(path)
    if not is_url(path):
        lacking = re.match(r"(s3a?|gs|az|abfss?|memory|file|https?):(?=/?[^/])", os.fspath(path))
        if lacking:  # a path with a folder of that name is meant by nobody
            raise StoreError(
                f"{path} is neither a path nor a URL", allowed="s3://bucket/K.zarr", remedy=f"write {lacking[0]}//"
            )
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
