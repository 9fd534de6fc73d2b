"""Ridge classification of MNIST with kernels that are not in memory: seconds, iterations, residuals, errors.

    python tests/benchmarks/predict.py [--n 10000] [--exact 4000] [--memory 4GB] [--folder FOLDER]

The notebook's network, one output, ten one-hot targets less 0.1, float32. First, on the first `--exact` images,
conjugate gradients against Cholesky, with the kernel and by products in float64 without it: test outputs must agree to
1e-6. Then `--n` images from a store (7.2 GB for 60,000, one triangle) and through an operator, without any kernel. An
iteration must not take more than 1.3 times as long as reading all tiles of the store, one after the other; what is read
is checked, as the product checks it. The best of three times counts, for both. Before each, the tiles are dropped from
the page cache (where the system can do that), as they are not there for a store that is larger than memory; the ratio
with all of them there is printed too, where the 40 operations in float64 for every entry are what takes time. The store
is removed at the end. Exits with 1 if a limit is exceeded.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

import udlbridge as ub
from udlbridge.predict.classification import centred_targets, predicted_outputs

LIMIT = 1.3
AGREE = 1e-6
REG = 1e-3


def classified(model: ub.Model, coefficients: np.ndarray, x: np.ndarray, test: Any) -> tuple[np.ndarray, float]:
    """Outputs of the test images, and their error rate."""
    found = predicted_outputs(model, test[0], x, coefficients, outputs=0)
    return found, float(np.mean(found.argmax(axis=1) != test[1]))


def drop(folder: Path) -> None:
    """Have the disk alone hold the files of a folder, as far as the system does so when asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def best(work: Callable[[], object], before: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of several times, in seconds; `before` each, something that does not count."""
    times = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def exact(name: str, kernel: Any, k: np.ndarray, model: ub.Model, x: np.ndarray, labels: np.ndarray, test: Any) -> bool:
    """Conjugate gradients with `kernel` against Cholesky of `k`, in one line; whether they agree."""
    y, reg = centred_targets(labels, 10), REG * float(np.diagonal(k).mean())
    wanted = cho_solve(cho_factor(k + reg * np.eye(len(k))), y)
    # Of rank 1,000, so that there is something left to iterate.
    found = ub.predict.solve(kernel, y, diag_reg=REG, tolerance=1e-9, rank=min(1000, len(x) // 4), progress=False)
    here, error = classified(model, found.coefficients, x, test)
    there, other = classified(model, wanted, x, test)
    gap = float(np.abs(here - there).max() / np.abs(there).max())
    print(f"n = {len(x)}, {name}: {found.iterations} iterations, {gap:.1e} from Cholesky (at most {AGREE:g}); "
          f"test error {error:.2%}, by Cholesky {other:.2%}", flush=True)  # fmt: skip
    return gap <= AGREE


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--exact", type=int, default=4_000)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    model = ub.models.three_layer_sigmoid()
    x, labels = ub.data.mnist("train", n=given.n)
    test = ub.data.mnist("test")
    few, own, wide = x[: given.exact], labels[: given.exact], model.astype("float64")
    agree = exact("array", k := ub.ntk(model, few, outputs=0).astype(np.float64), k, model, few, own, test)
    # By products the kernel is what float64 gives; that of float32 differs by more than the solutions may.
    few, images = few.astype(np.float64), (test[0].astype(np.float64), test[1])
    k = ub.ntk(wide, few, outputs=0)
    agree &= exact("operator", ub.ntk_operator(wide, few, outputs=0), k, wide, few, own, images)
    y = centred_targets(labels, 10)
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        began = time.perf_counter()
        store = ub.compute_kernel(model, x, folder / "K.zarr", outputs=0, memory=given.memory, progress=False)
        print(f"n = {len(x)}: stored in {time.perf_counter() - began:.1f} s", flush=True)
        vectors = np.random.default_rng(0).standard_normal((len(x), 10))
        ratios = []
        for where, before in (("disk", lambda: drop(store.path)), ("page cache", lambda: None)):
            reading = best(lambda: [len(block) for _, block in store.tiles()], before)
            ratios.append(best(lambda: store @ vectors, before) / reading)
            print(f"from the {where}: reading all tiles once {reading:.2f} s, a product / reading {ratios[-1]:.2f}",
                  flush=True)  # fmt: skip
        ratio = ratios[0]
        operator = ub.ntk_operator(model, x, outputs=0)
        for name, kernel in (("store", store), ("operator", operator)):
            began = time.perf_counter()
            found = ub.predict.solve(kernel, y, diag_reg=REG, tolerance=1e-6, memory=given.memory, progress=False)
            seconds = time.perf_counter() - began
            _, error = classified(model, found.coefficients, x, test)
            print(f"{name:>9}: {seconds:.1f} s, {found.iterations} iterations, rank {found.rank}, residual "
                  f"{found.residuals.max():.1e}, test error {error:.2%}", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    sys.exit(int(not agree or ratio > LIMIT))


main()
