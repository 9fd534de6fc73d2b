"""The coordinator waits for no task that cannot end: futures that nobody answers for, clusters that are gone."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from small_stores import assert_same_bytes, store_of
from udlbridge import errors
from udlbridge.store import tasks

pytestmark = pytest.mark.usefixtures("small_tiles", "small_tasks")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after 20 ms, and have patience for 60."""
    monkeypatch.setattr(tasks, "LOOK", 0.02)
    monkeypatch.setattr(tasks, "PATIENCE", 0.06)


class Silent(Future):  # type: ignore[type-arg]
    """A future whose callbacks are never called."""

    def add_done_callback(self, fn: Any) -> None:
        pass


class Forgetful:
    """An executor in this thread whose futures end and tell nobody; every third one is cancelled."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, function: Any, *args: Any) -> Future[Any]:
        future = Silent()
        self.count += 1
        if self.count % 3 == 0:
            future.cancel()
        else:
            future.set_result(function(*args))
        return future


def test_futures_that_end_with_no_callback(tmp_path: Path) -> None:
    shared = store_of(tmp_path / "shared.zarr", executor=Forgetful())
    assert_same_bytes(shared, store_of(tmp_path / "alone.zarr"))
    assert shared.manifest["actual"][0]["lost"] > 0


class LateOutcome(Future):  # type: ignore[type-arg]
    """A future of Dask whose worker died with the outcome: it has ended, and asked for it, it is computed again."""

    asked = 0

    def result(self, timeout: float | None = None) -> Any:
        assert timeout is not None
        self.asked += 1
        if self.asked < 3:
            raise TimeoutError
        return super().result(timeout)


def test_an_outcome_that_comes_late(tmp_path: Path) -> None:
    class Late:
        def submit(self, function: Any, *args: Any) -> Future[Any]:
            future = LateOutcome()
            future.set_result(function(*args))
            return future

    shared = store_of(tmp_path / "shared.zarr", executor=Late())
    assert_same_bytes(shared, store_of(tmp_path / "alone.zarr"))
    assert shared.manifest["actual"][0]["lost"] == 0


class DaskFuture(Future):  # type: ignore[type-arg]
    """One that never ends by itself, and is released."""

    def release(self) -> None:
        raise RuntimeError("the loop is closed")


class Client:
    """What a Dask client says of itself; `answers` are what its scheduler says, one after another."""

    def __init__(self, *answers: Any, status: str = "running", hung_up: bool = False) -> None:
        self.answers, self.status, self.hung_up = list(answers), status, hung_up
        self.scheduler_comm = SimpleNamespace(comm=SimpleNamespace(closed=lambda: hung_up))
        self.held: list[Any] = []

    def submit(self, function: Any, *args: Any, pure: bool) -> Future[Any]:
        assert not pure
        future = DaskFuture()
        self.held.append((future, function, args))
        return future

    def nthreads(self, callback_timeout: float) -> dict[str, int]:
        assert callback_timeout > 0
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer and not self.hung_up:  # with a worker, tasks end
            for future, function, args in self.held:
                if not future.done():
                    future.set_result(function(*args))
        return dict(answer)


Client.__module__ = "distributed.client"


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (Client({}, status="closed"), "the Dask client is closed"),
        (Client({}), r"has no workers, for 0 seconds.*has workers, and go on with .*finished tiles are kept"),
        (Client(OSError("connection refused")), r"does not answer \(OSError: connection refused\), for"),
        (Client(TimeoutError("timed out")), "does not answer"),
        (Client({"tcp://a": 1}, hung_up=True), "closed its connection to this client, for"),
    ],
    ids=["closed", "no workers", "refused", "silent", "hung up"],
)
def test_a_cluster_that_is_gone(tmp_path: Path, client: Client, words: str) -> None:
    with pytest.raises(errors.StoreError, match=words):
        store_of(tmp_path / "K.zarr", executor=client)
    assert store_of(tmp_path / "K.zarr", resume=True).complete


def test_workers_that_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PATIENCE", 60.0)
    shared = store_of(tmp_path / "shared.zarr", executor=Client({}, OSError("not yet"), {}, {"tcp://a": 1}))
    assert_same_bytes(shared, store_of(tmp_path / "alone.zarr"))


def test_a_client_that_takes_no_tasks(tmp_path: Path) -> None:
    class ClosedClientError(Exception):
        pass

    class Closed:
        def submit(self, function: Any, *args: Any) -> Any:
            raise ClosedClientError("Client is closed")

    with pytest.raises(errors.StoreError, match=r"takes no tasks \(Client is closed\).*finished tiles are kept"):
        store_of(tmp_path / "K.zarr", executor=Closed())
