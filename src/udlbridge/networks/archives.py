"""How much a ZIP archive of arrays unpacks to, before anything is unpacked: .npz files, and PyTorch's."""

from __future__ import annotations

import zipfile
from pathlib import Path

PACKED = 64
"""How many times its size an .npz file may unpack to. Weights and samples pack hardly at all, pruned weights and padded
tokens tenfold."""


def check_archive(path: Path, most: int = PACKED) -> None:
    """Refuse an archive that unpacks to far more than it is; a file that is not an archive is left to its reader.

    The sizes are those that the archive declares, and readers unpack no more than these.

    Args:
        path: the file.
        most: how many times its own size it may unpack to.

    Raises:
        ValueError: it is more.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is a damaged archive ({error})") from error
    if unpacked > most * size:
        raise ValueError(f"it unpacks from {size:,} to {unpacked:,} bytes, more than {most} times its size")
