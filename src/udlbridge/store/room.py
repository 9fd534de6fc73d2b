"""Whether the disk has room, asked before anything is computed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from udlbridge.errors import StoreError
from udlbridge.options import show_bytes

if TYPE_CHECKING:
    from udlbridge.store.files import Url


def check_room(
    where: Path | Url,
    needed: int,
    remedy: str = 'free some space, choose another disk, or store less precisely (storage="float16")',
) -> None:
    """Raise `StoreError` if the disk there has less than `needed` bytes; of what is at a URL nobody knows."""
    if not isinstance(where, Path):
        return
    disk = where.absolute()
    while not disk.exists():
        disk = disk.parent
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise StoreError(
            f"the kernel needs {show_bytes(needed)} on disk, {disk} has {show_bytes(free)}",
            remedy=remedy,
        )
