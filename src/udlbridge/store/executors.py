"""What gives tasks to other threads and processes: anything with `submit` like `concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from udlbridge.errors import OptionError
from udlbridge.options import brief

ANSWER = 10.0
"""Seconds in which a Dask scheduler answers, or counts as silent."""


def checked_executor(executor: Any) -> Any:
    """`executor`, if tasks can be given to it.

    Raises:
        OptionError: it has no `submit`, or its processes are forks of this one, which has threads: they would hang.
    """
    if not callable(getattr(executor, "submit", None)):
        raise OptionError(
            f"executor={brief(executor)}",
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
    def given(self) -> Any:
        """The executor that it was made of."""
        return self._given

    @property
    def in_this_process(self) -> bool:
        """Whether its workers are known to be threads of this process, so that nothing has to be pickled."""
        return isinstance(self._given, ThreadPoolExecutor)

    @property
    def _is_dask(self) -> bool:
        return type(self._executor).__module__.partition(".")[0] == "distributed"

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """A future of a task. To Dask it is a new one each time, though its arguments are those of one that failed."""
        return self._executor.submit(function, *args, **({"pure": False} if self._is_dask else {}))

    def drop(self, future: Any) -> None:
        """Have no more need of a task. To cancel it, a Dask client would wait, for ever where its loop has stopped."""
        if self._is_dask:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                future.release()
        else:
            future.cancel()

    def trouble(self) -> tuple[str, bool] | None:
        """What keeps every task from ending, and whether for good; None where nothing is known to.

        A pool ends the futures of what it lost. Those of Dask stay pending without a worker, and may do so once the
        client is closed or its connection is.
        """
        if not self._is_dask:
            return None
        client = self._executor
        if client.status in ("closing", "closed"):
            return "the Dask client is closed, by its owner or since its scheduler is gone", True
        try:
            threads = client.nthreads(callback_timeout=ANSWER)
            hung_up = client.scheduler_comm.comm.closed()
        except Exception as error:  # what a connection raises that breaks depends on when, and on its kind
            return f"the Dask scheduler does not answer ({type(error).__name__}: {error})", False
        if hung_up:
            return "the Dask scheduler has closed its connection to this client", False
        return None if threads else ("the Dask cluster has no workers", False)

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
