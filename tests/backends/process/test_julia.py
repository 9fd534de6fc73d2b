"""Julia itself in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from processes import apart, eventually, gone
from udlbridge.backends import companions
from udlbridge.backends.jobs import KernelJob, TrainJob, TrainState
from udlbridge.backends.julia.host import Held
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.backends.optimisers import checked_optimizer
from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import BackendError
from udlbridge.kernels.tiling import Grid, TileComputer
from udlbridge.testing import CHECKS, check_backend

pytestmark = [pytest.mark.julia, pytest.mark.slow]

MODEL = ub.Model([ub.Dense(20, 40, "tanh"), ub.Dense(40, 10)])
X = np.random.default_rng(0).normal(size=(50_000, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def engine() -> Iterator[HostedJulia]:
    """One process for all of these; what kills it, starts another."""
    with apart():
        made = HostedJulia(ProcessHost())
        yield made
        made.close()


def pid(engine: HostedJulia) -> int:
    engine._host.start()
    (found,) = companions.companions()
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_contract(engine: HostedJulia, check: str) -> None:
    assert check_backend(engine, only=[check]) == (check,)


def test_a_model_in_a_file(engine: HostedJulia, tmp_path: Path) -> None:
    path = tmp_path / "net.jl"
    path.write_text("using Flux\nbuild() = Chain(Dense(3 => 4, tanh), Dense(4 => 2))\n")
    host = engine._host
    network = JuliaNetwork(host, Held(host, host.call("include", str(path), "build")))
    model, x = network.translated(), X[:6, :3].copy()
    assert network.output_shape((3,)) == (2,)
    assert_within_budget(engine.outputs(network, x), ub.outputs(model, x, backend="reference"))
    blocks = engine.jacobian(network, x)
    for name, expected in ub.jacobian(model, x, backend="reference").items():
        assert_within_budget(blocks[name], expected)
    job = KernelJob(network, checked_reduction("trace", 2))
    factors, out = engine.prepare(job, x), np.empty((6, 6), np.float32)
    engine.fill(job, factors, slice(0, 6), factors, slice(0, 6), out)
    assert_within_budget(out, ub.ntk(model, x, backend="reference"))
    moved = network.with_params({name: 2 * value for name, value in network.params.items()})
    assert_within_budget(moved.params["0.weight"], 2 * network.params["0.weight"])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_it_is_killed_in_a_kernel(engine: HostedJulia) -> None:
    before, done = pid(engine), 0
    kill = threading.Thread(target=os.kill, args=(before, signal.SIGKILL))

    def advance(flops: float) -> None:
        nonlocal done
        done += 1
        if done == 3:
            kill.start()

    grid, job = Grid(5_000, 5_000, 100, True), KernelJob(MODEL, checked_reduction("trace", 10))
    out = np.empty((100, 100), np.float32)

    def compute() -> None:
        with TileComputer(engine, job, X[:5_000], None, grid, 4, advance=advance, entry_flops=1.0) as computer:
            for tile in grid.tiles():
                computer.compute(tile, out)

    words = "the process of Julia (ended while it was asked for|that held this has ended)"
    with pytest.raises(BackendError, match=words):
        compute()
    kill.join()
    assert gone(before)
    assert_within_budget(engine.outputs(MODEL, X[:4]), ub.outputs(MODEL, X[:4], backend="reference"))
    assert pid(engine) != before


def kernel_job(method: str) -> KernelJob:
    return KernelJob(MODEL, checked_reduction("trace", 10), method)


def filling(engine: HostedJulia, n: int) -> Callable[[], Any]:
    """A tile of a kernel."""
    whole, out = slice(0, n), np.empty((n, n), np.float32)
    factors = engine.prepare(kernel_job("plain"), X[:n])
    return lambda: engine.fill(kernel_job("plain"), factors, whole, factors, whole, out)


def epoch(engine: HostedJulia, n: int) -> Callable[[], Any]:
    """An epoch of many steps."""
    job = TrainJob(MODEL, "mse", checked_optimizer("sgd"), dict.fromkeys(MODEL.params, 0.01))
    training = engine.training(job, X, np.zeros((len(X), 10), np.float32), TrainState(MODEL.params))
    return lambda: training.epoch(np.arange(n) % len(X), 1, 1.0)


LONG: dict[str, tuple[int, Callable[[HostedJulia, int], Callable[[], Any]]]] = {
    "a Jacobian": (50_000, lambda engine, n: lambda: engine.jacobian(MODEL, X[:n])),
    "a Hessian": (50_000, lambda engine, n: lambda: engine.input_hessian(MODEL, X[:n])),
    "factors": (50_000, lambda engine, n: lambda: engine.prepare(kernel_job("plain"), X[:n])),
    "a tile": (5_000, filling),
    "an epoch": (500_000, epoch),
}
"""What takes ten seconds or more, with so many samples or steps; most of it is one call into Julia."""

STOPPED = 4.0
"""Seconds in which it has stopped, also on a machine that does other things; alone it takes a tenth of one."""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_stops_it_and_keeps_it(engine: HostedJulia, name: str) -> None:
    before, (count, prepared) = pid(engine), LONG[name]
    expected = engine.outputs(MODEL, X[:4])
    prepared(engine, 2)()  # compiled
    line, call = engine._host._line, prepared(engine, count)

    def interrupt() -> None:
        eventually(lambda: line._current)
        time.sleep(0.3)  # Julia has begun
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join()
    began = time.perf_counter()
    np.testing.assert_array_equal(engine.outputs(MODEL, X[:4]), expected)  # it waits until the other has stopped
    assert time.perf_counter() - began < STOPPED
    assert pid(engine) == before


KERNELS = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import udlbridge as ub

model = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 2)])
x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
expected = ub.ntk(model, x, backend="reference")


def hundred(_: int) -> float:
    return max(abs(ub.ntk(model, x, backend="julia") - expected).max() for _ in range(100))


with ThreadPoolExecutor(4) as pool:  # the first call of all is made by one of these threads
    worst = max(pool.map(hundred, range(4)))
print(worst < 1e-5, asyncio.run(asyncio.to_thread(hundred, 0)) < 1e-5, "juliacall" in sys.modules)
"""


def test_kernels_from_four_threads_and_none_of_julia_here() -> None:
    with apart():
        done = subprocess.run(
            [sys.executable, "-c", KERNELS],
            env={**os.environ, "UDLBRIDGE_JULIA": "process"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert (done.returncode, done.stdout.strip()) == (0, "True True False"), done.stderr
