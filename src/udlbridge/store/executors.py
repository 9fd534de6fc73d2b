"""What gives tasks to other threads and processes: anything with `submit` like `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from udlbridge.errors import OptionError


def checked_executor(executor: Any) -> Any:
    """`executor`, if tasks can be given to it.

    Raises:
        OptionError: it has no `submit`, or its processes are forks of this one, which has threads: they would hang.
    """
    if not callable(getattr(executor, "submit", None)):
        raise OptionError(
            f"executor={executor!r}",
            allowed="concurrent.futures.ProcessPoolExecutor, ThreadPoolExecutor, or anything else with their submit",
            remedy="leave it out to compute in this process",
        )
    context = getattr(executor, "_mp_context", None)
    if isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork":
        raise OptionError(
            "a ProcessPoolExecutor that forks: a fork of a process with threads, as engines have, may hang for ever",
            allowed="processes that are started anew",
            remedy='make it with mp_context=multiprocessing.get_context("spawn")',
        )
    return executor


class Crew:
    """An executor, and those that took its place: a pool of processes takes no more tasks once one of them has died.

    `breaks`: how often a new one had to take the place.
    """

    def __init__(self, executor: Any) -> None:
        self._given = self._executor = executor
        self.breaks = 0

    @property
    def in_this_process(self) -> bool:
        """Whether its workers are known to be threads of this process, so that nothing has to be pickled."""
        return isinstance(self._given, ThreadPoolExecutor)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """A future of a task."""
        return self._executor.submit(function, *args)

    def mend(self, error: BrokenExecutor) -> None:
        """Let a new pool of the same kind take the place of a broken one.

        Raises:
            BrokenExecutor: what it broke of, where how it was made is not known.
        """
        broken = self._executor
        if not isinstance(broken, ProcessPoolExecutor):
            raise error
        self.close()
        self._executor = ProcessPoolExecutor(
            max_workers=broken._max_workers,  # type: ignore[attr-defined]
            mp_context=broken._mp_context,
            initializer=broken._initializer,
            initargs=broken._initargs,
        )
        self.breaks += 1

    def close(self) -> None:
        """End what took the place of the given executor; that one is its owner's."""
        if self._executor is not self._given:
            self._executor.shutdown(wait=False, cancel_futures=True)
