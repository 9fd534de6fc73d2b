"""The number of threads that NumPy's BLAS uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """NumPy's BLAS with `count` threads; the old number comes back afterwards. None changes nothing."""
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=count, user_api="blas"):
        yield
