"""How fast kernels are, as ratios within one run: `python tests/benchmarks/kernels.py [--large] [--peer PYTHON]`.

All sides get the same MNIST images, weights, dtype (float32) and number of threads, and take turns; the best of the
rounds counts. `--peer` names the Python of an environment with neural-tangents (jax==0.4.20 jaxlib==0.4.20
"numpy<1.27" "scipy<1.12" on Python 3.11). `--large` adds n = 60,000, computed and discarded, and stored to disk.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import udlbridge as ub
from udlbridge import backends
from udlbridge.backends import runtime

HERE = Path(__file__).parent
MODEL = ub.models.three_layer_sigmoid()


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """(first, best later) seconds of every side; the sides alternate within each round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, function in sides.items():
            found[name].append(timed(function))
    return {name: (times[0], min(times[1:])) for name, times in found.items()}


def jacobian_and_gemm(x: np.ndarray, chunk: int = 500) -> np.ndarray:
    """The usual way in PyTorch: per-sample gradients of output 0 by vmap(grad), kept, and one matrix product."""
    import torch
    from torch.func import functional_call, grad, vmap

    net = torch.nn.Sequential(
        torch.nn.Linear(784, 60), torch.nn.Sigmoid(), torch.nn.Linear(60, 60), torch.nn.Sigmoid(),
        torch.nn.Linear(60, 10), torch.nn.Sigmoid(), torch.nn.Softmax(-1),
    )  # fmt: skip
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    params = {name: torch.tensor(value) for name, value in zip(names, MODEL.params.values(), strict=True)}
    per_sample = vmap(grad(lambda p, one: functional_call(net, p, (one[None],))[0, 0]), in_dims=(None, 0))
    rows = []
    for start in range(0, len(x), chunk):
        grads = per_sample(params, torch.from_numpy(x[start : start + chunk]))
        rows.append(torch.cat([g.flatten(1) for g in grads.values()], dim=1))
    jacobian = torch.cat(rows)
    return (jacobian @ jacobian.T).numpy()


def notebook_in_torch(x: np.ndarray) -> np.ndarray:
    """The notebook's algorithm: one gradient per image, then n^2 dot products of lists of arrays."""
    import torch

    params = [torch.tensor(value, requires_grad=True) for value in MODEL.params.values()]
    gradients = []
    for image in torch.from_numpy(x):
        h = image
        for weight, bias in zip(params[::2], params[1::2], strict=True):
            h = torch.sigmoid(weight @ h + bias)
        gradients.append(torch.autograd.grad(torch.softmax(h, 0)[0], params))
    kernel = np.zeros((len(x), len(x)))
    for i, left in enumerate(gradients):
        for j, right in enumerate(gradients):
            kernel[i, j] = sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))
    return kernel


def in_julia(x: np.ndarray, threads: int, n_notebook: int) -> dict[str, float]:
    """Seconds of the notebook's algorithm, and of our kernel without the bridge, in a Julia process of their own."""
    place = runtime.location() or runtime.juliapkg_location()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "x.bin"
        x.tofile(raw)
        for index, value in enumerate(MODEL.params.values()):
            value.tofile(Path(folder) / f"p{index}.bin")
        import os

        load_path = os.pathsep.join([str(place.project), str(runtime.package_path()), "@stdlib"])
        command = [str(place.exe), "--startup-file=no", str(HERE / "native.jl"), folder, str(threads), str(n_notebook)]
        done = subprocess.run(
            command, env={**os.environ, "JULIA_LOAD_PATH": load_path}, capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(python: str, x: np.ndarray, threads: int) -> dict[str, float]:
    """Cold and warm seconds of neural-tangents in its own environment, and its kernel's difference from ours."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", x=x, **{f"p{i}": v for i, v in enumerate(MODEL.params.values())})
        command = [python, str(HERE / "peer_neural_tangents.py"), folder, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        kernel = np.load(Path(folder) / "out.npy")
    ours = ub.ntk(MODEL, x[:500], outputs=0, backend="reference")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {**result, "difference": float(np.abs(kernel - ours).max() / ours.max())}


def large(n: int, stored: bool, threads: int) -> dict[str, float]:
    """n images in a process of its own: seconds, GFLOP/s, the machine's sgemm before and after, peak memory."""
    done = subprocess.run(
        [sys.executable, str(HERE / "large.py"), str(n), "stored" if stored else "discarded", str(threads)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def start_up() -> dict[str, float]:
    """Best of ten: `udlbridge --help`, `import udlbridge`, and a Python that does nothing."""
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import udlbridge": [sys.executable, "-c", "import udlbridge"],
        "udlbridge --help": [sys.executable, "-m", "udlbridge", "--help"],
    }
    return {
        name: min(timed(lambda c=command: subprocess.run(c, capture_output=True, check=True)) for _ in range(10))
        for name, command in commands.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="Python of an environment with neural-tangents")
    parser.add_argument("--large", action="store_true", help="also n = 60,000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    julia = backends.availability("julia").ok
    if julia:
        backends.get("julia")  # before torch is imported
    import torch

    threads = options.threads
    torch.set_num_threads(threads)
    x, _ = ub.data.mnist("train", n=8000)
    a = torch.rand(4000, 4000)
    report: dict[str, object] = {
        "machine": f"{platform.processor() or platform.machine()}, {threads} threads",
        "versions": {k: v for name in backends.usable() for k, v in backends.get(name).versions().items()},
        "start-up": start_up(),
    }

    def ours(backend: str, n: int, outputs: int | str = 0) -> Callable[[], object]:
        return lambda: ub.ntk(MODEL, x[:n], outputs=outputs, backend=backend, threads=threads)

    sides: dict[str, Callable[[], object]] = {"sgemm 4000": lambda: a @ a}
    for name in backends.usable():
        sides[f"{name} 8000"] = ours(name, 8000)
        sides[f"{name} 8000 trace"] = ours(name, 8000, "trace")
    sides["torch 4000"] = ours("torch", 4000)
    sides["Jacobian + GEMM 4000"] = lambda: jacobian_and_gemm(x[:4000])
    sides["notebook in torch 200"] = lambda: notebook_in_torch(x[:200])
    sides["torch 200"] = ours("torch", 200)
    times = take_turns(sides, options.rounds)
    if julia:
        native = in_julia(x, threads, 200)
        times["Julia alone, square"] = (native["first"], native["best"])
        times["notebook in Julia 200"] = (native["notebook_first"], native["notebook_best"])
    if options.peer:
        found = peer(options.peer, x, threads)
        times["neural-tangents 8000"] = (found["first"], found["best"])
        report["neural-tangents difference"] = found["difference"]
    report["times"] = times
    best = {name: pair[1] for name, pair in times.items()}
    peak = 2 * 4000**3 / best["sgemm 4000"] / 1e9
    made = ub.plan(MODEL, 8000, outputs=0, backend="torch", calibrate=False)
    print(f"{'':<26}{'first':>10}{'best':>10}")
    for name, (first, later) in times.items():
        print(f"{name:<26}{first:>9.3f}s{later:>9.3f}s")
    print(f"\nsgemm {peak:.0f} GFLOP/s; torch 8000 {made.flops / best['torch 8000'] / 1e9:.0f} GFLOP/s")
    ratios = {
        "Jacobian + GEMM / torch, 4000": best["Jacobian + GEMM 4000"] / best["torch 4000"],
        "torch trace / torch, 8000": best["torch 8000 trace"] / best["torch 8000"],
        "notebook in torch / torch, 200": best["notebook in torch 200"] / best["torch 200"],
    }
    if julia:
        ratios["julia / torch, 8000"] = best["julia 8000"] / best["torch 8000"]
        ratios["notebook in Julia / julia, 200"] = best["notebook in Julia 200"] / timed(ours("julia", 200))
    if options.peer:
        ratios["neural-tangents / torch, 8000"] = best["neural-tangents 8000"] / best["torch 8000"]
    if options.large:
        for stored in (False, True):
            report[f"60,000 {'stored' if stored else 'discarded'}"] = row = large(60_000, stored, threads)
            print(json.dumps({"n": 60_000, "stored": stored, **row}))
            ratios[f"GFLOP/s / sgemm, 60,000 {'stored' if stored else 'discarded'}"] = row["gflops"] / row["sgemm"]
        pair = [report[f"60,000 {kind}"]["seconds"] for kind in ("stored", "discarded")]  # type: ignore[index]
        ratios["stored / discarded, 60,000"] = pair[0] / pair[1]
    report["ratios"] = ratios
    for name, value in {**report["start-up"], **ratios}.items():  # type: ignore[dict-item]
        print(f"{name:<42}{value:>9.3f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
