"""Removing a store that another is to take the place of: never anything that is not a store's."""

from __future__ import annotations

from pathlib import Path

from udlbridge.errors import StoreError
from udlbridge.store.files import Url, files_of
from udlbridge.store.manifest import read_manifest
from udlbridge.store.names import others


def check_removable(path: Path | Url) -> None:
    """Find out whether a store is there and nothing besides.

    Raises:
        StoreError: it is a link, or not a store, or somebody has put something of their own into it.
    """
    if isinstance(path, Path) and path.is_symlink():
        raise StoreError(
            f"{path} is a link, which is not followed to remove a store",
            allowed="the folder itself",
            remedy=f"name {path.resolve()}, or remove the link",
        )
    read_manifest(path)
    foreign = others(files_of(path).entries())
    if foreign:
        raise StoreError(
            f"{path} holds what is not the store's: {', '.join(foreign[:5])}",
            allowed="a store alone",
            remedy="move it away, or write to another path; all is left as it is",
        )


def remove_store(path: Path | Url) -> None:
    """Remove the store there, which nobody else may be writing to.

    Raises:
        StoreError: as `check_removable`; another process writes to it, or it cannot be removed.
    """
    check_removable(path)
    files = files_of(path)
    with files.held():
        try:
            files.clear()
        except OSError as failure:
            raise StoreError(
                f"{path} cannot be removed ({failure})",
                allowed="a store that this user may change",
                remedy="change its permissions, or write to another path",
            ) from failure
