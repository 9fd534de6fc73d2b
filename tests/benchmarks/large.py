"""One large kernel in a process of its own, for `kernels.py`: computed and discarded, or stored to disk."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import udlbridge as ub
from udlbridge import backends
from udlbridge.kernels.planning import make_plan
from udlbridge.kernels.request import kernel_request
from udlbridge.kernels.tiling import TileComputer
from udlbridge.store.peak_memory import PeakMemory


def sgemm(a: torch.Tensor) -> float:
    """The machine's rate in GFLOP/s, best of three."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        best = max(best, 2 * len(a) ** 3 / (time.perf_counter() - start) / 1e9)
    return best


def main() -> None:
    """Print one line of JSON."""
    n, stored, threads = int(sys.argv[1]), sys.argv[2] == "stored", int(sys.argv[3])
    torch.set_num_threads(threads)
    model = ub.models.three_layer_sigmoid()
    x, _ = ub.data.mnist("train", n=n)
    a = torch.rand(4000, 4000)
    rates = [sgemm(a)]
    ub.ntk(model, x[:256], outputs=0, backend="torch", threads=threads)
    request = kernel_request(model, (784,), outputs=0, params=None, backend="torch", memory="1.5GB", threads=threads)
    plan = make_plan(request, n)
    with PeakMemory() as memory:
        start = time.perf_counter()
        if stored:
            folder = Path(tempfile.mkdtemp(dir="."))
            try:
                ub.compute_kernel(
                    model,
                    x,
                    folder / "K.zarr",
                    outputs=0,
                    backend="torch",
                    memory="1.5GB",
                    threads=threads,
                    progress=False,
                )
                seconds = time.perf_counter() - start
            finally:
                shutil.rmtree(folder)
        else:
            tiles = TileComputer(backends.get("torch"), request, x, None, plan.grid, plan.cached_blocks)
            buffer = np.empty((plan.tile, plan.tile), dtype=np.float32)
            with tiles as computer:
                for tile in plan.grid.tiles():
                    computer.compute(tile, buffer[: tile.shape[0], : tile.shape[1]])
            seconds = time.perf_counter() - start
    rates.append(sgemm(a))
    row = {"seconds": seconds, "gflops": plan.flops / seconds / 1e9, "sgemm": max(rates)}
    print(json.dumps({**row, "peak_bytes": memory.over_baseline}))


main()
