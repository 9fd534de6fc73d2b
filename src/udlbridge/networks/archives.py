"""How much a ZIP archive of arrays unpacks to, before anything is unpacked: .npz files, and PyTorch's."""

from __future__ import annotations

import zipfile
from pathlib import Path

from udlbridge.errors import UDLBridgeError
from udlbridge.options import show_bytes

PACKED = 64
"""How many times its size an .npz file may unpack to. Weights and samples pack hardly at all, pruned weights and padded
tokens tenfold; zeros a thousandfold."""

HARMLESS = 1 << 28
"""Bytes that no machine lacks: an archive may unpack to so many, however small it is, as one of zeros does."""


def check_archive(path: Path, error: type[UDLBridgeError], most: int = PACKED, harmless: int = HARMLESS) -> None:
    """Refuse an archive that unpacks to far more than it is; a file that is not an archive is left to its reader.

    The sizes are those that the archive declares, and readers unpack no more than these.

    Args:
        path: the file.
        error: the class of what is raised.
        most: how many times its own size it may unpack to.
        harmless: bytes that it may unpack to in any case.

    Raises:
        error: it is more.
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as damage:
        raise ValueError(f"it is a damaged archive ({damage})") from damage
    if unpacked > max(most * size, harmless):
        plain = "as torch.save writes it" if harmless == 0 else "numpy.savez(path, ...), not numpy.savez_compressed"
        raise error(
            f"{path} is packed: it unpacks from {show_bytes(size)} to {show_bytes(unpacked)}, {unpacked / size:,.0f} "
            "times its size, as files do that are made to fill a memory",
            allowed=f"{most} times its size" + (f", or {show_bytes(harmless)}" if harmless else "") + ", at most",
            remedy=f"where it comes from you, save it unpacked: {plain}",
        )
