"""Where Julia runs, and how calls get there."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any

import numpy as np

from udlbridge import config
from udlbridge.backends.julia import owner, runtime
from udlbridge.backends.julia.host import Host
from udlbridge.backends.julia.service import Service

DEFAULT_PLACE = "process"
"""Where Julia runs where the environment does not say."""


class ThreadHost(Host):
    """The thread of this process in which Julia may be called."""

    def __init__(self) -> None:
        self._unused: deque[int] = deque()
        here = owner.owner()
        self._service = owner.run(lambda: Service(here.checkpoint))

    def call(self, method: str, *args: Any) -> Any:
        """See `Host`."""
        return owner.run(lambda: self._call(method, args))

    def call_into(self, out: np.ndarray, method: str, *args: Any) -> None:
        """See `Host`."""
        self.call(method, *args, out)

    def forget(self, number: int) -> None:
        """See `Host`. What is not used any more goes with the next call."""
        self._unused.append(number)

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        while self._unused:
            self._service.forget([self._unused.popleft()])
        return self._service.call(method, *args)


def host() -> Host:
    """Where Julia runs for this process, unless it is asked about an object of this process's own Julia.

    Where juliacall was imported by someone else, there is a Julia here already, and no other is started for nothing.

    Raises:
        ConfigError: `UDLBRIDGE_JULIA` names no such place.
    """
    if (config.julia_place() or ("inprocess" if "juliacall" in sys.modules else DEFAULT_PLACE)) == "inprocess":
        return in_process()
    with _process.lock:
        if _process.apart is None:
            from udlbridge.backends.julia.process.client import ProcessHost

            _process.apart = ProcessHost()
        return _process.apart


def in_process() -> ThreadHost:
    """The host in this process: one, which is made at the first call."""
    with _process.lock:
        if _process.host is None:
            _process.host = ThreadHost()
        return _process.host


class _Process:
    """The hosts of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.host: ThreadHost | None = None
        self.apart: Host | None = None

    def forget(self) -> None:
        """In a forked child, where another thread than the one that forked may have held the lock."""
        apart = self.apart
        self.__init__()  # type: ignore[misc]
        self.apart = apart  # it knows what to do


_process = _Process()
runtime.after_fork(_process.forget)
