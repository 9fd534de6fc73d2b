"""The IDX file format of MNIST: big-endian header, then bytes.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np

from udlbridge.errors import DataError

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801


def parse(content: bytes, name: str) -> np.ndarray:
    """The array (uint8) in the bytes of an IDX file; `name` is for the error message.

    Raises:
        DataError: wrong magic number, or another length than the header says.
    """
    if len(content) < 8:
        raise DataError(f"{name} has {len(content)} bytes", allowed="a whole IDX file", remedy="get the file again")
    magic = struct.unpack(">I", content[:4])[0]
    if magic not in (IMAGES_MAGIC, LABELS_MAGIC):
        raise DataError(
            f"{name} begins with magic number 0x{magic:08x}",
            allowed=f"0x{IMAGES_MAGIC:08x} (images) or 0x{LABELS_MAGIC:08x} (labels)",
            remedy="get the file again: this is not an MNIST file",
        )
    axes = magic & 0xFF
    header = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:header]) if len(content) >= header else (0,)
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(
            f"{name} has {len(content):,} bytes, its header promises {expected:,}",
            allowed="a whole IDX file",
            remedy="get the file again: it is truncated or damaged",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file, unpacked if it is gzipped; of a longer one, no more than `limit` bytes are ever unpacked.

    Raises:
        DataError: if it cannot be read or unpacked, or has more than `limit` bytes.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            content = (gzip.GzipFile(fileobj=raw) if packed else raw).read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error})", remedy="get the file again, or mend its permissions"
        ) from error
    if len(content) > limit:
        raise DataError(
            f"{path} {'unpacks to' if packed else 'has'} more than {limit:,} bytes",
            allowed=f"at most {limit:,} bytes, the size of MNIST's file",
            remedy="get the file again: it is not MNIST's",
        )
    return content


def verified(content: bytes, sha256: str, name: str) -> bytes:
    """`content`, if it has this SHA-256.

    Raises:
        DataError: otherwise.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{name} has SHA-256 {found}", allowed=sha256, remedy="remove the file and get it again: it is not MNIST's"
        )
    return content
