"""Processes that compute for this one: their memory counts as its own."""

from __future__ import annotations

import os

_numbers: set[int] = set()


def add(pid: int) -> None:
    """From now on it computes for this process."""
    _numbers.add(pid)


def discard(pid: int) -> None:
    """It does not any more."""
    _numbers.discard(pid)


def companions() -> tuple[int, ...]:
    """Their numbers."""
    return tuple(_numbers)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_numbers.clear)
