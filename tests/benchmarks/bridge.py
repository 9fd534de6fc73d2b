"""What the bridge between Python and Julia costs: `python tests/benchmarks/bridge.py [--n 8000] [--rounds 7]`.

The same kernel (784-60-60-10, one output, float32, MNIST, the same tiles): by calls from Python, with arrays in and
out, with Julia in this process and in a process of its own, and by a loop in Julia. They take turns; the best of the
rounds counts. Exits with 1 if calling from Python costs more than 5 % in this process, or a process of its own more
than 3 % besides, of a whole kernel, or more than 2 ms for a small call.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import udlbridge as ub
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia import owner, runtime
from udlbridge.backends.julia.engine import JuliaBackend
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.hosts import in_process
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.backends.reduction import checked_reduction
from udlbridge.kernels.tiling import Grid, TileComputer, mirror

LIMIT, APART_LIMIT, CALL_LIMIT = 0.05, 0.03, 2e-3
SMALL_CALLS = 200


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8000)
    parser.add_argument("--tile", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    engines = {"here": HostedJulia(in_process()), "apart": HostedJulia(ProcessHost())}
    model = ub.models.three_layer_sigmoid()
    x, _ = ub.data.mnist("train", n=given.n)
    job = KernelJob(model, checked_reduction(0, 10), "structured", given.threads)
    grid = Grid(given.n, given.n, given.tile, symmetric=True)
    out = np.empty((given.tile, given.tile), dtype=np.float32)

    def tiles(engine: HostedJulia) -> float:
        start = time.perf_counter()
        factors = [engine.prepare(job, x[i : i + given.tile]) for i in range(0, given.n, given.tile)]
        whole = slice(0, given.tile)
        for tile in grid.tiles():
            engine.fill(job, factors[tile.row], whole, factors[tile.column], whole, out, lower=tile.row == tile.column)
        taken = time.perf_counter() - start
        for found in factors:
            engine.release(found)
        return taken

    def kernel(engine: HostedJulia) -> float:
        start = time.perf_counter()
        result = np.empty((given.n, given.n), dtype=np.float32)
        with TileComputer(engine, job, x, None, grid, 4) as computer:
            for tile in grid.tiles():
                computer.compute(tile, result[tile.rows, tile.columns])
                if tile.row != tile.column:
                    mirror(result, tile)
        return time.perf_counter() - start

    def small(engine: HostedJulia) -> float:
        start = time.perf_counter()
        for _ in range(SMALL_CALLS):
            engine._exchange_threads(given.threads)
        return (time.perf_counter() - start) / SMALL_CALLS

    def prepared() -> tuple[Any, Any, Any]:
        base = runtime.julia_base()
        native = base.include(runtime.start(), str(Path(__file__).with_name("bridge.jl"))).native
        return native, JuliaBackend(lambda: None, {}).new_chain(model), base.Array(x.T)

    native, chain, samples = owner.run(prepared)
    times: dict[str, list[float]] = {}
    with engines["here"].blas_threads(given.threads):
        for _ in range(given.rounds + 1):
            for name, engine in engines.items():
                times.setdefault(f"tiles, {name}", []).append(tiles(engine))
                times.setdefault(f"kernel, {name}", []).append(kernel(engine))
                times.setdefault(f"small call, {name}", []).append(small(engine))
            times.setdefault("tiles, in Julia", []).append(
                owner.run(lambda: float(native(chain, samples, given.tile, 1)))
            )
    engines["apart"].close()
    best = {name: min(found[1:]) for name, found in times.items()}
    for name, seconds in sorted(best.items()):
        print(f"{name:<20}{seconds:9.5f} s")
    costs = {
        "calling from Python": (best["tiles, here"] / best["tiles, in Julia"] - 1, LIMIT),
        "a process of its own": (best["kernel, apart"] / best["kernel, here"] - 1, APART_LIMIT),
    }
    for name, (cost, limit) in costs.items():
        print(f"{name} costs {cost:.1%} (limit {limit:.0%})")
    return int(any(cost > limit for cost, limit in costs.values()) or best["small call, apart"] > CALL_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
