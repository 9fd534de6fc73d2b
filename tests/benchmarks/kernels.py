"""How fast kernels are, as ratios within one run: `python tests/benchmarks/kernels.py [--large] [--peer PYTHON]`.

All sides get the same MNIST images, weights, dtype (float32) and number of threads, and take turns, also those that run
in a process of their own. The first call of each is its cold time; the best of the later rounds counts. `--peer` names
the Python of an environment with neural-tangents (jax==0.4.20 jaxlib==0.4.20 "numpy<1.27" "scipy<1.12" on Python 3.11).
`--large` adds n = 60,000, computed and discarded, and stored to disk. Peak memory is what a call took besides what the
process held before, where the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

import udlbridge as ub
from udlbridge import backends
from udlbridge.backends.julia import runtime

HERE = Path(__file__).parent
MODEL = ub.models.three_layer_sigmoid()
FEW = 200
"""Images for the notebook's algorithm, which takes n^2 P operations."""


@dataclass(frozen=True)
class Row:
    """What one side took: seconds of the first call and of the best later one, bytes, and operations if known."""

    first: float
    best: float
    peak: int | None
    flops: float | None


class Process:
    """A side in a process of its own, which computes once for every line that it is sent, and answers with seconds."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self._running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, line: str) -> float:
        """Seconds of the computation that `line` names."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(f"{line}\n")
        self._running.stdin.flush()
        answer = self._running.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._running.args} died with code {self._running.wait()}")
        return float(answer)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._running.pid

    def close(self) -> None:
        """End it."""
        assert self._running.stdin is not None
        self._running.stdin.close()
        self._running.wait()


def peak_of(pid: int, call: Callable[[], float]) -> tuple[float, int | None]:
    """The seconds of a call, and the peak of the resident memory of a process over what it was before; Linux alone."""
    clear, status = Path(f"/proc/{pid}/clear_refs"), Path(f"/proc/{pid}/status")
    try:
        clear.write_text("5")
    except OSError:
        return call(), None
    before = psutil.Process(pid).memory_info().rss
    seconds = call()
    peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return seconds, max(0, peak - before)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


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


def julia_process(folder: Path, x: np.ndarray, threads: int) -> Process:
    """Julia without Python."""
    julia = runtime.location() or runtime.juliapkg_location()
    x.tofile(folder / "x.bin")
    for index, value in enumerate(MODEL.params.values()):
        value.tofile(folder / f"p{index}.bin")
    load_path = os.pathsep.join([str(julia.project), str(runtime.package_path()), "@stdlib"])
    command = [str(julia.exe), "--startup-file=no", str(HERE / "native.jl"), str(folder), str(threads), str(FEW)]
    return Process(command, {**os.environ, "JULIA_LOAD_PATH": load_path})


def peer_process(folder: Path, python: str, x: np.ndarray, threads: int) -> Process:
    """neural-tangents in its own environment."""
    np.savez(folder / "in.npz", x=x, **{f"p{i}": v for i, v in enumerate(MODEL.params.values())})
    return Process([python, str(HERE / "peer_neural_tangents.py"), str(folder), str(threads)])


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


def machine(threads: int) -> str:
    """The processor and what is used of it."""
    name = platform.processor() or platform.machine()
    with_name = [line for line in _cpuinfo() if line.startswith("model name")]
    if with_name:
        name = with_name[0].split(":", 1)[1].strip()
    return f"{name}, {os.cpu_count()} cores, {threads} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="Python of an environment with neural-tangents")
    parser.add_argument("--large", action="store_true", help="also n = 60,000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads, julia = options.threads, backends.availability("julia").ok
    report: dict[str, object] = {"machine": machine(threads), "start-up": start_up()}
    if julia:
        backends.get("julia")  # before torch is imported
    import torch

    torch.set_num_threads(threads)
    report["versions"] = {k: v for name in backends.usable() for k, v in backends.get(name).versions().items()}
    x, _ = ub.data.mnist("train", n=8000)
    a = torch.rand(4000, 4000)

    def flops(n: int, outputs: int | str = 0) -> float:
        return ub.plan(MODEL, n, outputs=outputs, backend="torch", calibrate=False).flops

    here = os.getpid()
    sides: dict[str, tuple[int, Callable[[], float], float | None]] = {}

    def add(name: str, call: Callable[[], object], count: float | None = None) -> None:
        sides[name] = here, lambda: timed(call), count

    def ours(name: str, backend: str, n: int, outputs: int | str = 0) -> None:
        add(name, lambda: ub.ntk(MODEL, x[:n], outputs=outputs, backend=backend, threads=threads), flops(n, outputs))

    add("sgemm 4000", lambda: a @ a, 2 * 4000.0**3)
    for name in backends.usable():
        ours(f"{name} 8000", name, 8000)
        ours(f"{name} 8000 trace", name, 8000, "trace")
    ours("torch 4000", "torch", 4000)
    add("Jacobian + GEMM 4000", lambda: jacobian_and_gemm(x[:4000]))
    add(f"notebook in torch {FEW}", lambda: notebook_in_torch(x[:FEW]))
    ours(f"torch {FEW}", "torch", FEW)
    if julia:
        ours(f"julia {FEW}", "julia", FEW)
    others: list[Process] = []
    with tempfile.TemporaryDirectory() as folder:
        if julia:
            alone = julia_process(Path(folder), x, threads)
            others.append(alone)
            sides["Julia alone 8000, whole"] = alone.pid, lambda: alone.ask("square"), flops(8000)
            sides[f"notebook in Julia {FEW}"] = alone.pid, lambda: alone.ask("notebook"), None
        if options.peer:
            peer = peer_process(Path(folder), options.peer, x, threads)
            others.append(peer)
            sides["neural-tangents 8000"] = peer.pid, lambda: peer.ask("go"), None
        found: dict[str, list[tuple[float, int | None]]] = {name: [] for name in sides}
        for _ in range(options.rounds + 1):
            for name, (pid, call, _flops) in sides.items():
                found[name].append(peak_of(pid, call))
        if options.peer:
            peer.ask("save")
            theirs = np.load(Path(folder) / "out.npy")
            mine = ub.ntk(MODEL, x[:500], outputs=0, backend="reference")
            report["neural-tangents difference"] = float(np.abs(theirs - mine).max() / mine.max())
        for one in others:
            one.close()
    rows = {
        name: Row(
            times[0][0],
            min(seconds for seconds, _ in times[1:]),
            max((peak for _, peak in times[1:] if peak is not None), default=None),
            sides[name][2],
        )
        for name, times in found.items()
    }
    peak = 2 * 4000**3 / rows["sgemm 4000"].best / 1e9
    print(report["machine"])
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))  # type: ignore[attr-defined]
    print(f"\n{'':<26}{'first':>10}{'best':>10}{'GFLOP/s':>9}{'/ sgemm':>9}{'peak MB':>9}")
    for name, row in rows.items():
        rate = "" if row.flops is None else f"{row.flops / row.best / 1e9:.0f}"
        share = "" if row.flops is None else f"{row.flops / row.best / 1e9 / peak:.0%}"
        memory = "" if row.peak is None else f"{row.peak / 1e6:.0f}"
        print(f"{name:<26}{row.first:>9.3f}s{row.best:>9.3f}s{rate:>9}{share:>9}{memory:>9}")
    best = {name: row.best for name, row in rows.items()}
    ratios = {
        "Jacobian + GEMM / torch, 4000": best["Jacobian + GEMM 4000"] / best["torch 4000"],
        "torch trace / torch, 8000": best["torch 8000 trace"] / best["torch 8000"],
        f"notebook in torch / torch, {FEW}": best[f"notebook in torch {FEW}"] / best[f"torch {FEW}"],
    }
    if julia:
        ratios["julia / torch, 8000"] = best["julia 8000"] / best["torch 8000"]
        ratios[f"notebook in Julia / julia, {FEW}"] = best[f"notebook in Julia {FEW}"] / best[f"julia {FEW}"]
    if options.peer:
        ratios["neural-tangents / torch, 8000"] = best["neural-tangents 8000"] / best["torch 8000"]
    if options.large:
        for stored in (False, True):
            report[f"60,000 {'stored' if stored else 'discarded'}"] = row = large(60_000, stored, threads)
            print(json.dumps({"n": 60_000, "stored": stored, **row}))
            ratios[f"GFLOP/s / sgemm, 60,000 {'stored' if stored else 'discarded'}"] = row["gflops"] / row["sgemm"]
        pair = [report[f"60,000 {kind}"]["seconds"] for kind in ("stored", "discarded")]  # type: ignore[index]
        ratios["stored / discarded, 60,000"] = pair[0] / pair[1]
    report |= {"rows": {name: asdict(row) for name, row in rows.items()}, "ratios": ratios}
    print()
    for name, value in {**report["start-up"], **ratios}.items():  # type: ignore[dict-item]
        print(f"{name:<42}{value:>9.3f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
