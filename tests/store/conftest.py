"""A server of objects, for the tests of stores at URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from s3 import BUCKET, CREDENTIALS, s3_server
from udlbridge.store import requesting


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses between attempts, and clients of the server that the environment names now."""
    pauses = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setattr(requesting, "RETRIES", {**requesting.RETRIES, "backoff": pauses})
    requesting.connected.cache_clear()
    yield
    requesting.connected.cache_clear()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Point the environment at a server; gives a URL that no other test has."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def at(address: str) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        requesting.connected.cache_clear()
        test = f"{request.module.__name__}-{request.node.name}".replace("/", "-")  # the bucket is that of all modules
        return f"s3://{BUCKET}/{test}.zarr"

    return at


@pytest.fixture
def url(address: str, connect: Callable[[str], str]) -> str:
    return connect(address)
