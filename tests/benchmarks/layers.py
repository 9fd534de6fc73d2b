"""Kernels of practical networks: this package against torch.func's vmap(jacrev) and a matrix product.

Run from the root of the repository: `python tests/benchmarks/layers.py [--n 200] [--outputs trace]`. Every row says the
best times of both, their ratio, the gap between the two kernels, and the peak of memory over the baseline. The other
side is given its best: only the outputs that the reduction needs, Jacobians in chunks, one product for each parameter.

The practical size, 1,000 samples of each network within 4 GB: `python tests/benchmarks/layers.py --n 1000 --alone
--repeats 1 --memory 4GB`, once with `--outputs trace` and once with `--outputs 0`; the last column is the peak.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

import udlbridge as ub
from udlbridge.backends.pytorch.tensors import evaluate, tensors
from udlbridge.networks.inputs import plausible_shape, random_batch

NETWORKS = {
    "3ls": ub.models.three_layer_sigmoid,
    "lenet5": ub.models.lenet5,
    "resnet-groupnorm": ub.models.small_resnet,
    "resnet-batchnorm": lambda: ub.models.small_resnet("batch"),
    "transformer": ub.models.small_transformer,
}


def with_torch_func(model: ub.Model, x: np.ndarray, outputs: int | str, chunk: int) -> np.ndarray:
    """The kernel from per-sample Jacobians: trace, or one output."""
    params = tensors(model)

    def one(values: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        y = evaluate(model, values, sample[None])[0]
        return y if outputs == "trace" else y[outputs : outputs + 1]

    jacobian = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0), chunk_size=chunk)
    blocks = jacobian(params, torch.tensor(x))
    kernel = torch.zeros(len(x), len(x))
    for name in list(blocks):
        flat = blocks.pop(name).detach().flatten(1)
        kernel.addmm_(flat, flat.T)
    return kernel.numpy()


def timed(function, repeats: int) -> tuple[float, np.ndarray]:
    """The best time of `repeats`, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def measured(name: str, outputs: int | str, n: int, chunk: int, repeats: int, alone: bool, memory: str) -> str:
    """The row of one network."""
    model = NETWORKS[name]()
    shape = plausible_shape(model)
    assert shape is not None
    x = random_batch(model, shape, n)
    ub.ntk(model, x[:2], outputs=outputs, backend="torch")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, kernel = timed(lambda: ub.ntk(model, x, outputs=outputs, backend="torch", memory=memory), repeats)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    theirs, gap = float("nan"), float("nan")
    if not alone:
        with_torch_func(model, x[:2], outputs, chunk)
        theirs, other = timed(lambda: with_torch_func(model, x, outputs, chunk), repeats)
        gap = float(np.abs(kernel - other).max() / np.abs(other).max())
    times = f"{theirs:>11.2f}s{ours:>11.2f}s{theirs / ours:>8.1f}"
    return f"{name:<20}{model.n_params:>9,}{times}{gap:>10.1e}{peak:>9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--outputs", default="trace", help="trace, or the number of an output")
    parser.add_argument("--chunk", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--alone", action="store_true", help="only this package, for its memory")
    parser.add_argument("--memory", default="2GB", help="bound of this package's working memory")
    args = parser.parse_args()
    outputs = args.outputs if args.outputs == "trace" else int(args.outputs)
    print(f"n = {args.n}, outputs = {outputs}, {torch.get_num_threads()} threads")
    print(f"{'network':<20}{'P':>9}{'torch.func':>12}{'udlbridge':>12}{'ratio':>8}{'gap':>10}{'peak MB':>9}")
    for name in args.networks.split(","):
        print(measured(name, outputs, args.n, args.chunk, args.repeats, args.alone, args.memory), flush=True)


if __name__ == "__main__":
    main()
