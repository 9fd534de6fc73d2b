"""Where Julia runs, and how calls get there."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

from udlbridge.backends.julia import owner, runtime
from udlbridge.backends.julia.service import Service


class Host(ABC):
    """A place in which a `Service` takes calls, one after the other."""

    @abstractmethod
    def call(self, method: str, *args: Any) -> Any:
        """What the method of the service returns or raises."""

    @abstractmethod
    def forget(self, number: int) -> None:
        """The caller will not ask for this again. It may be called at any time, in any thread, and does not wait."""


class Held:
    """What the service of a host holds for a caller: factors, a training. It goes there when nobody holds it here."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        weakref.finalize(self, host.forget, number).atexit = False  # then all of it goes


class ThreadHost(Host):
    """The thread of this process in which Julia may be called."""

    def __init__(self) -> None:
        self._unused: deque[int] = deque()
        here = owner.owner()
        self._service = owner.run(lambda: Service(here.checkpoint))

    def call(self, method: str, *args: Any) -> Any:
        """See `Host`."""
        return owner.run(lambda: self._call(method, args))

    def forget(self, number: int) -> None:
        """See `Host`. What is not used any more goes with the next call."""
        self._unused.append(number)

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        while self._unused:
            self._service.forget([self._unused.popleft()])
        return self._service.call(method, *args)


def in_process() -> ThreadHost:
    """The host in this process: one, which is made at the first call."""
    with _process.lock:
        if _process.host is None:
            _process.host = ThreadHost()
        return _process.host


class _Process:
    """The host of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.host: ThreadHost | None = None

    def forget(self) -> None:
        """In a forked child, where another thread than the one that forked may have held the lock."""
        self.__init__()  # type: ignore[misc]


_process = _Process()
runtime.after_fork(_process.forget)
