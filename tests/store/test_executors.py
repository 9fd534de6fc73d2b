"""Tiles computed by the workers of an executor: the same bytes as without, whatever happens to the workers."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from small_stores import Losing, X, assert_same_bytes, processes, store_of, tile_files
from udlbridge import errors
from udlbridge.store import sharing, workers, writing

pytestmark = pytest.mark.usefixtures("small_tiles", "small_tasks")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with processes() as made:
        yield made


@pytest.mark.parametrize(
    "options",
    [{}, {"outputs": "full"}, {"outputs": 1, "storage": "float16"}, {"backend": "torch", "threads": 1}],
    ids=["trace", "full", "narrow", "torch"],
)
@pytest.mark.parametrize("kind", ["processes", "threads"])
@pytest.mark.costly("torch-processes")
def test_the_same_bytes(tmp_path: Path, pool: ProcessPoolExecutor, kind: str, options: dict[str, Any]) -> None:
    alone = store_of(tmp_path / "alone.zarr", n=60, **options)
    with ThreadPoolExecutor(3) as threads:
        executor = pool if kind == "processes" else threads
        shared = store_of(tmp_path / "shared.zarr", n=60, executor=executor, **options)
    assert_same_bytes(shared, alone)
    assert shared.manifest["storage_error"] == alone.manifest["storage_error"]
    run = shared.manifest["actual"][0]
    assert (run["tiles"], run["bytes_written"], run["lost"]) == (36, shared.stored_bytes(), 0)
    assert run["executor"] == type(executor).__name__
    assert workers._desks == {}  # what threads of this process held was given back


@pytest.mark.slow
def test_a_module_goes_by_pickle(tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    from torch import nn

    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    alone = ub.compute_kernel(module, X, tmp_path / "alone.zarr", threads=1)
    shared = ub.compute_kernel(module, X, tmp_path / "shared.zarr", threads=1, executor=pool)
    assert tile_files(shared.path) == tile_files(alone.path)
    assert not [name for name in os.listdir(shared.path) if "network" in name]


def test_a_module_that_pickle_refuses(tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    from torch import nn

    class Local(nn.Sequential):
        pass

    module = Local(nn.Linear(5, 2)).double()
    with pytest.raises(errors.ConversionError, match=r"cannot be pickled.*ThreadPoolExecutor"):
        ub.compute_kernel(module, X, tmp_path / "K.zarr", executor=pool)
    with ThreadPoolExecutor(2) as threads:
        assert ub.compute_kernel(module, X, tmp_path / "K.zarr", executor=threads, resume=True).complete


@pytest.mark.parametrize("executor", [3, "processes", object()])
def test_what_takes_no_tasks(tmp_path: Path, untyped: None, executor: object) -> None:
    with pytest.raises(errors.OptionError, match=r"executor=.*submit"):
        store_of(tmp_path / "K.zarr", executor=executor)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_processes_that_fork_are_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(1, context) as forking,
        pytest.raises(errors.OptionError, match=r"get_context\(\"spawn\"\)"),
    ):
        store_of(tmp_path / "K.zarr", executor=forking)


def test_an_executor_that_was_shut_down(tmp_path: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(errors.StoreError, match=r"takes no tasks .*shutdown.*--resume"):
        store_of(tmp_path / "K.zarr", executor=executor)
    assert store_of(tmp_path / "K.zarr", resume=True).verify().ok


# --- workers that die ---


def test_lost_tasks_are_given_out_anew(tmp_path: Path) -> None:
    alone = store_of(tmp_path / "alone.zarr", n=60)
    shared = store_of(tmp_path / "shared.zarr", n=60, executor=Losing({1, 3, 4, 9}))
    assert_same_bytes(shared, alone)
    assert shared.manifest["actual"][0]["lost"] == 4


def test_a_task_whose_workers_always_die(tmp_path: Path) -> None:
    executor = Losing(set(range(2, 10_000)))
    with pytest.raises(errors.StoreError, match=r"lost 4 times .*worker is gone.*finished tiles are kept") as caught:
        store_of(tmp_path / "K.zarr", n=60, executor=executor)
    assert isinstance(caught.value.__cause__, ConnectionError)
    kept = len(tile_files(tmp_path / "K.zarr")) - 1
    assert kept > 0
    done = store_of(tmp_path / "K.zarr", n=60, resume=True)
    assert done.manifest["actual"][0]["tiles"] == 36 - kept


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_of_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = store_of(tmp_path / "alone.zarr", n=60)
    place, placed = writing.WritableStore.place_tiles, 0
    with processes() as killed:

        def placing(self: writing.WritableStore, drafts: Sequence[writing.Draft]) -> None:
            nonlocal placed
            placed += 1
            if placed == 5:
                os.kill(next(iter(killed._processes)), signal.SIGKILL)
            place(self, drafts)

        monkeypatch.setattr(writing.WritableStore, "place_tiles", placing)
        shared = store_of(tmp_path / "shared.zarr", n=60, executor=killed)
    assert_same_bytes(shared, alone)


def test_processes_that_die_at_once(tmp_path: Path) -> None:
    died = pytest.raises(errors.StoreError, match="workers died 5 times with no task finished")
    with processes(1, initializer=os._exit, initargs=(1,)) as dying, died:
        store_of(tmp_path / "K.zarr", executor=dying)


# --- interruptions and errors ---


def test_ctrl_c_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: ProcessPoolExecutor) -> None:
    alone = store_of(tmp_path / "alone.zarr", n=60)
    place, placed = writing.WritableStore.place_tiles, 0

    def placing(self: writing.WritableStore, drafts: Sequence[writing.Draft]) -> None:
        nonlocal placed
        if placed >= 6:
            raise KeyboardInterrupt
        placed += len(drafts)
        place(self, drafts)

    with monkeypatch.context() as patch:
        patch.setattr(writing.WritableStore, "place_tiles", placing)
        with pytest.raises(KeyboardInterrupt):
            store_of(tmp_path / "K.zarr", n=60, executor=pool)
    assert len(ub.KernelStore(tmp_path / "K.zarr").unfinished()) == 36 - placed
    resumed = store_of(tmp_path / "K.zarr", n=60, executor=pool, resume=True)
    assert resumed.manifest["actual"][0]["tiles"] == 36 - placed
    assert_same_bytes(resumed, alone)


def test_the_error_of_a_task_is_raised(tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    model = ub.Model([ub.Dense(5, 3), ub.Dense(3, 1)])
    x = np.ones((20, 5), "float32")
    x[13] *= 3e38
    with pytest.raises(errors.NumericalError, match="finite"):
        ub.compute_kernel(model, x, tmp_path / "K.zarr", backend="reference", executor=pool)


def test_drafts_do_not_count(tmp_path: Path) -> None:
    """What a worker wrote whose task was never heard of: no reader sees it, and the next writer clears it away."""
    store = store_of(tmp_path / "K.zarr")
    tile = next(iter(store.grid.tiles()))
    before = tile_files(store.path)
    draft = writing.WritableStore(store.path).draft_tile(tile, np.zeros(tile.shape))
    assert set(tile_files(store.path)) - set(before) == {draft.name}
    assert ub.KernelStore(store.path).verify().ok
    assert store.repair() == 0
    assert tile_files(store.path) == before


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"store": "another", "token": "away"}, errors.StoreError, "is another store for a worker"),
        ({"path": Path("/nowhere/K.zarr"), "token": "away"}, errors.StoreError, "no such folder"),
        ({"versions": {"numpy": "1"}}, errors.BackendError, r"'numpy': '1'.*same versions"),
    ],
    ids=["another store", "no store", "versions"],
)
def test_workers_elsewhere(tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    """They have another disk, or another engine."""

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, attempted: Any, function: Any, work: Any, *args: Any) -> Any:  # type: ignore[override]
            return super().submit(attempted, function, dataclasses.replace(work, **changes), *args)

    with Elsewhere(1) as threads, pytest.raises(error, match=words):
        store_of(tmp_path / "K.zarr", executor=threads)


def test_idle_workers_give_back_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.05)
    store = store_of(tmp_path / "K.zarr")
    work = workers.Work(
        token="away", path=store.path, store=store.manifest["id"], network=None,
        versions=store.manifest["versions"], backend="reference", memory=10**9, threads=None, device="cpu",
        cached_blocks=2,
    )  # fmt: skip
    found = workers.compute_tiles(work, tuple(store.grid.tiles())[:2])
    assert isinstance(found, workers.Finished)
    assert len(found.drafts) == 2
    for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
        timer.join(5.0)
    assert workers._desks == {}


def test_small_kernels_are_one_task_and_large_ones_end_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # tiles and tasks as they are
    model = ub.models.three_layer_sigmoid()
    large = ub.plan(model, 20_000, outputs=0, calibrate=False)
    todo = list(large.grid.tiles())
    shares = list(sharing.tasks(todo, large))
    assert [tile for share in shares for tile in share] == todo
    assert [len(share) for share in shares[-5:]] == [1] * 5
    assert 2 <= max(len(share) for share in shares) <= len(todo) / sharing.SHARES + 1
    small = ub.plan(ub.Model([ub.Dense(5, 3)]), 1500, memory="100MB", calibrate=False)
    assert small.grid.count > 1
    assert len(list(sharing.tasks(list(small.grid.tiles()), small))) == 1
