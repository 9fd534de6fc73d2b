"""How much memory a piece of work takes, while it runs."""

from __future__ import annotations

import os
import threading
from typing import Any

import psutil

from udlbridge.backends.companions import companions

INTERVAL = 0.005
"""Seconds between two looks. The system's own record is of the process's whole life, and others may have reset it."""


class PeakMemory:
    """Watches the resident size of this process and of those that compute for it.

    `over_baseline` is the largest seen, minus that at the beginning. What two processes see counts twice.
    """

    def __init__(self) -> None:
        self._processes = {os.getpid(): psutil.Process()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="udlbridge-memory", daemon=True)
        self._baseline = self._peak = 0

    @property
    def over_baseline(self) -> int:
        """Bytes."""
        return self._peak - self._baseline

    def __enter__(self) -> PeakMemory:
        self._baseline = self._peak = self._size()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        self._peak = max(self._peak, self._size())

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._peak = max(self._peak, self._size())

    def _size(self) -> int:
        return sum(map(self._resident, (os.getpid(), *companions())))

    def _resident(self, pid: int) -> int:
        try:
            if pid not in self._processes:
                self._processes[pid] = psutil.Process(pid)
            return int(self._processes[pid].memory_info().rss)
        except psutil.Error:  # it has ended
            return 0
