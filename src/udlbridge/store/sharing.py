"""Sharing out the tiles of a store to the workers of an executor, and giving what they wrote its place.

The coordinator alone holds the lock, changes the manifest and records places. A tile gets its place once, when its task
has been heard of; tasks whose worker died are given out anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import queue
import time
import uuid
from asyncio import CancelledError as AsyncCancelled
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.atomic import partial_of
from udlbridge.errors import ConversionError, StoreError
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.kernels.tiling import Tile
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.progress import Advance
from udlbridge.store.executors import Crew, checked_executor
from udlbridge.store.workers import Failed, Finished, Work, compute_tiles, lent
from udlbridge.store.writing import WritableStore

LARGE_TASK, SMALL_TASK = 1e11, 2e9
"""Operations of a task, at most and, if there are so many left, at least: a core takes seconds for the one, and for the
other more than what handing it out costs."""

SHARES = 16
"""A task is at most this part of what is left, so that workers end at about the same time."""

OUTSTANDING = 1024
"""Tasks that are handed out at a time, more than there will be workers."""

ATTEMPTS = 4
"""How often a task is given out whose workers die, and how often a pool breaks with nothing done in between."""

LOOK = 5.0
"""Seconds without news after which the coordinator looks whether there can be any."""

PATIENCE = 600.0
"""Seconds for which a cluster may have no workers, or a scheduler that is silent, before the coordinator ends: workers
that are started by a batch system come late."""


@dataclass(frozen=True)
class Done:
    """What writing all tiles took: bytes, the largest error of storage, the most memory of a worker, lost tasks."""

    written: int = 0
    error: float = 0.0
    peak: int = 0
    lost: int = 0


@dataclass
class _Task:
    """Tiles for one worker. `attempts`: how often it was given out; `pool`: to which pool, of those that broke."""

    tiles: tuple[Tile, ...]
    attempts: int = 0
    pool: int = 0


def share_out(
    store: WritableStore,
    request: KernelRequest,
    x: np.ndarray,
    plan: Plan,
    todo: list[Tile],
    executor: Any,
    advance: Advance,
) -> Done:
    """Let workers compute and write the tiles of `todo`.

    Raises:
        ConversionError: a network that the store does not hold cannot be pickled.
        StoreError: tasks were lost with their workers again and again, none can end any more since a cluster is gone,
            or the disk is not a shared one.
        UDLBridgeError: what a task raised.
    """
    crew = Crew(checked_executor(executor))
    work = Work(
        token=uuid.uuid4().hex, path=store.path.absolute(), store=store.manifest["id"], network=None,
        versions=backends.get(request.backend).versions(), backend=request.backend, memory=request.memory,
        threads=request.threads, device=request.device, cached_blocks=plan.cached_blocks,
    )  # fmt: skip
    try:
        with _handed_over(store, request.model, crew) as network:
            work = replace(work, network=network)
            with lent(work, request.model, x):
                return _Coordinator(store, crew, work, plan, advance).run(todo)
    finally:
        crew.close()
        with contextlib.suppress(OSError):
            store.clear_partial_files()


def tasks(todo: list[Tile], plan: Plan) -> Iterator[tuple[Tile, ...]]:
    """The tiles of `todo`, in their order, as tasks: several tiles where these are small, fewer towards the end."""
    costs = [prod(tile.shape) * plan.entry_flops + sum(tile.shape) * plan.sample_flops for tile in todo]
    left, own, tiles = sum(costs), 0.0, list[Tile]()
    for tile, cost in zip(todo, costs, strict=True):
        if tiles and own + cost > max(SMALL_TASK, min(LARGE_TASK, left / SHARES)):
            yield tuple(tiles)
            left, own, tiles = left - own, 0.0, []
        tiles.append(tile)
        own += cost
    if tiles:
        yield tuple(tiles)


class _Coordinator:
    """Gives out tasks, places what comes back, and counts what was lost."""

    def __init__(self, store: WritableStore, crew: Crew, work: Work, plan: Plan, advance: Advance) -> None:
        self._store, self._crew, self._work, self._plan, self._advance = store, crew, work, plan, advance
        self._heard: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._pending: dict[int, tuple[_Task, Any]] = {}
        self._number = 0
        self._breaks_in_a_row = 0
        self._troubled: float | None = None
        self._done = Done()

    def run(self, todo: list[Tile]) -> Done:
        """All of it."""
        waiting = deque(_Task(tiles) for tiles in tasks(todo, self._plan))
        try:
            while waiting or self._pending:
                while waiting and len(self._pending) < OUTSTANDING:
                    self._submit(waiting.popleft())
                task, future = self._next_ended()
                failure = self._taken(future)
                if failure is not None:
                    self._lost(task, failure)
                    waiting.append(task)
        finally:
            for _, future in self._pending.values():
                self._crew.drop(future)
        return self._done

    def _submit(self, task: _Task) -> None:
        number = self._number = self._number + 1
        while True:
            try:
                future = self._crew.submit(compute_tiles, self._work, task.tiles)
                future.add_done_callback(lambda _: self._heard.put(number))
                break
            except BrokenExecutor as error:
                self._mend(error)
            except Exception as error:  # a pool that was shut down raises a RuntimeError, a Dask client its own
                raise StoreError(
                    f"the executor takes no tasks ({error})",
                    allowed="one that was not shut down",
                    remedy=f"make another, and go on with {self._store._resumption}: finished tiles are kept",
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
                remedy="see the logs of its scheduler and workers; connect to one that has workers, and go on with "
                f"{self._store._resumption}: finished tiles are kept",
            )

    def _taken(self, future: Any) -> BaseException | None:
        """Place the tiles of a task that has ended; or what it was lost of."""
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
        if not isinstance(outcome, Finished):
            return failure
        for draft in outcome.drafts:
            self._store.place_tile(draft)
            self._advance(prod(draft.tile.shape) * self._plan.flops / max(self._plan.grid.pairs, 1), draft.size)
        self._breaks_in_a_row, self._troubled = 0, None
        self._done = replace(
            self._done,
            written=self._done.written + sum(draft.size for draft in outcome.drafts),
            error=max(self._done.error, *(draft.error for draft in outcome.drafts)),
            peak=max(self._done.peak, outcome.peak),
        )
        return None

    def _lost(self, task: _Task, failure: BaseException) -> None:
        """Count a task whose worker died. A pool that broke loses all of its tasks, most of which are not to blame."""
        self._done = replace(self._done, lost=self._done.lost + 1)
        if isinstance(failure, BrokenExecutor):
            task.attempts -= 1
            if task.pool == self._crew.breaks:
                self._mend(failure)
        elif task.attempts >= ATTEMPTS:
            raise self._given_up(f"a task was lost {task.attempts} times with its worker", failure)

    def _mend(self, error: BrokenExecutor) -> None:
        self._breaks_in_a_row += 1
        if self._breaks_in_a_row > ATTEMPTS:
            raise self._given_up(f"workers died {self._breaks_in_a_row} times with no tile finished", error)
        try:
            self._crew.mend(error)
        except BrokenExecutor:
            raise self._given_up("the executor is broken", error) from error

    def _given_up(self, what: str, failure: BaseException) -> StoreError:
        error = StoreError(
            f"{what} ({type(failure).__name__}: {failure})",
            allowed="workers that live as long as a task takes, and can import udlbridge",
            remedy="see their logs: one that is killed for its memory needs a smaller memory=, or fewer beside it; "
            f"then go on with {self._store._resumption}: finished tiles are kept",
        )
        error.__cause__ = failure
        return error


@contextlib.contextmanager
def _handed_over(store: WritableStore, model: Any, crew: Crew) -> Iterator[tuple[str, str] | None]:
    """A network that the store does not hold, as a file in its folder that every worker reads once: name and SHA-256.

    Raises:
        ConversionError: it cannot be pickled.
    """
    if not isinstance(model, ForeignNetwork) or store.manifest.get("module") is None or crew.in_this_process:
        yield None
        return
    try:
        content = pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # somebody's own classes may raise anything
        raise ConversionError(
            f"a {model.name} for the workers of an executor, which cannot be pickled ({error})",
            allowed="a network that pickle takes: its classes and functions are defined at the top of a file",
            remedy="define them there, or compute with a ThreadPoolExecutor, or without an executor",
        ) from error
    path = partial_of(store.path / "network")
    path.write_bytes(content)
    try:
        yield path.name, hashlib.sha256(content).hexdigest()
    finally:
        path.unlink(missing_ok=True)
