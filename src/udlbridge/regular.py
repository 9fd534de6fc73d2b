"""Reading files that others may have put there: regular ones alone, and no more of them than is plausible.

A named pipe in the place of a file would be waited for without end, a link may lead anywhere, and a file whose size
nobody checked may be larger than memory. So the kind and the size are known before a byte is read.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Without waiting for whoever may write to a pipe that took the file's place a moment ago."""


def regular_size(path: Path, *, links: bool = False) -> int:
    """Bytes of a regular file; a link to one is taken for it only if `links`.

    Raises:
        OSError: it is not there, something else than a regular file, or may not be looked at.
    """
    return _checked_size(os.stat(path) if links else os.lstat(path), path)


def check_readable(path: Path, *, links: bool = False) -> int:
    """As `regular_size`, and that the file may be opened: some libraries say of a protected file that it is not there.

    Raises:
        OSError: as `regular_size`, or it may not be read.
    """
    size = regular_size(path, links=links)
    os.close(os.open(path, _FLAGS))
    return size


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file that has at most `most`.

    Raises:
        OSError: it is not there, cannot be read, is something else than a regular file, or is larger.
    """
    size = regular_size(path)
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are plausible")
    return read_exactly(path, size).tobytes()


def read_exactly(path: Path, size: int) -> np.ndarray:
    """The bytes (size,) of a regular file that has exactly so many; the array is the caller's own.

    Raises:
        OSError: it is not there, cannot be read, is something else than a regular file, or has another size.
    """
    with opened_exactly(path, size) as file:
        content = np.empty(size, dtype=np.uint8)
        fill_from(file, content.data)
    return content


@contextmanager
def opened_exactly(path: Path, size: int) -> Iterator[io.FileIO]:
    """A regular file that has exactly so many bytes, to be read in parts.

    Raises:
        OSError: as `read_exactly`.
    """
    regular_size(path)
    descriptor = os.open(path, _FLAGS | getattr(os, "O_NOFOLLOW", 0))
    with io.FileIO(descriptor, "rb") as file:
        found = _checked_size(os.fstat(descriptor), path)
        if found != size:
            raise OSError(errno.EINVAL, f"it has {found:,} bytes in the place of {size:,}")
        yield file


class Readable(Protocol):
    """What bytes are read from into memory that is there."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read as many as there are, and there is room for; how many, 0 at the end."""


def fill_from(file: Readable, view: memoryview) -> None:
    """Read as many bytes as `view` has room for.

    Raises:
        OSError: there are fewer, or they cannot be read.
    """
    while len(view):
        count = file.readinto(view)
        if not count:
            raise OSError(errno.EIO, "it became shorter while it was read")
        view = view[count:]


def _checked_size(found: os.stat_result, path: Path) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
    return found.st_size
