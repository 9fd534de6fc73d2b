"""How many threads a BLAS uses, where several callers in one process ask for different numbers at the same time.

The number belongs to a whole library (OpenBLAS, Julia's), or each thread has its own (OpenMP, MKL, torch). Whoever came
first must not put the old number back while others still count on theirs, and whoever leaves last must not put back
what another caller had asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from threadpoolctl import LibController, ThreadpoolController


@dataclass(frozen=True)
class Pool:
    """A pool of threads whose number can be set.

    `key`: what the number that was there before is remembered by; it has the thread in it where threads may have had
    different ones. `exchange`: sets the number, and returns the one before. `by_thread`: each thread has its own.
    """

    key: str
    exchange: Callable[[int], int]
    by_thread: bool = False


class ThreadLimit:
    """A number of threads that is lent to callers; the old one is back when the last of them has left.

    Of callers that are inside at the same time, the one that entered last decides, where they share one number.

    Args:
        pools: what to set; it is asked each time, since a library may have been loaded meanwhile.
    """

    def __init__(self, pools: Callable[[], Iterable[Pool]]) -> None:
        self._pools = pools
        self._lock = threading.Lock()
        self._before: dict[str, int] = {}
        self._inside: list[tuple[int, int]] = []  # the thread and the number of every caller, in order of entrance

    @contextmanager
    def to(self, count: int | None) -> Iterator[None]:
        """Within it, `count` threads; None changes nothing."""
        if count is None:
            yield
            return
        caller = (threading.get_ident(), count)
        with self._lock:
            for pool in self._pools():
                self._before.setdefault(pool.key, pool.exchange(count))
            self._inside.append(caller)
        try:
            yield
        finally:
            with self._lock:
                self._leave(caller)

    def _leave(self, caller: tuple[int, int]) -> None:
        self._inside.remove(caller)
        for pool in self._pools():
            left = [count for thread, count in self._inside if not pool.by_thread or thread == caller[0]]
            if left:
                pool.exchange(left[-1])
            elif pool.key in self._before:
                pool.exchange(self._before[pool.key])
        if not self._inside:
            self._before.clear()


def _pools_of_numpy() -> Iterator[Pool]:
    """Every BLAS that is loaded, NumPy's and scipy's among them."""
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        openmp = library.internal_api == "openblas" and getattr(library, "threading_layer", "") == "openmp"
        by_thread = openmp or library.internal_api == "mkl"
        key = f"{library.filepath} in {threading.get_ident()}" if by_thread else library.filepath
        yield Pool(key, _exchange_of(library), by_thread)


def _exchange_of(library: LibController) -> Callable[[int], int]:
    # threadpoolctl 3.8 lets one thread at a time set OpenBLAS's number, and does nothing for others without a word.
    free = getattr(library, "clear_controlling_thread", lambda force: None)

    def exchange(count: int) -> int:
        before = int(library.num_threads)
        free(force=True)
        library.set_num_threads(count)
        free(force=True)
        return before

    return exchange


numpy_blas = ThreadLimit(_pools_of_numpy)
"""The BLAS of NumPy and scipy, which the reference engine and whatever works on finished kernels share."""
