"""Writing tiles while the next are computed."""

from __future__ import annotations

import queue
import threading
from typing import Any, Protocol

import numpy as np

from udlbridge.kernels.tiling import Tile

QUEUE = 2
"""Tiles that may wait to be written while the next are computed; `planning.TILE_BUFFERS` counts them."""


class TileTarget(Protocol):
    """Where tiles are written: a store, or drafts of its tiles."""

    def write_tile(self, tile: Tile, block: np.ndarray) -> float:
        """Write one; returns the largest relative error of its storage."""

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes that the tile that was written last takes on the disk."""


class TileWriter:
    """Writes tiles in a thread of its own, so that the disk and the engine work at the same time.

    `error` is the largest error of storage so far, `written` the bytes that are on disk.
    """

    def __init__(self, target: TileTarget) -> None:
        self._target = target
        self._queue: queue.Queue[tuple[Tile, np.ndarray] | None] = queue.Queue(maxsize=QUEUE - 1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="udlbridge-writer", daemon=True)
        self.error = 0.0
        self.written = 0

    def __enter__(self) -> TileWriter:
        self._thread.start()
        return self

    def put(self, tile: Tile, block: np.ndarray) -> None:
        """Hand a tile over; waits while the queue is full. Raises what the writing raised."""
        if self._failure is not None:
            raise self._failure
        self._queue.put((tile, block))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._queue.put(None)  # what was handed over is written, also after Ctrl-C
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue  # drain, so that the other side does not wait for ever
            try:
                self.error = max(self.error, self._target.write_tile(*item))
                self.written += self._target.tile_bytes(item[0])
            except BaseException as failure:  # handed to the computing thread, whatever it is
                self._failure = failure
