"""Kernels of PyTorch modules that crossed as graphs: Julia against torch, first and later calls.

Run from the root of the repository: `python tests/benchmarks/graphs.py`. A row says the seconds of the graph in torch,
of the graph in Julia, of Julia's first call (it compiles each kind of operation once in a process, so rows after the
first have less to compile), the ratio of the two engines, and the gap between their kernels. Both sides take turns, in
float32, and the best time of each counts. `--chains` adds the same networks in Julia as chains of Flux's layers, where
they are such chains.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import udlbridge as ub

sys.path.insert(0, str(Path(__file__).parents[1]))
from modules import ResNet, Vision  # the networks of the tests


class Whole(nn.Module):
    """A list of layers with a forward of its own, so that it crosses as a graph."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def of_model(make: Callable[[], ub.Model]) -> Callable[[], tuple[nn.Module, ub.Model]]:
    """A model of this package as a module, and itself."""

    def both() -> tuple[nn.Module, ub.Model]:
        model = make()
        return Whole(ub.to_torch(model)), model

    return both


@dataclass(frozen=True)
class Row:
    """A network, as a module and, where it is one, a model; the shape and number of its samples; the outputs."""

    make: Callable[[], tuple[nn.Module, ub.Model | None]]
    shape: tuple[int, ...]
    n: int
    outputs: int | str
    tokens: bool = False

    def samples(self) -> np.ndarray:
        """Images, rows of numbers, or tokens."""
        generator = np.random.default_rng(0)
        if self.tokens:
            return generator.integers(0, 50, (self.n, *self.shape))
        return generator.standard_normal((self.n, *self.shape)).astype(np.float32)


ROWS = {
    "784-60-60-10, one output": Row(of_model(ub.models.three_layer_sigmoid), (784,), 2000, 0),
    "LeNet-5, one output": Row(of_model(ub.models.lenet5), (1, 28, 28), 200, 0),
    "small ResNet, one output": Row(of_model(ub.models.small_resnet), (3, 32, 32), 50, 0),
    "small ResNet, trace of 10": Row(of_model(ub.models.small_resnet), (3, 32, 32), 20, "trace"),
    "transformer, one output": Row(of_model(ub.models.small_transformer), (16,), 100, 0, tokens=True),
    "ResNet-10 of width 32, one output": Row(lambda: (ResNet(32, (1, 1, 1, 1), 3, 10), None), (3, 32, 32), 32, 0),
    "ViT of 4 blocks, one output": Row(lambda: (Vision(96, 4, 8, 32, 4), None), (2, 32, 32), 64, 0),
}


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Of one call, and what it gives."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def measured(name: str, repeats: int, chains: bool) -> str:
    """The row of one network."""
    row, outputs = ROWS[name], ROWS[name].outputs
    torch.manual_seed(0)
    module, model = row.make()
    x = row.samples()
    graph = ub.from_torch(module.eval(), x)
    sides: dict[str, Callable[[], np.ndarray]] = {
        engine: lambda engine=engine: ub.ntk(graph, x, outputs=outputs, backend=engine) for engine in ("torch", "julia")
    }
    if chains and model is not None:
        sides["chain"] = lambda: ub.ntk(model, x, outputs=outputs, backend="julia")
    first = {side: seconds(call)[0] for side, call in sides.items()}
    best = dict.fromkeys(sides, float("inf"))
    kernels = {}
    for _ in range(repeats):
        for side, call in sides.items():
            took, kernels[side] = seconds(call)
            best[side] = min(best[side], took)
    gap = float(np.abs(kernels["julia"] - kernels["torch"]).max() / np.abs(kernels["torch"]).max())
    line = f"{name:<36}{best['torch']:>9.3f}{best['julia']:>9.3f}{first['julia']:>9.2f}"
    line += f"{best['julia'] / best['torch']:>8.2f}{gap:>10.1e}"
    return line + (f"{best['chain']:>9.3f}{first['chain']:>9.2f}" if "chain" in sides else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", default=";".join(ROWS), help="names of rows, with ; between them")
    parser.add_argument("--chains", action="store_true", help="Flux's layers in Julia too")
    args = parser.parse_args()
    ub.ntk(ub.models.three_layer_sigmoid(), np.zeros((2, 784), np.float32), backend="julia")  # its start does not count
    print(f"{torch.get_num_threads()} threads of torch")
    print(f"{'network':<36}{'torch':>9}{'julia':>9}{'first':>9}{'ratio':>8}{'gap':>10}{'chain':>9}{'first':>9}")
    for name in args.networks.split(";"):
        print(measured(name, args.repeats, args.chains), flush=True)


if __name__ == "__main__":
    main()
