"""Files that appear whole or not at all, whenever their writer is killed, and whoever else writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from udlbridge.errors import UDLBridgeError

PARTIAL = ".partial"
"""What names of files end with that are being written; a writer that was killed leaves one."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the folder of `path`; if the block ends without an error, that file replaces `path`.

    Every call has a name of its own, so that of two writers at the same time one wins and neither is mixed into the
    other. The file is on the disk before it takes the name, and has the permissions of the one that it replaces, or
    those that the umask leaves to a new one. A link stays a link, to a new file. What is no file (a pipe, a device) is
    written to directly.

    Raises:
        OSError: as of writing; `path` is as it was then.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    # Short, so that it is allowed wherever the name itself is.
    partial = target.with_name(f".{target.name[:32]}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, partial)
        flush(partial)
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, error: type[UDLBridgeError]) -> Iterator[Path]:
    """As `replacing`, with a message for users in place of the system's.

    Raises:
        error: the folder is missing, or the disk refuses.
    """
    check_target(path, error)
    try:
        with replacing(path) as partial:
            yield partial
    except UDLBridgeError:  # some of ours are an OSError too
        raise
    except OSError as failure:
        raise error(
            f"{path} cannot be written ({failure})",
            allowed="a path to a file, with room on the disk and the right to write",
            remedy="free some space, or choose another path",
        ) from failure


def check_target(path: Path, error: type[UDLBridgeError], name: str = "") -> None:
    """Find out before a long computation whether its result can be written to a file.

    Args:
        path: of the file.
        error: the class of the error.
        name: what the error calls the target, as "--json FILE"; the path itself if it is empty.

    Raises:
        error: there is no such folder, it is protected, or `path` is a folder itself.
    """
    folder = path.absolute().parent
    special = path.exists() and not path.is_file()
    protected = [
        part for part in ((path,) if special else (folder, path)) if part.exists() and not os.access(part, os.W_OK)
    ]
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif protected:
        reason = f"{protected[0]} is protected"
    else:
        return
    raise error(
        f"{name or path} cannot be written: {reason}",
        allowed="a path to a file in a folder that exists",
        remedy="create the folder first, or name another path",
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
