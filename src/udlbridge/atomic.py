"""Files that appear whole or not at all, whenever their writer is killed, and whoever else writes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TypeVar

from udlbridge.errors import UDLBridgeError

PARTIAL = ".partial"
"""The ending of the names of files that are being written; a writer that was killed leaves one."""


@contextmanager
def replacing(path: Path, *, links: bool = True, durable: bool = True) -> Iterator[Path]:
    """A path to write to, in the folder of `path`; if the block ends without an error, that file replaces `path`.

    Every call has a name of its own, so that of two writers at the same time one wins and neither is mixed into the
    other. The file is on the disk before it takes the name, and has the permissions of the one that it replaces, or
    those that the umask leaves to a new one. A link stays a link, to a new file. What is not a file (a pipe, a device)
    is written to directly.

    Args:
        path: of the file.
        links: False takes the place of whatever has the name, of a link or a pipe too, and neither follows nor opens
            it: for files in folders of our own.
        durable: False leaves it to the caller to flush the file before it counts.

    Raises:
        OSError: as of writing; `path` is as it was then.
    """
    target = Path(os.path.realpath(path)) if links else path
    if links and target.exists() and not target.is_file():
        yield target
        return
    partial = partial_of(target)
    try:
        yield partial
        _set_mode(partial, target)
        if durable:
            flush(partial)
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _set_mode(partial: Path, target: Path) -> None:
    """The permissions of the file that is replaced, or those of the umask: some libraries make files for one user."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(target)
        if stat.S_ISREG(found.st_mode):
            partial.chmod(stat.S_IMODE(found.st_mode))
            return
    if stat.S_IMODE(partial.stat().st_mode) & 0o077:
        return  # made as files are made, so the umask had its say
    probe = partial.with_name(f"{partial.name[: -len(PARTIAL)]}.mode{PARTIAL}")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        partial.chmod(stat.S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink(missing_ok=True)


P = TypeVar("P", bound=PurePath)


def partial_of(target: P) -> P:
    """A name for what will take the place of `target`, in the same folder, that nothing else has."""
    # Short, so that it is allowed wherever the name itself is.
    return target.with_name(f".{target.name[:32]}.{uuid.uuid4().hex}{PARTIAL}")


def is_partial(name: str) -> bool:
    """Whether a file of that name is what a killed writer left, of ours or of Zarr's, and nothing that a user has."""
    return re.fullmatch(rf".*\.[0-9a-f]{{32}}(\.mode)?{re.escape(PARTIAL)}", name, re.DOTALL) is not None


@contextmanager
def writing(path: Path, error: type[UDLBridgeError]) -> Iterator[Path]:
    """As `replacing`, with a message for users in place of the system's; folders that are missing are made.

    Raises:
        error: a folder cannot be made, or the disk refuses.
    """
    check_target(path, error)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
    except UDLBridgeError:  # some of ours are an OSError too
        raise
    except OSError as failure:
        raise error(
            f"{path} cannot be written ({failure})",
            allowed="a path to a file, with room on the disk and the right to write",
            remedy=f"{remedy_of(failure)}, or choose another path",
        ) from failure


def may_not(failure: OSError) -> bool:
    """Whether it is the right to write that is lacking, and not room."""
    return failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def remedy_of(failure: OSError, room: str = "free some space") -> str:
    """What to do about a file that could not be written; `room`: where it is room that is lacking."""
    return "change the permissions of the folder, ask its owner to" if may_not(failure) else room


def check_target(path: Path, error: type[UDLBridgeError], name: str = "") -> None:
    """Find out before a long computation whether its result can be written to a file, whose folder may have to be made.

    Args:
        path: of the file.
        error: the class of the error.
        name: what the error calls the target, as "--json FILE"; the path itself if it is empty.

    Raises:
        error: its folder cannot be made, or is protected, or `path` is a folder itself.
    """
    try:
        path.exists()
        folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    except OSError as failure:  # a name that is too long
        words = f"{str(name or path)[:80]} is not a path here ({failure.strerror})"
        raise error(words, allowed="a name that the system takes", remedy="choose another") from failure
    special = path.exists() and not path.is_file()
    protected = [
        part for part in ((path,) if special else (folder, path)) if part.exists() and not os.access(part, os.W_OK)
    ]
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif protected:
        reason = f"{protected[0]} is protected"
    else:
        return
    raise error(
        f"{name or path} cannot be written: {reason}",
        allowed="a path to a file, in a folder that exists or can be made",
        remedy="name another path",
    )


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk refuses.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folders, and needs no such call for them
    try:
        os.fsync(file)
    finally:
        os.close(file)
