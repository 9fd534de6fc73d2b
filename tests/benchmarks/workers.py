"""What several workers gain: one kernel stored by this process and by workers, of one thread each.

Efficiency is the time of this process, without workers, over the time and the number of the workers: 100 % would be
workers that cost nothing. Nothing else should run on the machine. The disk is one for all: where it is the limit, give
--ram, which stores into memory (/dev/shm).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import udlbridge as ub


@contextmanager
def pool(workers: int, kind: str):  # type: ignore[no-untyped-def]
    """An executor with so many processes, none for 0, which have everything imported."""
    if workers == 0:
        yield None
    elif kind == "dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as made,
        ):
            yield made
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as made:
            yield made


def main() -> None:
    """Print a line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--workers", default="0,1,2", help="numbers of workers; 0, the first, is this process")
    parser.add_argument("--kind", choices=("processes", "dask"), default="processes")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--ram", action="store_true")
    asked = parser.parse_args()
    model = ub.models.three_layer_sigmoid()
    x, _ = ub.data.mnist("train", n=asked.n)
    vectors = np.random.default_rng(0).standard_normal((asked.n, 4))
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if asked.ram else "."))
    options = {"outputs": 0, "backend": "torch", "threads": 1, "calibrate": False, "progress": False}
    alone: dict[str, float] = {}
    print(f"{'workers':>8} {'kernel':>10} {'efficiency':>11} {'product':>10} {'efficiency':>11}")
    try:
        for count in map(int, asked.workers.split(",")):
            seconds = {"kernel": float("inf"), "product": float("inf")}
            with pool(count, asked.kind) as executor:
                for number in range(asked.repeat + 1):
                    few = slice(0, 3000 if number == 0 else None)  # workers import everything the first time
                    path = folder / "K.zarr"
                    start = time.perf_counter()
                    ub.compute_kernel(model, x[few], path, overwrite=True, executor=executor, **options)
                    middle = time.perf_counter()
                    store = ub.KernelStore(path, executor=executor, memory="8GB")
                    begun = time.perf_counter()
                    with threadpool_limits(1, "blas"):
                        store @ vectors[few]
                    if number:
                        seconds["kernel"] = min(seconds["kernel"], middle - start)
                        seconds["product"] = min(seconds["product"], time.perf_counter() - begun)
            alone = alone or seconds
            shares = {name: alone[name] / seconds[name] / max(count, 1) for name in seconds}
            print(
                f"{count:8} {seconds['kernel']:8.2f} s {shares['kernel']:11.0%} {seconds['product']:8.2f} s "
                f"{shares['product']:11.0%}"
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
