"""Keeping what torch's exporter prints of its own workings from a user, whom an error tells what is wrong."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

LOGGER = "torch.fx.experimental.symbolic_shapes"
"""Who reports what the exporter could not find out."""


class _OthersAlone:
    """Standard error for all threads but the one that made it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._own = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write what another thread writes."""
        return len(text) if threading.get_ident() == self._own else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that this thread prints to standard error, or torch reports for it, is shown within it."""
    own, logger = threading.get_ident(), logging.getLogger(LOGGER)

    def others(record: logging.LogRecord) -> bool:
        return record.thread != own

    logger.addFilter(others)
    try:
        with redirect_stderr(_OthersAlone(sys.stderr)):
            yield
    finally:
        logger.removeFilter(others)
