"""Memory that two processes see: without a name that could be left behind, and not bounded by /dev/shm."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


class Block:
    """A stretch of memory that this process made, or was given by another.

    On Linux it belongs to no file system, on other systems of POSIX to a file without a name. It goes when no process
    holds it, however these end.

    Args:
        size: bytes, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size, self._handle = size, _made(size)
        self.array = _mapped(self._handle, size)

    def give(self, connection: Connection) -> None:
        """Let the process at the other end have it too; what it calls is `taken`."""
        if os.name == "nt":
            connection.send_bytes(self._handle.encode())
        else:
            reduction.send_handle(connection, self._handle, None)  # the last argument is for Windows

    @classmethod
    def taken(cls, connection: Connection, size: int) -> Block:
        """The block that the process at the other end gives."""
        block = cls.__new__(cls)
        if os.name == "nt":
            block._handle = connection.recv_bytes().decode()
        else:
            block._handle = reduction.recv_handle(connection)
        block.size, block.array = size, _mapped(block._handle, size)
        return block

    def __del__(self) -> None:
        # Of the memory itself, what looks at it decides.
        if os.name != "nt":
            with contextlib.suppress(AttributeError, OSError):
                os.close(self._handle)


def _made(size: int) -> Any:
    """A descriptor, or on Windows a name."""
    if os.name == "nt":
        return f"udlbridge-{secrets.token_hex(16)}"
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("udlbridge")
        os.ftruncate(descriptor, size)
        return descriptor
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _mapped(handle: Any, size: int) -> np.ndarray:
    """The memory as bytes."""
    if sys.platform == "win32":
        return np.frombuffer(mmap.mmap(-1, size, tagname=handle), dtype=np.uint8)
    return np.frombuffer(mmap.mmap(handle, size), dtype=np.uint8)
