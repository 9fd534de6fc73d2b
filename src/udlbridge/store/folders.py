"""Folders that appear whole or not at all, whenever the process that makes them is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from udlbridge.atomic import flush as flush_file
from udlbridge.errors import StoreError
from udlbridge.store.names import LOCK


@dataclass(frozen=True)
class Held:
    """The lock of a folder, while it is held. `name` is what the folder is called to people."""

    folder: Path
    name: Path
    identity: tuple[int, int]

    def check(self) -> None:
        """Find out whether the folder is the one that was locked: whoever removed or moved it took what is written.

        Raises:
            StoreError: its lock is not there any more, or another.
        """
        try:
            found = os.lstat(self.folder / LOCK)
        except OSError:
            found = None
        if found is None or _identity(found) != self.identity:
            raise StoreError(
                f"{self.name} was removed, moved or replaced while it was written",
                allowed="a folder that stays where it is until its writer has finished",
                remedy="compute it again; a folder that was moved can be gone on with from its new path",
            )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to fill; afterwards it is on the disk, and takes the name `folder`.

    What a killed process left of it is cleared away by the next that makes the same folder. It is known by its lock:
    a folder of that name that somebody else made is never touched, and links are never followed.

    Raises:
        StoreError: `folder` exists, another process is making it, or something else has the place of what is built.
        OSError: as of writing.
    """
    folder = folder.absolute()
    building = folder.with_name(f".{folder.name}.building")
    _check_ours(building, folder)
    building.mkdir(parents=True, exist_ok=True)
    with locked(building, folder):
        try:
            for left in building.iterdir():
                if left.name != LOCK:
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
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


def _check_ours(building: Path, folder: Path) -> None:
    """Raise `StoreError` if `building` is anything but a folder that is empty or has our lock in it."""
    try:
        found = os.lstat(building)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(found.st_mode):
        reason = "it is a link"
    elif not stat.S_ISDIR(found.st_mode):
        reason = "it is not a folder"
    elif any(building.iterdir()) and not _is_regular(building / LOCK):
        reason = f"it has no {LOCK}, so it is somebody else's"
    else:
        return
    raise StoreError(
        f"{folder} cannot be made: {building} is in its way ({reason})",
        allowed=f"nothing of that name, or what an interrupted computation of {folder.name} left",
        remedy="rename it, or write to another path; it is left as it is",
    )


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def locked(folder: Path, name: Path) -> Iterator[Held]:
    """Hold the lock of a folder, which is called `name` to people. The operating system frees it when its holder dies.

    Raises:
        StoreError: another process holds it, it cannot be made, or something else has its place.
    """
    path = folder / LOCK
    # Locking empties the file: through a link, that would be somebody else's.
    if os.path.lexists(path) and not _is_regular(path):
        raise StoreError(
            f"{path} is not a regular file, so {name} cannot be written",
            allowed="the file that the first writer made",
            remedy="remove it, if nobody writes to the store; it is left as it is",
        )
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"another process is writing to {name}", allowed="one writer", remedy="wait until it has finished"
        ) from None
    except OSError as failure:
        raise StoreError(
            f"{name} cannot be written ({failure})",
            allowed="a folder that this user may write to, on a disk that is not read-only",
            remedy="change its permissions, or copy it to where it may be written; reading needs neither",
        ) from failure
    try:
        yield Held(folder, name, _identity(os.lstat(path)))
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
