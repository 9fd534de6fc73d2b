"""Whether the disk has room, asked before anything is computed."""

from __future__ import annotations

import shutil
from pathlib import Path

from udlbridge.errors import StoreError
from udlbridge.options import show_bytes


def check_room(
    folder: Path,
    needed: int,
    remedy: str = 'free some space, choose another disk, or store less precisely (storage="float16")',
) -> None:
    """Raise `StoreError` if the disk under `folder` has less than `needed` bytes."""
    disk = folder.absolute()
    while not disk.exists():
        disk = disk.parent
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise StoreError(
            f"the kernel needs {show_bytes(needed)} on disk, {disk} has {show_bytes(free)}",
            remedy=remedy,
        )
