"""Tasks for the workers of an executor: given out, and given out anew where a worker is lost with them."""

from __future__ import annotations

import queue
import time
from asyncio import CancelledError as AsyncCancelled
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from udlbridge.errors import BackendError, StoreError, UDLBridgeError
from udlbridge.store.executors import Crew
from udlbridge.texts import counted

OUTSTANDING = 1024
"""Tasks that are handed out at a time, more than there will be workers."""

ATTEMPTS = 4
"""How often a task is given out whose workers die, and how often a pool breaks with nothing done in between."""

LOOK = 5.0
"""Seconds without news after which the coordinator looks whether there can be any."""

PATIENCE = 600.0
"""Seconds for which a cluster may have no workers, or a scheduler that is silent, before the coordinator ends: workers
that are started by a batch system come late."""

T = TypeVar("T")


@dataclass(frozen=True)
class Returned:
    """What a task gives. Anything else that comes of it is what an executor makes of a worker that died."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """What went wrong in a task. An exception of the task itself would look like that of a worker that died."""

    error: Exception


def attempted(function: Callable[..., Any], *arguments: Any) -> Returned | Failed:
    """What a worker does of a task."""
    try:
        return Returned(function(*arguments))
    except Exception as error:
        return Failed(_portable(error))


def _portable(error: Exception) -> Exception:
    """The error as another process can have it: ours go by pickle, whatever they hold of others is said in words."""
    if not isinstance(error, UDLBridgeError | MemoryError):
        return BackendError(f"a worker failed ({type(error).__name__}: {error})", remedy="see the log of the worker")
    return error


@dataclass
class _Task:
    """Arguments for one worker. `attempts`: how often it was given out; `pool`: to which pool, of those that broke."""

    index: int
    arguments: tuple[Any, ...]
    attempts: int = 0
    pool: int = 0


class Tasks(Generic[T]):
    """One function of many arguments, computed by a crew. `lost` counts tasks whose worker died.

    Args:
        crew: whose workers compute.
        function: of the arguments of one task; other processes find it by its name.
        arguments: those of each task, in the order in which they are given out; they are made when their turn comes.
        remedy: what goes on with the work where no task can end any more.

    Raises:
        StoreError: while they are computed: tasks were lost with their workers again and again, or none can end any
            more since a cluster is gone.
        UDLBridgeError: what a task raised.
    """

    def __init__(
        self, crew: Crew, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], remedy: str
    ) -> None:
        self._crew, self._function, self._remedy = crew, function, remedy
        self._fresh = (_Task(index, one) for index, one in enumerate(arguments))
        self._again: deque[_Task] = deque()
        self._heard: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._pending: dict[int, tuple[_Task, Any]] = {}
        self._number = 0
        self._breaks_in_a_row = 0
        self._troubled: float | None = None
        self.lost = 0

    def as_they_end(self) -> Generator[T, None, None]:
        """What the function gives, in no order. What kills its worker comes last, when all others are done."""
        for _, value in self._ended(OUTSTANDING, lost_first=False, kept={}):
            yield value

    def in_order(self, most: int) -> Generator[T, None, None]:
        """What the function gives, in the order of the arguments; at most `most` of it is there before its turn."""
        kept: dict[int, T] = {}
        turn = 0
        for index, value in self._ended(max(1, min(most, OUTSTANDING)), lost_first=True, kept=kept):
            kept[index] = value
            while turn in kept:
                yield kept.pop(turn)
                turn += 1

    def _ended(self, most: int, *, lost_first: bool, kept: dict[int, T]) -> Iterator[tuple[int, T]]:
        try:
            while True:
                while len(self._pending) + len(kept) < most and (task := self._next(lost_first)) is not None:
                    self._submit(task)
                if not self._pending:
                    return
                task, future = self._next_ended()
                outcome = self._outcome(future)
                if isinstance(outcome, Returned):
                    self._breaks_in_a_row, self._troubled = 0, None
                    yield task.index, outcome.value
                else:
                    self._lose(task, outcome)
                    self._again.append(task)
        finally:
            for _, future in self._pending.values():
                self._crew.drop(future)

    def _next(self, lost_first: bool) -> _Task | None:
        if lost_first and self._again:
            return self._again.popleft()
        fresh = next(self._fresh, None)
        return self._again.popleft() if fresh is None and self._again else fresh

    def _submit(self, task: _Task) -> None:
        number = self._number = self._number + 1
        while True:
            try:
                future = self._crew.submit(attempted, self._function, *task.arguments)
                future.add_done_callback(lambda _: self._heard.put(number))
                break
            except BrokenExecutor as error:
                self._mend(error)
            except Exception as error:  # a pool that was shut down raises a RuntimeError, a Dask client its own
                raise StoreError(
                    f"the executor takes no tasks ({error})",
                    allowed="one that was not shut down",
                    remedy=f"make another, and {self._remedy}",
                ) from error
        task.attempts, task.pool = task.attempts + 1, self._crew.breaks
        self._pending[number] = task, future

    def _next_ended(self) -> tuple[_Task, Any]:
        """The next task that has ended, and its future."""
        while True:
            try:
                number = self._heard.get(timeout=LOOK)
            except queue.Empty:
                self._look()
                continue
            if number in self._pending:  # not if a look has found it before its callback came
                return self._pending.pop(number)

    def _look(self) -> None:
        """After a silence: find futures that ended with no callback, and give up where none can end any more."""
        for number, (_, future) in self._pending.items():
            if future.done():
                self._heard.put(number)
        trouble, now = self._crew.trouble(), time.monotonic()
        if trouble is None:
            self._troubled = None
            return
        what, for_good = trouble
        self._troubled = now if self._troubled is None else self._troubled
        if for_good or now - self._troubled >= PATIENCE:
            raise StoreError(
                what if for_good else f"{what}, for {now - self._troubled:.0f} seconds",
                allowed="a cluster that lives as long as the computation",
                remedy="see the logs of its scheduler and workers; connect to one that has workers, and "
                f"{self._remedy}",
            )

    def _outcome(self, future: Any) -> Returned | BaseException | None:
        """What a task that has ended gives; or what it was lost of, None where nobody says."""
        while True:
            try:
                failure: BaseException | None = future.exception(timeout=LOOK)
                outcome = future.result(timeout=LOOK) if failure is None else None
                break
            except TimeoutError:  # Dask: its worker died with the outcome, and another one computes it again
                self._look()
            except (Exception, CancelledError, AsyncCancelled) as error:
                return error
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome if isinstance(outcome, Returned) else failure

    def _lose(self, task: _Task, failure: BaseException | None) -> None:
        """Count a task whose worker died. A pool that broke loses all of its tasks, most of which are not to blame."""
        self.lost += 1
        if isinstance(failure, BrokenExecutor):
            task.attempts -= 1
            if task.pool == self._crew.breaks:
                self._mend(failure)
        elif task.attempts >= ATTEMPTS:
            raise self._given_up(f"a task was lost {counted(task.attempts, 'time')} with its worker", failure)

    def _mend(self, error: BrokenExecutor) -> None:
        self._breaks_in_a_row += 1
        if self._breaks_in_a_row > ATTEMPTS:
            raise self._given_up(f"workers died {counted(self._breaks_in_a_row, 'time')} with no task finished", error)
        try:
            self._crew.mend(error)
        except BrokenExecutor:
            raise self._given_up("the executor is broken", error) from error

    def _given_up(self, what: str, failure: BaseException | None) -> StoreError:
        error = StoreError(
            f"{what} ({type(failure).__name__}: {failure})",
            allowed="workers that live as long as a task takes, and can import udlbridge",
            remedy="see their logs: one that is killed for its memory needs a smaller memory=, or fewer beside it; "
            f"then {self._remedy}",
        )
        error.__cause__ = failure
        return error
