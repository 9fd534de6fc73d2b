"""Calls into another process: what goes there and comes back is what it would be in this one."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import errors
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.process import channel
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.backends.reduction import checked_reduction
from udlbridge.store.peak_memory import PeakMemory

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "small": np.arange(6.0).reshape(2, 3),
    "float32": RANDOM.standard_normal((300, 200)).astype(np.float32),
    "Fortran": RANDOM.standard_normal((300, 200)).T,
    "strided": RANDOM.standard_normal((300, 200))[::2, ::3],
    "axes": RANDOM.standard_normal((9, 100, 2, 50)),
    "none": np.empty((0, 3)),
    "number": np.array(3.5),
    "integers": np.arange(50_000),
    "beyond what is kept": RANDOM.integers(0, 9, channel.KEPT + 8).astype(np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_the_callers_own(shared: ProcessHost, name: str) -> None:
    sent = ARRAYS[name]
    for _ in range(2):  # the second one through memory that is there
        found = shared.call("echo", sent)
        np.testing.assert_array_equal(found, sent)
        assert found.dtype == sent.dtype
        assert found.flags.writeable
        found[...] = 0
    np.testing.assert_array_equal(shared.call("echo", sent), sent)
    np.testing.assert_array_equal(shared.call("echo", ARRAYS["float32"]), ARRAYS["float32"])


def test_several_arrays_in_one_message(shared: ProcessHost) -> None:
    sent = {"a": RANDOM.standard_normal(9_999), "b": [RANDOM.standard_normal(70_001).astype(np.float32), (1, "two")]}
    first, second = shared.call("echo", sent), shared.call("echo", MappingProxyType(sent))
    for found in (first, second):  # what came first is not what came later
        np.testing.assert_array_equal(found["a"], sent["a"])
        np.testing.assert_array_equal(found["b"][0], sent["b"][0])
        assert found["b"][1] == (1, "two")
    assert not np.shares_memory(first["a"], second["a"])


def test_what_is_kept_there_is_a_copy_and_the_rest_is_looked_at(shared: ProcessHost) -> None:
    x = ARRAYS["float32"]
    assert shared.call("training", x)
    assert not shared.call("may_write", x)


def test_a_network_goes_there_once(shared: ProcessHost) -> None:
    models = [ub.Model([ub.Dense(3, 2)], seed=seed) for seed in range(3)]
    copy = ub.Model(models[0].layers, models[0].params)
    seen = shared.call("seen", models[0])
    assert seen[1] == models[0].hash()
    assert shared.call("seen", copy) == seen
    assert [shared.call("seen", model)[1] for model in models] == [model.hash() for model in models]
    assert shared.call("seen", models[0])[1] == models[0].hash()  # it had to go for others


def test_tiles_are_written_to_where_they_belong(shared: ProcessHost) -> None:
    engine = HostedJulia(shared)
    job = KernelJob(ub.Model([ub.Dense(3, 2)]), checked_reduction(0, 2), watch=lambda share: None)
    x = RANDOM.standard_normal((300, 5))
    factors = engine.prepare(job, x)
    kernel = np.zeros((700, 700))
    for size in (100, 300, 200):  # the memory of the tile grows, and is kept
        engine.fill(job, factors, slice(0, size), factors, slice(0, 300), kernel[:size, 100:400])
        np.testing.assert_allclose(kernel[:size, 100:400], x[:size] @ x.T)
    assert not kernel[300:].any()
    assert not kernel[:, :100].any()
    assert shared.call("count") == 1
    engine.release(factors)
    assert shared.call("count") == 0
    assert shared._session is not None
    assert shared._session._tile is None  # nothing is held for tiles that nobody fills


def test_what_nobody_holds_goes_with_the_next_call(shared: ProcessHost) -> None:
    engine = HostedJulia(shared)
    job = KernelJob(None, checked_reduction(0, 2))
    factors = engine.prepare(job, np.eye(3))
    assert shared.call("count") == 1
    del factors
    assert shared.call("count") == 0


@pytest.mark.parametrize(
    "error",
    [
        errors.ShapeError("x", allowed="y", remedy="z"),
        errors.JuliaUnavailable("gone"),
        ValueError("wrong"),
        KeyError("name"),
        KeyboardInterrupt(),
        np.linalg.LinAlgError("singular"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_with_their_types(shared: ProcessHost, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        shared.call("fail", error)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    if isinstance(error, errors.UDLBridgeError):
        assert (raised.value.given, raised.value.allowed) == (error.given, error.allowed)
    if isinstance(error, ValueError | KeyError) and not isinstance(error, errors.UDLBridgeError):
        assert "standin.py" in raised.value.__notes__[0]  # where in the other process


def test_what_cannot_cross_is_an_error_of_ours(shared: ProcessHost) -> None:
    with pytest.raises(errors.BackendError, match="SystemExit: 3"):
        shared.call("fail", SystemExit(3))
    with pytest.raises(errors.BackendError, match="what give gives cannot go to another process"):
        shared.call("give")
    assert shared.call("echo", 1) == 1


def test_what_cannot_be_sent_leaves_the_connection_whole(shared: ProcessHost) -> None:
    with pytest.raises((AttributeError, TypeError, Exception), match="pickle"):
        shared.call("echo", (ARRAYS["float32"], lambda: None))
    out = np.zeros((400, 400))
    with pytest.raises((AttributeError, TypeError, Exception), match="pickle"):
        shared.call_into(out, "echo", lambda: None)
    number = shared.call("prepare", None, np.eye(400))
    shared.call_into(out, "fill", None, number, slice(0, 400), number, slice(0, 400), False)
    np.testing.assert_array_equal(out, np.eye(400))
    shared.call("release", number)
    np.testing.assert_array_equal(shared.call("echo", ARRAYS["float32"]), ARRAYS["float32"])


def test_what_it_prints_is_seen(shared: ProcessHost, capfd: pytest.CaptureFixture[str]) -> None:
    shared.call("say", "hello from there")
    assert capfd.readouterr().err == "hello from there\n"
    shared.call("say", "again")
    assert capfd.readouterr().err == "again\n"


def test_relative_paths_mean_what_they_mean_here(
    shared: ProcessHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.call("folder") == os.getcwd()
    monkeypatch.chdir(tmp_path)
    assert shared.call("folder") == str(tmp_path)


def test_calls_from_four_threads_and_from_asyncio(shared: ProcessHost) -> None:
    def hundred(seed: int) -> bool:
        x = np.random.default_rng(seed).standard_normal((40, 300))
        return all(np.array_equal(shared.call("echo", x + step), x + step) for step in range(100))

    with ThreadPoolExecutor(4) as pool:  # the first call of all is made by one of these threads
        assert all(pool.map(hundred, range(4)))
    assert asyncio.run(asyncio.to_thread(hundred, 4))


def test_a_call_goes_on_while_another_thread_calls(shared: ProcessHost, tmp_path: Path) -> None:
    """By turns: the second waits, and both get what is theirs."""
    found: dict[str, Any] = {}
    begun, end = tmp_path / "begun", tmp_path / "end"
    first = threading.Thread(target=lambda: found.update(first=shared.call("wait", str(begun), str(end))))
    first.start()
    while not begun.exists():
        pass
    second = threading.Thread(target=lambda: found.update(second=shared.call("echo", 2)))
    second.start()
    end.touch()
    first.join(60)
    second.join(60)
    assert found == {"first": None, "second": 2}


def test_its_memory_counts_as_this_processs_own(shared: ProcessHost) -> None:
    shared.call("start")
    with PeakMemory() as memory:
        number = shared.call("grow", 100_000_000)
    assert memory.over_baseline > 80e6
    shared.forget(number)
