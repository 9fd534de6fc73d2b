"""Kernels of infinitely wide networks: seconds, and the rate of entries.

    python tests/benchmarks/infinite.py [--n 2000] [--large] [--peer PYTHON] [--repeats 3] [--threads COUNT]
        [--activations relu erf gelu_erf tanh]

NNGP and NTK together, of two hidden layers on MNIST, for activations in closed form and for a series, and of a small
convolutional network; the best of several repeats counts. `--large` adds n = 10,000 of the Dense network, to be done
within a minute on two cores. `--peer` is a Python that has neural-tangents, which computes the same on as many threads,
by its second call: ours must not be slower. That library fails to import with a current JAX, so that it needs an
environment of its own with versions of its time, for Python 3.9 to 3.12:

    python -m venv peer && peer/bin/pip install neural-tangents==0.6.5 jax==0.4.26 jaxlib==0.4.26 "numpy<2" "scipy<1.13"

Without one, there is no comparison. Exits with 1 if a limit is exceeded.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import udlbridge as ub
from udlbridge.networks.layers import Layer

ACTIVATIONS = ("relu", "erf", "gelu_erf", "tanh")
KNOWN_TO_PEER = {"relu": "Relu()", "erf": "Erf()", "gelu_erf": "Gelu()"}
LARGE_SECONDS = 60.0
PEER = """
import os, sys, time
import numpy as np
threads = int(sys.argv[3])
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:threads]))
import jax
jax.config.update("jax_enable_x64", True)
from neural_tangents import stax
x = np.load(sys.argv[1])
dense = lambda: stax.Dense(1, W_std=1.4, b_std=0.1)
_, _, kernel = stax.serial(dense(), stax.{activation}, dense(), stax.{activation}, dense())
kernel = jax.jit(kernel, static_argnames="get")
for _ in range(2):
    began = time.perf_counter()
    found = kernel(x, None, get=("nngp", "ntk"))
    found.ntk.block_until_ready()
    seconds = time.perf_counter() - began
np.save(sys.argv[2], np.asarray(found.ntk[:50, :50]))
print(seconds)
"""


def dense(activation: str) -> list[Layer]:
    """Two hidden layers; widths play no part."""
    return [ub.Dense(784, 8, activation), ub.Dense(8, 8, activation), ub.Dense(8, 1)]


def measured(layers: list[Layer], x: np.ndarray, repeats: int, threads: int) -> tuple[float, ub.infinite.Kernels]:
    """The shortest time, and the kernels."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        found = ub.infinite.kernels(layers, x, w_std=1.4, b_std=0.1, threads=threads)
        best = min(best, time.perf_counter() - began)
    return best, found


def peer_seconds(python: str, activation: str, x: np.ndarray, ours: np.ndarray, threads: int) -> float:
    """The second call of neural-tangents on the same samples; its corner must be ours."""
    with tempfile.TemporaryDirectory() as folder:
        samples, corner = Path(folder) / "x.npy", Path(folder) / "corner.npy"
        np.save(samples, x)
        code = PEER.replace("{activation}", KNOWN_TO_PEER[activation])
        done = subprocess.run(
            [python, "-c", code, str(samples), str(corner), str(threads)], capture_output=True, text=True, check=True
        )
        np.testing.assert_allclose(np.load(corner), ours[:50, :50], rtol=1e-6)
        return float(done.stdout.split()[-1])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--peer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--activations", nargs="+", choices=sorted(ACTIVATIONS), default=ACTIVATIONS)
    given = parser.parse_args()
    images = ub.data.mnist("train", n=10_000 if given.large else given.n)[0].astype(np.float64)
    x, failed = images[: given.n], False
    print(f"n = {given.n}, NNGP and NTK in float64, {given.threads} threads")
    if not given.peer:
        print("without neural-tangents; --peer PYTHON compares with it, see --help")
    print(f"{'network':<22}{'seconds':>9}{'Mentries/s':>12}{'peer':>9}{'peer / ours':>13}")
    for activation in given.activations:
        seconds, found = measured(dense(activation), x, given.repeats, given.threads)
        row = f"{'Dense, ' + activation:<22}{seconds:>9.2f}{len(x) ** 2 / seconds / 1e6:>12.1f}"
        if given.peer and activation in KNOWN_TO_PEER:
            assert found.ntk is not None
            other = peer_seconds(given.peer, activation, x, found.ntk, given.threads)
            row += f"{other:>9.2f}{other / seconds:>13.2f}"
            failed |= other < seconds
        print(row, flush=True)
    small = x[: min(len(x), 200)].reshape(-1, 1, 28, 28)
    layers = [
        ub.Conv2d(1, 4, 3, stride=2, activation="relu"),
        ub.Conv2d(4, 4, 3, stride=2, activation="relu"),
        ub.Flatten(),
        ub.Dense(144, 1),
    ]
    seconds, _ = measured(layers, small, given.repeats, given.threads)
    print(f"{f'Conv, n = {len(small)}':<22}{seconds:>9.2f}{len(small) ** 2 / seconds / 1e6:>12.1f}", flush=True)
    if given.large:
        seconds, _ = measured(dense("relu"), images, 1, given.threads)
        slow = seconds > LARGE_SECONDS
        failed |= slow
        print(f"{f'Dense, n = {len(images)}':<22}{seconds:>9.2f}{len(images) ** 2 / seconds / 1e6:>12.1f}"
              f"  at most {LARGE_SECONDS:.0f}: {'TOO SLOW' if slow else 'ok'}")  # fmt: skip
    sys.exit(int(failed))


main()
