"""What the bridge between Python and Julia costs: `python tests/benchmarks/bridge.py [--n 8000] [--rounds 7]`.

The same kernel (784-60-60-10, one output, float32, MNIST, the same tiles) in one process: by calls from Python, with
arrays in and out, and by a loop in Julia. The two take turns; the best of the rounds counts. Exits with 1 if calling
from Python costs more than 5 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import udlbridge as ub
from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia import owner, runtime
from udlbridge.backends.julia.engine import JuliaBackend
from udlbridge.backends.reduction import checked_reduction
from udlbridge.kernels.tiling import Grid

LIMIT = 0.05


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8000)
    parser.add_argument("--tile", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    engine = backends.get("julia")
    model = ub.models.three_layer_sigmoid()
    x, _ = ub.data.mnist("train", n=given.n)
    job = KernelJob(model, checked_reduction(0, 10), "structured", given.threads)
    grid = Grid(given.n, given.n, given.tile, symmetric=True)
    out = np.empty((given.tile, given.tile), dtype=np.float32)

    def from_python() -> float:
        start = time.perf_counter()
        factors = [engine.prepare(job, x[i : i + given.tile]) for i in range(0, given.n, given.tile)]
        whole = slice(0, given.tile)
        for tile in grid.tiles():
            engine.fill(job, factors[tile.row], whole, factors[tile.column], whole, out, lower=tile.row == tile.column)
        return time.perf_counter() - start

    def prepared() -> tuple[Any, Any, Any]:
        base = runtime.julia_base()
        native = base.include(runtime.start(), str(Path(__file__).with_name("bridge.jl"))).native
        return native, JuliaBackend(lambda: None, {}).new_chain(model), base.Array(x.T)

    native, chain, samples = owner.run(prepared)
    times: dict[str, list[float]] = {"Python": [], "Julia": []}
    with engine.blas_threads(given.threads):
        for _ in range(given.rounds + 1):
            times["Python"].append(from_python())
            times["Julia"].append(owner.run(lambda: float(native(chain, samples, given.tile, 1))))
    best = {name: min(found[1:]) for name, found in times.items()}
    for name, seconds in best.items():
        print(f"from {name:<8}{seconds:8.4f} s")
    cost = best["Python"] / best["Julia"] - 1
    print(f"the bridge costs {cost:.1%} (limit {LIMIT:.0%})")
    return int(cost > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
