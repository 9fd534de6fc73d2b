"""Processes without Julia, in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import apart
from udlbridge.backends.julia.process.client import ProcessHost


@pytest.fixture
def home() -> Iterator[Path]:
    """See `apart`."""
    with apart() as path:
        yield path


@pytest.fixture
def host(home: Path) -> Iterator[ProcessHost]:
    """A process of the test's own, that has NumPy in the place of Julia."""
    made = ProcessHost("standin:Service")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessHost]:
    """The same for all tests of a file, which leave it as it was."""
    with apart():
        made = ProcessHost("standin:Service")
        yield made
        made.close()
