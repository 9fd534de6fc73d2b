"""A fixed number of faults of every kind; `python tests/faults/run.py` has more."""

from __future__ import annotations

import os

import pytest

from faults.campaigns import corrupt, fuzz, kill
from faults.readers import NEED_TORCH, READERS
from faults.urls import kill_at_urls
from small_stores import processes


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_refused_in_our_words(reader: str) -> None:
    if reader in NEED_TORCH:
        pytest.importorskip("torch")
    found = fuzz(reader, 40, seed=1)
    assert found.losses == []
    assert found.cases == 40
    assert found.refused > 0


def test_damaged_stores_say_so() -> None:
    found = corrupt(45, seed=1)
    assert found.losses == []
    assert found.refused > 20


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_processes_lose_nothing() -> None:
    found = kill(2, seed=1)
    assert found.losses == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_processes_lose_nothing_at_urls() -> None:
    """In a process of its own: this one may have asked for objects, which a fork does not outlast."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with processes(1) as pool:
        found = pool.submit(kill_at_urls, 1, 1).result()
    assert found.losses == []
    assert found.refused >= 2
