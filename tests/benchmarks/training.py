"""Ratios of speed for training and alignment, each within one run of one machine.

    python tests/benchmarks/training.py [--backends torch,julia] [--n 20000] [--repeats 5]

One epoch of the alignment study (11,800 random images, 784-2000-2 ReLU, batches of 200, SGD, float32) by a loop written
by hand in PyTorch and by `udlbridge.train`; and the streaming alignment of two kernels on disk against reading them
once, tile by tile, into memory. The best of several alternating repeats counts. Exits with 1 if a limit is exceeded.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import udlbridge as ub
from udlbridge import backends
from udlbridge.analysis.bands import TILE
from udlbridge.training.trainer import batch_order

N, WIDTH, BATCH = 11_800, 2_000, 200
LIMITS = {"torch / by hand": 1.15, "julia / torch": 2.0, "alignment / reading": 2.0}


def best(repeats: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """The shortest time of every job, after one call to warm up; the jobs take turns."""
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in times.items()}


def by_hand(model: ub.Model, x: np.ndarray, y: np.ndarray) -> float:
    """What one would write for this one network: same batches, loss read at every step."""
    import torch

    hidden, readout = torch.nn.Linear(784, WIDTH), torch.nn.Linear(WIDTH, 2)
    network = torch.nn.Sequential(hidden, torch.nn.ReLU(), readout)
    with torch.no_grad():
        for index, layer in enumerate((hidden, readout)):
            layer.weight.copy_(torch.tensor(model.params[f"{index}.weight"]))
            layer.bias.copy_(torch.tensor(model.params[f"{index}.bias"]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    loss_function = torch.nn.CrossEntropyLoss()
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for batch in torch.from_numpy(batch_order(len(x), 0, 0)).split(BATCH):
        loss = loss_function(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.item()
    return last


def training(names: list[str], repeats: int) -> dict[str, float]:
    """Seconds for one epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.random((N, 784), dtype=np.float32), rng.integers(0, 2, N)
    model = ub.models.hidden_relu(WIDTH)
    last: dict[str, float] = {}

    def run(name: str) -> Callable[[], None]:
        def job() -> None:
            options = {"optimizer": ("sgd", {"lr": 0.01}), "batch_size": BATCH, "evaluate_every": 0, "progress": False}
            last[name] = ub.train(model, x, y, backend=name, epochs=1, **options).losses[-1]

        return job

    def hand() -> None:
        last["by hand"] = by_hand(model, x, y)

    times = best(repeats, **{"by hand": hand}, **{name: run(name) for name in names})
    if max(last.values()) - min(last.values()) > 1e-3:
        raise SystemExit(f"not the same training: last losses {last}")
    return times


def streaming(n: int, repeats: int) -> dict[str, float]:
    """Seconds to align two float32 kernels on disk, and to read them once; the page cache is warm for both."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        kernels = []
        for name in ("a", "b"):
            path = Path(folder) / f"{name}.npy"
            phi = rng.standard_normal((n, 20)).astype(np.float32)
            file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, n))
            for start in range(0, n, TILE):
                file[start : start + TILE] = phi[start : start + TILE] @ phi.T
            del file
            kernels.append(np.load(path, mmap_mode="r"))
        buffer = np.empty((TILE, TILE), dtype=np.float32)

        def read() -> None:
            for kernel in kernels:
                for i in range(0, n, TILE):
                    for j in range(0, n, TILE):
                        block = kernel[i : i + TILE, j : j + TILE]
                        buffer[: block.shape[0], : block.shape[1]] = block

        return best(repeats, reading=read, alignment=lambda: ub.alignment(*kernels))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=None, help="engines, with commas; all that are usable by default")
    parser.add_argument("--n", type=int, default=20_000, help="size of the two kernels")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    names = backends.selected(given.backends.split(",") if given.backends else ["julia", "torch"])
    names = [name for name in names if backends.availability(name).ok]
    for name in names:
        backends.get(name)  # Julia before torch
    times = training(names, given.repeats) | streaming(given.n, given.repeats)
    for name, seconds in times.items():
        print(f"{name:<12} {seconds:8.3f} s")
    failed = False
    for ratio, limit in LIMITS.items():
        over, under = ratio.split(" / ")
        if over in times and under in times:
            value = times[over] / times[under]
            failed |= value > limit
            print(f"{ratio:<22} {value:6.2f}  limit {limit:.2f}  {'ok' if value <= limit else 'ABOVE'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
