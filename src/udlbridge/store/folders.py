"""Folders that appear whole or not at all, whenever the process that makes them is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from udlbridge.atomic import flush as flush_file
from udlbridge.errors import StoreError

LOCK = "writer.lock"
"""The file in a store's folder that its writer holds a lock of, from the first moment on."""


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to fill; afterwards it is on the disk, and takes the name `folder`.

    What a killed process left of it is cleared away by the next that makes the same folder.

    Raises:
        StoreError: `folder` exists, or another process is making it.
        OSError: as of writing.
    """
    folder = folder.absolute()
    building = folder.with_name(f".{folder.name}.building")
    building.mkdir(parents=True, exist_ok=True)
    with locked(building, folder):
        try:
            for left in building.iterdir():
                if left.name != LOCK:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield building
            flush(building)
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()  # an empty one gives way
            building.rename(folder)
        except BaseException as error:
            shutil.rmtree(building, ignore_errors=True)  # the lock is held still: it is nobody else's
            if isinstance(error, OSError) and folder.exists():
                raise StoreError(
                    f"{folder} exists", allowed="a new folder", remedy="write to another path, or remove it"
                ) from error
            raise
    flush_name(folder)


@contextlib.contextmanager
def locked(folder: Path, name: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is called `name` to people. The operating system frees it when its holder dies.

    Raises:
        StoreError: another process holds it.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"another process is writing to {name}", allowed="one writer", remedy="wait until it has finished"
        ) from None
    try:
        yield
    finally:
        lock.release()


def flush(folder: Path) -> None:
    """Wait until all files below `folder`, and their names, are on the disk."""
    for top, _, names in os.walk(folder):
        for name in names:
            flush_file(Path(top, name))
        flush_file(Path(top))


def flush_name(path: Path) -> None:
    """Wait until the name of a new file or folder is on the disk."""
    flush_file(path.parent)
