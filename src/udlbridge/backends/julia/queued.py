"""A thread of its own for calls that have to be made one after the other, in one place."""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.2
"""How often a caller that waits looks for signals: where the system gave one to another thread, nothing wakes it."""


class CallThread:
    """A thread that makes one call after the other, in the order in which they come.

    Args:
        name: of the thread.
        stack_bytes: of its stack, at least; 0 leaves it to the system.
    """

    def __init__(self, name: str, stack_bytes: int = 0) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._current: Job | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        before = threading.stack_size(stack_bytes)
        try:
            self._thread.start()
        finally:
            threading.stack_size(before)

    def run(self, function: Callable[[], T]) -> T:
        """What the function returns or raises, called in the thread. Ctrl-C stops waiting for a turn at once."""
        if threading.current_thread() is self._thread:
            return function()  # called back by what runs there: waiting for itself would never end
        job = Job(function)
        self._jobs.put(job)
        try:
            job.wait()
        except BaseException:
            if job.cancel():
                self._left(job)
            raise
        return job.result()

    def cancelled(self) -> bool:
        """Whether the caller of what runs now has stopped waiting; asked in the thread."""
        return self._current is not None and self._current.cancelled

    def _left(self, job: Job) -> None:
        """The caller has stopped waiting for a call that had begun."""

    def _idle(self) -> AbstractContextManager[None]:
        """Around the waiting for the next call."""
        return contextlib.nullcontext()

    def _work(self) -> None:
        while True:
            with self._idle():
                job = self._jobs.get()
            self._current = job
            job.run()
            self._current = None
            del job  # what it holds goes now, and not when the next one comes


class Job:
    """A call that waits for its turn, is under way, or is done."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function: Callable[[], Any] | None = function
        self._lock = threading.Lock()
        self._begun = False
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self.cancelled = False

    def run(self) -> None:
        """Make the call, unless nobody waits for it."""
        with self._lock:
            if self.cancelled:
                return
            self._begun = True
        function, self._function = self._function, None
        assert function is not None
        try:
            self._value = function()
        except BaseException as error:
            # Whoever catches it may drop it in any thread, and what its frames hold of Julia with it.
            traceback.clear_frames(error.__traceback__)
            self._error = error
        del function
        self._done.set()

    def wait(self) -> None:
        """Until the call is done."""
        while not self._done.wait(POLL_SECONDS):
            pass

    def cancel(self) -> bool:
        """Let it stop at the next checkpoint, or never begin; whether it has begun."""
        with self._lock:
            self.cancelled = True
            return self._begun

    def result(self) -> Any:
        """What the call returned or raised, once."""
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # else the error would hold this frame, and this frame the error
