"""Killing the workers of a Dask cluster while they compute the tiles of a store, at tiles drawn from a seed."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faults.campaigns import Outcome
from small_stores import assert_same_bytes, store_of
from udlbridge.kernels import planning
from udlbridge.store import sharing, writing

SAMPLES = 60
"""36 tiles of 8, a task each."""


def kill_workers(cases: int, seed: int) -> Outcome:
    """Kill one of two worker processes at a random tile of each computation; another takes its place.

    Nothing is lost and nothing there twice: the bytes are those of a computation without workers.
    """
    import dask
    import distributed

    generator = np.random.default_rng([seed, *b"workers"])
    found = Outcome()
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    # A worker is else given up for good that is not there 15 seconds after its death, or dies again in between.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with (
        patient,
        _many_tasks(),
        tempfile.TemporaryDirectory() as folder,
        cluster,
        distributed.Client(cluster) as client,
    ):
        alone = store_of(Path(folder) / "alone.zarr", n=SAMPLES)
        killed = set[int]()

        def kill() -> None:
            running = distributed.core.Status.running
            alive = [nanny.pid for nanny in cluster.workers.values() if nanny.status == running and nanny.pid]
            process = alive[generator.integers(len(alive))]
            killed.add(process)
            os.kill(process, signal.SIGKILL)

        for case in range(cases):
            client.wait_for_workers(2, timeout=300)
            try:
                with at_tile(int(generator.integers(alone.grid.count)), kill):
                    shared = store_of(Path(folder) / f"{case}.zarr", n=SAMPLES, executor=client)
                assert_same_bytes(shared, alone)
                assert shared.manifest["actual"][0]["tiles"] == alone.grid.count
                found.whole += 1
            except Exception as error:
                found.losses.append(f"worker {case}: {type(error).__name__}: {str(error)[:200]}")
            found.cases += 1
    if len(killed) < cases:
        found.losses.append(f"{len(killed)} workers were killed in {cases} computations")
    return found


@contextlib.contextmanager
def at_tile(at: int, then: Callable[[], object]) -> Iterator[None]:
    """Within it, something is done when the coordinator is about to place its tile number `at`."""
    place, placed = writing.WritableStore.place_tiles, 0

    def placing(self: writing.WritableStore, drafts: Sequence[writing.Draft]) -> None:
        nonlocal placed
        if placed <= at < placed + len(drafts):
            then()
        placed += len(drafts)
        place(self, drafts)

    with _set(writing.WritableStore, "place_tiles", placing):
        yield


@contextlib.contextmanager
def _many_tasks() -> Iterator[None]:
    """Small tiles, each a task of its own."""
    with _set(planning, "LARGEST_TILE", 8), _set(sharing, "SMALL_TASK", 0.0):
        yield


@contextlib.contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
