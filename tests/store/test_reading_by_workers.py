"""A store whose tiles workers read: products, spectra, alignments and solutions are the same numbers."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import udlbridge as ub
from helpers import samples
from small_stores import MODEL, Losing, X, processes, store_of, tile_files, tile_path
from udlbridge import errors
from udlbridge.kernels import planning
from udlbridge.store import tasks

pytestmark = pytest.mark.usefixtures("small_tiles", "small_tasks")

N = 60
"""Eight block rows of tiles of 8."""

VECTORS = np.random.default_rng(3).standard_normal((N, 3))

LABELS = ub.label_kernel(np.eye(3)[np.arange(N) % 3])


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with processes() as made:
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> ub.KernelStore:
    return store_of(tmp_path / "K.zarr", n=N)


def assert_same_numbers(alone: ub.KernelStore, shared: ub.KernelStore) -> None:
    """Whatever takes products of a store, or its tiles, gives the same bits."""
    for vectors in (VECTORS, VECTORS[:, 0], VECTORS.astype(np.float32)):
        np.testing.assert_array_equal(shared @ vectors, alone @ vectors)
    options: dict[str, Any] = {"dense_limit": 0, "seed": 5, "progress": False}
    ends = [ub.spectrum(store, 4, **options) for store in (alone, shared)]
    np.testing.assert_array_equal(ends[1].eigenvalues, ends[0].eigenvalues)
    assert ends[1].lower_bound == ends[0].lower_bound
    assert ub.alignment(shared, LABELS) == ub.alignment(alone, LABELS)
    assert ub.alignment(shared, shared, estimator="unbiased") == pytest.approx(1.0)
    solved = [
        ub.predict.solve(store, VECTORS, diag_reg=0.1, rank=5, progress=False).coefficients for store in (alone, shared)
    ]
    np.testing.assert_array_equal(solved[1], solved[0])


def test_threads(alone: ub.KernelStore) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert_same_numbers(alone, ub.KernelStore(alone.path, executor=threads))


@pytest.mark.slow
def test_processes(alone: ub.KernelStore, pool: ProcessPoolExecutor) -> None:
    assert_same_numbers(alone, ub.KernelStore(alone.path, executor=pool))


@pytest.mark.parametrize("n", [320, 400])
def test_one_tile_and_a_blas_of_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """BLAS adds up in another order by two threads: the bits are those of one, with workers and without."""
    monkeypatch.setattr(planning, "LARGEST_TILE", 512)
    alone = ub.compute_kernel(MODEL, samples(MODEL, n), tmp_path / "K.zarr", backend="reference")
    assert alone.grid.count == 1
    labels, vectors = ub.label_kernel(np.eye(3)[np.arange(n) % 3]), np.random.default_rng(3).standard_normal((n, 3))
    with threadpool_limits(1):
        expected = ub.alignment(alone, labels), alone @ vectors
    with threadpool_limits(2), ThreadPoolExecutor(2) as threads:
        for store in (alone, ub.KernelStore(alone.path, executor=threads)):
            assert ub.alignment(store, labels) == expected[0]
            np.testing.assert_array_equal(store @ vectors, expected[1])


def test_the_product_is_that_of_the_matrix(alone: ub.KernelStore) -> None:
    with ThreadPoolExecutor(2) as threads:
        found = ub.KernelStore(alone.path, executor=threads) @ VECTORS
    np.testing.assert_allclose(found, alone[:].astype(np.float64) @ VECTORS, rtol=0, atol=1e-12 * np.abs(found).max())


def test_what_is_lost_is_multiplied_anew(alone: ub.KernelStore) -> None:
    """Whichever bands are lost, and however often: each counts once, in its turn."""
    for lost in ({1}, {2, 3}, {8}, {1, 9, 10}, {4, 5, 6, 7}):
        shared = ub.KernelStore(alone.path, executor=Losing(lost))
        np.testing.assert_array_equal(shared @ VECTORS, alone @ VECTORS)
        assert shared.crew is not None
        assert ub.alignment(ub.KernelStore(alone.path, executor=Losing(lost)), LABELS) == ub.alignment(alone, LABELS)


def test_workers_that_always_die(alone: ub.KernelStore) -> None:
    shared = ub.KernelStore(alone.path, executor=Losing(set(range(1, 100))))
    with pytest.raises(errors.StoreError, match=r"lost 4 times with its worker .*then ask for the product again"):
        shared @ VECTORS


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_pool_that_lost_a_process_between_products(alone: ub.KernelStore) -> None:
    with processes() as killed:
        shared = ub.KernelStore(alone.path, executor=killed)
        np.testing.assert_array_equal(shared @ VECTORS, alone @ VECTORS)
        os.kill(next(iter(killed._processes)), signal.SIGKILL)
        for _ in range(2):
            np.testing.assert_array_equal(shared @ VECTORS, alone @ VECTORS)
        assert shared.crew is not None
        assert shared.crew.breaks == 1  # the pool in its place was kept


class Backwards:
    """An executor that computes what it was given last before all others, when it is asked for anything."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.most = 0

    def submit(self, function: Any, *args: Any) -> Future[Any]:
        outer = self

        class Asked(Future):  # type: ignore[type-arg]
            def done(self) -> bool:
                while outer.waiting:
                    future, work, arguments = outer.waiting.pop()
                    future.set_result(work(*arguments))
                return True

        future = Asked()
        self.waiting.append((future, function, args))
        self.most = max(self.most, len(self.waiting))
        return future


def test_no_more_waits_for_its_turn_than_there_is_memory_for(
    alone: ub.KernelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "LOOK", 0.01)
    for bands, memory in ((2, 2 * VECTORS.nbytes + 8), (1, 8)):
        executor = Backwards()
        shared = ub.KernelStore(alone.path, executor=executor, memory=memory)
        np.testing.assert_array_equal(shared @ VECTORS, alone @ VECTORS)
        assert executor.most == bands


def test_append_and_repair(tmp_path: Path, alone: ub.KernelStore) -> None:
    with ThreadPoolExecutor(2) as threads:
        grown = store_of(tmp_path / "grown.zarr", n=21)
        grown = ub.KernelStore(grown.path, executor=threads)
        grown.append(X[21:N], progress=False)
        assert tile_files(grown.path) == tile_files(alone.path)
        assert grown.manifest["actual"][-1]["executor"] == "ThreadPoolExecutor"
        tile_path(alone, next(iter(alone.grid.tiles()))).unlink()
        assert ub.KernelStore(alone.path, executor=threads).repair(progress=False) == 1
    assert tile_files(alone.path) == tile_files(grown.path)
    assert ub.KernelStore(alone.path).verify().ok


def test_a_damaged_tile_is_said_as_without(alone: ub.KernelStore) -> None:
    path = tile_path(alone, next(iter(alone.grid.tiles())))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with ThreadPoolExecutor(2) as threads:
        shared = ub.KernelStore(alone.path, executor=threads)
        with pytest.raises(errors.StoreError, match=r"tile \(0, 0\) .* is damaged"):
            shared @ VECTORS
        with pytest.raises(errors.StoreError, match=r"tile \(0, 0\) .* is damaged"):
            ub.alignment(shared, LABELS)


def test_another_store_at_the_path(tmp_path: Path, alone: ub.KernelStore) -> None:
    """Workers on another machine may have another disk."""

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, attempted: Any, function: Any, handle: Any, *args: Any) -> Any:  # type: ignore[override]
            return super().submit(attempted, function, type(handle)(handle.path, "another"), *args)

    with Elsewhere(1) as threads, pytest.raises(errors.StoreError, match="another store for a worker"):
        ub.KernelStore(alone.path, executor=threads) @ VECTORS


@pytest.mark.parametrize("executor", [3, "processes"])
def test_what_takes_no_tasks(alone: ub.KernelStore, untyped: None, executor: object) -> None:
    with pytest.raises(errors.OptionError, match=r"executor=.*submit"):
        ub.KernelStore(alone.path, executor=executor)


def test_a_copy_has_no_executor(alone: ub.KernelStore) -> None:
    """It may be in another process, where there is none."""
    with ThreadPoolExecutor(1) as threads:
        copied = pickle.loads(pickle.dumps(ub.KernelStore(alone.path, executor=threads)))
    np.testing.assert_array_equal(copied @ VECTORS, alone @ VECTORS)


def test_stores_at_infinite_width(tmp_path: Path) -> None:
    path = tmp_path / "K.zarr"
    alone = ub.infinite.compute_kernel(MODEL, X[:N], path, w_std=1.4, b_std=0.1, progress=False)
    with ThreadPoolExecutor(2) as threads:
        shared = ub.infinite.InfiniteStore(path, executor=threads)
        np.testing.assert_array_equal(shared @ VECTORS, alone @ VECTORS)
        assert ub.alignment(shared, LABELS) == ub.alignment(alone, LABELS)
