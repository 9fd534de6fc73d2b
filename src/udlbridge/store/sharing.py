"""Sharing out the tiles of a store to the workers of an executor, and giving what they wrote its place.

The coordinator alone holds the lock, changes the manifest and records places. A tile gets its place once, when its task
has been heard of; tasks whose worker died are given out anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.errors import ConversionError
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.kernels.tiling import Tile
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.progress import Advance
from udlbridge.store.executors import Crew, checked_executor
from udlbridge.store.tasks import Tasks
from udlbridge.store.workers import Work, compute_tiles, lent
from udlbridge.store.writing import WritableStore

LARGE_TASK, SMALL_TASK = 1e11, 2e9
"""Operations of a task, at most and, if there are so many left, at least: a core takes seconds for the one, and for the
other more than what handing it out costs."""

SHARES = 16
"""A task is at most this part of what is left, so that workers end at about the same time."""


@dataclass(frozen=True)
class Done:
    """What writing all tiles took: bytes, the largest error of storage, the most memory of a worker, lost tasks."""

    written: int = 0
    error: float = 0.0
    peak: int = 0
    lost: int = 0


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
            or the store is not where they see it.
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
                return _placed(store, crew, work, plan, todo, advance)
    finally:
        crew.close()
        with contextlib.suppress(OSError):
            store._files.clear_drafts()


def _placed(store: WritableStore, crew: Crew, work: Work, plan: Plan, todo: list[Tile], advance: Advance) -> Done:
    """Give out the tiles as tasks, and place what comes back."""
    done = Done()
    given = Tasks(
        crew,
        compute_tiles,
        ((work, tiles) for tiles in tasks(todo, plan)),
        f"go on with {store._resumption}: finished tiles are kept",
    )
    per_entry = plan.flops / max(plan.grid.pairs, 1)
    with contextlib.closing(given.as_they_end()) as ended:
        for finished in ended:
            store.place_tiles(finished.drafts)
            for draft in finished.drafts:
                advance(prod(draft.tile.shape) * per_entry, draft.size)
            done = Done(
                written=done.written + sum(draft.size for draft in finished.drafts),
                error=max(done.error, *(draft.error for draft in finished.drafts)),
                peak=max(done.peak, finished.peak),
            )
    return replace(done, lost=given.lost)


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
    with store._disk():
        name = store._files.draft("network", memoryview(content))
    try:
        yield name, hashlib.sha256(content).hexdigest()
    finally:
        with contextlib.suppress(OSError):  # the next that writes to the store removes it
            store._files.remove(name)
