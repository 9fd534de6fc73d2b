"""Removing a store that another is to take the place of: never anything that is not a store's."""

from __future__ import annotations

import shutil
from pathlib import Path

from udlbridge.errors import StoreError
from udlbridge.store.folder import MODEL
from udlbridge.store.folders import LOCK, locked
from udlbridge.store.manifest import read_manifest
from udlbridge.store.tile_files import METADATA
from udlbridge.store.tile_records import FILE as RECORDS

ENTRIES = frozenset({"kernel", "x", METADATA, MODEL, LOCK, RECORDS})
"""The names of all that a store's folder holds."""


def check_removable(folder: Path) -> None:
    """Find out whether a folder is a store and nothing besides.

    Raises:
        StoreError: it is a link, or not a store, or somebody has put something of their own into it.
    """
    if folder.is_symlink():
        raise StoreError(
            f"{folder} is a link, which is not followed to remove a store",
            allowed="the folder itself",
            remedy=f"name {folder.resolve()}, or remove the link",
        )
    read_manifest(folder)
    others = sorted({entry.name for entry in folder.iterdir()} - ENTRIES)
    if others:
        raise StoreError(
            f"{folder} holds what is not the store's: {', '.join(others[:5])}",
            allowed="a folder with a store alone",
            remedy="move it away, or write to another path; all is left as it is",
        )


def remove_store(folder: Path) -> None:
    """Remove the store in a folder, which nobody else may be writing to.

    Raises:
        StoreError: as `check_removable`; another process writes to it, or it cannot be removed.
    """
    check_removable(folder)
    with locked(folder, folder):
        try:
            shutil.rmtree(folder)
        except OSError as failure:
            raise StoreError(
                f"{folder} cannot be removed ({failure})",
                allowed="a folder that this user may change",
                remedy="change its permissions, or write to another path",
            ) from failure
