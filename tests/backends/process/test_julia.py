"""Julia itself in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from processes import apart, eventually, gone
from udlbridge.backends import companions
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia.host import Held
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.julia.process.client import ProcessHost
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.parametrize("derivative", ["jacobian", "input_hessian"])
def test_ctrl_c_stops_it_and_keeps_it(engine: HostedJulia, derivative: str) -> None:
    before = pid(engine)
    compute = getattr(engine, derivative)
    compute(MODEL, X[:2])  # compiled
    line = engine._host._line

    def interrupt() -> None:
        eventually(lambda: line._current)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        compute(MODEL, X)
    thread.join()
    assert_within_budget(engine.outputs(MODEL, X[:4]), ub.outputs(MODEL, X[:4], backend="reference"))
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
