"""The one thread of this process in which Julia is called.

A collection of Julia's waits until every thread that Julia knows has come to a point where it may happen, and the
thread that started Julia comes to none while it runs Python: a collection that another thread reaches never ends, at
100 % of a core. So this library starts Julia in a thread of its own, and sends there whatever it wants of Julia; what
is made there is used and freed there alone. While that thread has nothing to do it tells Julia so, and then others may
collect: those who import juliacall themselves, later and in another thread, can call Julia.

Where juliacall was imported first, Julia belongs to the thread that imported it, which is not ours to occupy: this
library then calls Julia from that thread alone, and refuses calls from any other.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from udlbridge.backends.julia import runtime
from udlbridge.backends.julia.queued import CallThread, Job
from udlbridge.errors import BackendError

T = TypeVar("T")

STACK_BYTES = 2**26
"""Of the thread, at least: Julia counts on what a main thread has, and other threads have less on some systems."""


class Owner(ABC):
    """Whoever may call Julia here."""

    @abstractmethod
    def run(self, function: Callable[[], T]) -> T:
        """What the function returns or raises, called where Julia may be called."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Called between two calls of Julia: raises KeyboardInterrupt if the caller has stopped waiting."""


class JuliaThread(CallThread, Owner):
    """A thread of the library's own; one call after the other, in the order in which they come."""

    def __init__(self) -> None:
        super().__init__("udlbridge-julia", max(STACK_BYTES, _stack_limit()))

    def checkpoint(self) -> None:
        """See `Owner`."""
        if self.cancelled():
            raise KeyboardInterrupt

    def _left(self, job: Job) -> None:
        # The work may write into the caller's memory: it ends first. Another Ctrl-C leaves without it.
        job.wait()

    def _idle(self) -> AbstractContextManager[None]:
        return runtime.parked()


class Guest(Owner):
    """Julia belongs to the thread that imported juliacall: calls are made in it, and refused in others."""

    def __init__(self) -> None:
        self._thread: int | None = None

    def run(self, function: Callable[[], T]) -> T:
        """Calls it.

        Raises:
            BackendError: in any other thread than Julia's.
        """
        here = threading.get_ident()
        if self._thread is None and runtime.in_first_thread():
            self._thread = here
        if self._thread != here:
            raise BackendError(
                "juliacall was imported before this library started Julia, so that Julia belongs to the thread that "
                f"did so, and this is another one ({threading.current_thread().name}), in which Julia may hang",
                allowed="calls from the thread that imported juliacall",
                remedy='call from there, or call ub.backends.get("julia") before the first import of juliacall',
            )
        return function()

    def checkpoint(self) -> None:
        """Python raises it in this thread by itself, if it is the main one."""


def run(function: Callable[[], T]) -> T:
    """What the function returns or raises, called in the thread in which Julia may be called.

    Raises:
        BackendError: there is none but the one that imported juliacall, and this is another.
        JuliaUnavailable: this process was forked after Julia had started.
    """
    runtime.check_not_forked()
    return owner().run(function)


def owner() -> Owner:
    """Whoever may call Julia here, found or made when it is first asked for."""
    with _held.lock:
        if _held.owner is None:
            _held.owner = Guest() if "juliacall" in sys.modules else JuliaThread()
        return _held.owner


class _Held:
    """The owner of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: Owner | None = None

    def forget(self) -> None:
        """In a forked child, which has the thread that forked and no other."""
        self.__init__()  # type: ignore[misc]


_held = _Held()
runtime.after_fork(_held.forget)


def _stack_limit() -> int:
    """What Julia takes a main thread's stack to be, where the system says it."""
    if os.name == "nt":
        return 0
    import resource

    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return 0 if limit == resource.RLIM_INFINITY or limit > 2**30 else 2 * limit
