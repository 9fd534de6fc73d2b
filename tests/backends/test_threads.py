"""The numbers of threads that concurrent callers ask for, and that all of them are gone when the callers are.

Threads meet at barriers and wait for events, so that what happens at the same time is the same in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import udlbridge as ub
from udlbridge import backends
from udlbridge.analysis import sums
from udlbridge.backends.threads import Pool, ThreadLimit, numpy_blas


def blas_count() -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def readers(backend: str) -> Callable[[], int]:
    """What gives the number of threads of an engine, in the thread that asks."""
    if backend == "torch":
        import torch

        return torch.get_num_threads
    if backend == "julia":
        from udlbridge.backends.julia import owner, runtime

        return lambda: owner.run(lambda: int(runtime.start().BLAS.get_num_threads()))
    return blas_count


class Caller(threading.Thread):
    """A thread whose `join` raises what its target raised, which must not pass for a success."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__()
        self._call = target
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error is not None:
            raise self._error


def in_thread(target: Callable[[], None]) -> threading.Thread:
    thread = Caller(target)
    thread.start()
    return thread


@pytest.mark.parametrize("first_leaves_first", [True, False], ids=["crosswise", "nested"])
def test_two_callers_at_once_leave_the_old_number(backend: str, first_leaves_first: bool) -> None:
    engine, count = backends.get(backend), readers(backend)
    before = count()
    entered, left = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    seen: dict[str, int] = {}

    def first() -> None:
        with engine.blas_threads(before + 1):
            entered[0].set()
            entered[1].wait()
            if not first_leaves_first:
                left[1].wait()
                seen["first, alone again"] = count()
        left[0].set()
        left[1].wait()
        seen["first, behind both"] = count()

    def second() -> None:
        entered[0].wait()
        with engine.blas_threads(before + 2):
            seen["second, among both"] = count()
            entered[1].set()
            if first_leaves_first:
                left[0].wait()
                seen["second, alone"] = count()
        left[1].set()
        left[0].wait()
        seen["second, behind both"] = count()

    threads = [in_thread(first), in_thread(second)]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    alone = {"second, alone": before + 2} if first_leaves_first else {"first, alone again": before + 1}
    behind = {"first, behind both": before, "second, behind both": before}
    assert seen == {"second, among both": before + 2, **alone, **behind}
    assert count() == before
    found: list[int] = []
    in_thread(lambda: found.append(count())).join()  # torch has a number for threads that are new to it
    assert found == [before]


def test_kernels_at_once_leave_the_old_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels that are computed at the same time, each within its own number of threads."""
    from udlbridge.backends.reference import engine

    before, meeting = blas_count(), threading.Barrier(2)
    product = engine.product

    def meet_and_multiply(*args: object) -> np.ndarray:
        meeting.wait(60)
        return product(*args)

    monkeypatch.setattr(engine, "product", meet_and_multiply)
    model, x = ub.Model([ub.Dense(3, 2)], dtype="float64"), np.eye(3)
    kernels: dict[int, np.ndarray] = {}

    def compute(threads: int) -> None:
        kernels[threads] = ub.ntk(model, x, threads=threads, backend="reference")

    workers = [in_thread(lambda threads=threads: compute(threads)) for threads in (before + 1, before + 2)]
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(*kernels.values())
    assert blas_count() == before


def test_alignments_at_once_leave_the_old_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums over kernels run on threads of their own, with one BLAS thread each."""
    monkeypatch.setattr(sums.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sums, "ALONE", 0)  # small kernels are summed without threads
    meeting = threading.Barrier(4)
    band_sums = sums._band_sums

    def meet_and_sum(*args: object) -> object:
        meeting.wait(60)
        return band_sums(*args)

    monkeypatch.setattr(sums, "_band_sums", meet_and_sum)
    kernel = np.diag(np.arange(1.0, 9.0))
    with numpy_blas.to(3):
        workers = [in_thread(lambda: ub.alignment(kernel, kernel, tile=4)) for _ in range(2)]
        for worker in workers:
            worker.join()
        assert blas_count() == 3


def test_nested_callers_of_one_thread(backend: str) -> None:
    engine, count = backends.get(backend), readers(backend)
    before = count()
    with engine.blas_threads(3):
        with engine.blas_threads(2):
            assert count() == 2
        assert count() == 3
        with engine.blas_threads(None):
            assert count() == 3
    assert count() == before


def test_an_error_inside_gives_the_number_back(backend: str) -> None:
    count = readers(backend)
    before = count()
    with pytest.raises(ZeroDivisionError), backends.get(backend).blas_threads(2):
        raise ZeroDivisionError
    assert count() == before


def test_a_library_that_is_loaded_meanwhile_gets_its_own_number_back() -> None:
    counts = {"a": 5}

    def pool(name: str) -> Pool:
        def exchange(count: int) -> int:
            before, counts[name] = counts[name], count
            return before

        return Pool(name, exchange)

    limit = ThreadLimit(lambda: map(pool, list(counts)))
    with limit.to(1):
        counts["b"] = 7
        with limit.to(2):
            assert counts == {"a": 2, "b": 2}
    assert counts == {"a": 5, "b": 7}


def test_numbers_of_threads_of_their_own() -> None:
    """As with OpenMP: who leaves puts its thread's number back, and touches no other's."""
    counts: dict[int, int] = {}

    def exchange(count: int) -> int:
        own = threading.get_ident()
        before, counts[own] = counts.get(own, 4), count
        return before

    limit = ThreadLimit(lambda: [Pool(f"{threading.get_ident()}", exchange, by_thread=True)])

    def inside() -> None:
        counts[threading.get_ident()] = 6
        with limit.to(2):
            assert sorted(counts.values()) == [1, 2]

    with limit.to(1):
        in_thread(inside).join()
        assert sorted(counts.values()) == [1, 6]
    assert sorted(counts.values()) == [4, 6]
