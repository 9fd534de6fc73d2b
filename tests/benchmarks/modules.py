"""Kernels of PyTorch modules, as they are: against a training step, and against torch.func.

Run from the root of the repository: `python tests/benchmarks/modules.py`. All sides of a row take turns in one run, in
float32; a row says the best time of each, the ratios, the gap between this package's kernel and torch.func's, and what
this package's took at its peak over what the process held. `least` is ours/step by multiply-adds alone: no kernel by
the rules of this package takes fewer. torch.func is given its best: only the outputs that are needed, samples in
chunks, a product for each parameter; several outputs one after the other where all of their gradients together would
take more than `--fits`.

`--device cuda` computes all sides there, and takes turns without and with TF32, for products and convolutions alike; a
row then says too which part of the rate of a large matrix product in the same precision this package's kernel reached.
A machine without one says so, and is done.

`--large` is a kernel of 1,000 images, against as many training steps as pass so many samples and its products at the
rate of the machine's matrix product.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import udlbridge as ub
from udlbridge.backends.rules import gradients_cost, pairs_cost
from udlbridge.backends.sites import Affine, Tied, sites
from udlbridge.kernels.costs import multiply_adds
from udlbridge.kernels.request import kernel_request
from udlbridge.store.peak_memory import PeakMemory

sys.path.insert(0, str(Path(__file__).parents[1]))
from modules import ResNet, Vision  # the networks of the tests


class Language(nn.Module):
    """The shape of GPT-2 with random weights, its table tied to its readout; the logits of the last token."""

    def __init__(self, width: int, blocks: int, heads: int, vocabulary: int, tokens: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        later = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        for block in self.blocks:
            h = block(h, src_mask=later, is_causal=True)
        return self.head(self.norm(h)[:, -1])


def image(*shape: int) -> Callable[[int], Tensor]:
    """Random samples of a shape."""
    return lambda n: torch.randn(n, *shape)


ROWS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], int, int | str]] = {
    "ResNet-18, one output": (lambda: ResNet(64, (2, 2, 2, 2), 3, 10), image(3, 32, 32), 32, 0),
    "ResNet-18, trace of 10": (lambda: ResNet(64, (2, 2, 2, 2), 3, 10), image(3, 32, 32), 16, "trace"),
    "ViT-Tiny, one output": (lambda: Vision(192, 12, 8, 32, 3), image(2, 32, 32), 64, 0),
    "LeNet-5, one output": (lambda: ub.to_torch(ub.models.lenet5()), image(1, 28, 28), 200, 0),
    "small ResNet, one output": (lambda: ub.to_torch(ub.models.small_resnet()), image(3, 32, 32), 50, 0),
    "transformer, one output": (
        lambda: ub.to_torch(ub.models.small_transformer()),
        lambda n: torch.randint(0, 50, (n, 16)),
        100,
        0,
    ),
    "GPT-2 small, one logit": (
        lambda: Language(768, 12, 12, 50257, 32),
        lambda n: torch.randint(0, 50257, (n, 32)),
        8,
        0,
    ),
}
"""The module, its samples, how many, and the reduction."""


def least(module: nn.Module, x: Tensor, outputs: int | str) -> float:
    """Multiply-adds of a kernel by the cheaper rule at each site, of one triangle, over those of a training step.

    A step is three times the forward pass: one for each of the way forward, the errors and the gradients. A kernel has
    a forward pass, the errors of each output, gradients where they are formed, and the products.
    """
    network = ub.as_network(module)
    shape = network.checked_batch(x, "x").shape[1:]
    request = kernel_request(network, shape, outputs=outputs, params=None, backend="torch")
    reduction, pairs, forward, rest = request.reduction, len(x) * (len(x) + 1) / 2, 0.0, 0.0
    for site in sites(network, shape):
        products = pairs * site.multiply_adds(reduction)
        if isinstance(site, Affine):
            passing = len(x) * site.positions * site.inputs * site.outputs * site.groups
            gradients = reduction.n_cotangents * passing + pairs * gradients_cost(site.size, 1, reduction)
            by_pairs = pairs * pairs_cost(site.positions, site.inputs, site.outputs, reduction)
            products = gradients if site.groups > 1 else min(gradients, by_pairs)
            forward += passing
        elif isinstance(site, Tied):
            forward += len(x) * site.affine.positions * site.affine.inputs * site.affine.outputs
        rest += products
    return (forward * (1 + reduction.n_cotangents) + rest) / (3 * forward)


def step(module: nn.Module, x: Tensor) -> None:
    """One training step: forward, and backward to every parameter."""
    torch.autograd.grad(module(x).sum(), list(module.parameters()))
    if x.is_cuda:
        torch.cuda.synchronize()


def with_torch_func(module: nn.Module, x: Tensor, outputs: int | str, chunk: int, fits: float) -> np.ndarray:
    """The kernel from per-sample Jacobians: trace, or one output."""
    params = {name: value.detach() for name, value in module.named_parameters()}
    with torch.no_grad():
        count = module(x[:1]).shape[1] if outputs == "trace" else 1
    every = list(range(count)) if outputs == "trace" else [int(outputs)]
    numbers = len(x) * sum(value.numel() for value in params.values())
    together = max(1, min(count, int(fits / (4 * numbers))))
    kernel = torch.zeros(len(x), len(x), device=x.device)
    for start in range(0, count, together):
        selected = every[start : start + together]

        def one(values: dict[str, Tensor], sample: Tensor, selected: list[int] = selected) -> Tensor:
            return torch.func.functional_call(module, values, (sample[None],))[0][selected]

        found = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0), chunk_size=chunk)(params, x)
        for name in list(found):
            flat = found.pop(name).detach().flatten(1)
            kernel.addmm_(flat, flat.T)
    return kernel.cpu().numpy()


def timed(function: Callable[[], np.ndarray | None]) -> tuple[float, np.ndarray | None]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def row(name: str, args: argparse.Namespace) -> str:
    """The line of one network."""
    make, samples, n, outputs = ROWS[name]
    n *= args.times
    torch.manual_seed(0)
    module = make().eval().to(args.device)
    x = samples(n).to(args.device)
    sides: dict[str, Callable[[], np.ndarray | None]] = {
        "step": lambda: step(module, x),
        "ours": lambda: ub.ntk(module, x, outputs=outputs, memory=args.memory),
    }
    if not args.alone:
        sides["torch.func"] = lambda: with_torch_func(module, x, outputs, args.chunk, args.fits * 1e9)
    best = dict.fromkeys(sides, float("inf"))
    kernels: dict[str, np.ndarray | None] = {}
    peak = 0.0
    for _ in range(args.repeats):
        for side, function in sides.items():
            with PeakMemory() as memory:
                seconds, kernels[side] = timed(function)
            best[side] = min(best[side], seconds)
            peak = max(peak, memory.over_baseline / 1e9) if side == "ours" else peak
    theirs, gap = best.get("torch.func", float("nan")), float("nan")
    if "torch.func" in kernels:
        ours, other = kernels["ours"], kernels["torch.func"]
        assert ours is not None
        assert other is not None
        gap = float(np.abs(ours - other).max() / np.abs(other).max())
    times = f"{best['step']:>8.3f}s{best['ours']:>8.3f}s{theirs:>10.3f}s"
    ratios = f"{best['ours'] / best['step']:>11.2f}{least(module, x, outputs):>8.2f}{theirs / best['ours']:>12.2f}"
    line = f"{name:<26}{n:>5}{times}{ratios}{gap:>10.1e}"
    if args.device == "cpu":
        return f"{line}{peak:>8.2f} GB"
    plan = ub.plan(ub.as_network(module), n, sample_shape=tuple(x.shape[1:]), outputs=outputs, memory=args.memory)
    held = torch.cuda.max_memory_allocated() / 1e9
    return f"{line}{held:>8.2f} GB{plan.flops / best['ours'] / sgemm(args.device):>9.1%}"


def sgemm(device: str = "cpu") -> float:
    """Operations a second of a large matrix product, best of three."""
    side = 3000 if device == "cpu" else 16384
    a, seconds = torch.rand(side, side, device=device), []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(a, a)[0, 0].item()  # waits for it
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)


def large(n: int, memory: str) -> str:
    """ResNet-18, one output, n images: its time over that of n / 32 training steps and of the products."""
    make, samples, together, outputs = ROWS["ResNet-18, one output"]
    torch.manual_seed(0)
    module = make().eval()
    x, batch = samples(n), samples(together)
    network = ub.as_network(module)
    plan = ub.plan(network, n, sample_shape=tuple(x.shape[1:]), outputs=outputs, memory=memory, calibrate=False)
    request = kernel_request(network, tuple(x.shape[1:]), outputs=outputs, params=None, backend="torch", memory=memory)
    step(module, batch)
    steps, rates = [timed(lambda: step(module, batch))[0]], [sgemm()]
    with PeakMemory() as peak:
        seconds, _ = timed(lambda: ub.ntk(module, x, outputs=outputs, memory=memory))
    # Before and after, since other work on the machine comes and goes.
    steps, rates = [*steps, timed(lambda: step(module, batch))[0]], [*rates, sgemm()]
    products = n**2 * multiply_adds(request)  # twice as many operations, of one triangle
    bound = n / together * min(steps) + products / max(rates)
    return (
        f"ResNet-18, one output, n = {n}: {seconds:.1f} s, {seconds / bound:.2f} times the bound of {bound:.1f} s "
        f"(step {min(steps):.2f} s, {products / 1e9:,.0f} GFLOP of products at {max(rates) / 1e9:.0f} GFLOP/s), "
        f"{plan.prepared} passes, {peak.over_baseline / 1e9:.2f} GB of {memory}"
    )


def processor() -> str:
    """Its name, where Linux says it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=";".join(ROWS), help="some of: " + "; ".join(ROWS))
    parser.add_argument("--chunk", type=int, default=8, help="samples at a time for torch.func")
    parser.add_argument("--fits", type=float, default=4.0, help="GB of gradients that torch.func may hold at once")
    parser.add_argument("--times", type=int, default=1, help="so many times the samples: a GPU wants more")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", default="6GB", help="bound of this package's working memory")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where all sides compute")
    parser.add_argument("--alone", action="store_true", help="without torch.func")
    parser.add_argument("--large", type=int, nargs="?", const=1000, help="so many images of the first network instead")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch has no cuda on this machine")
        return
    print(f"{processor()}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    if args.large:
        print(large(args.large, "4GB"))
        return
    head = (
        f"{'network':<26}{'n':>5}{'step':>9}{'ours':>9}{'torch.func':>11}{'ours/step':>11}{'least':>8}{'func/ours':>12}"
        f"{'gap':>10}{'peak':>11}"
    )
    if args.device == "cpu":
        print(head)
        for name in args.rows.split(";"):
            print(row(name, args), flush=True)
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    for rounded in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounded
        print(f"TF32 {'on' if rounded else 'off'}: a matrix product has {sgemm(args.device) / 1e12:.1f} TFLOP/s")
        print(f"{head}  of product")
        for name in args.rows.split(";"):
            torch.cuda.reset_peak_memory_stats()
            print(row(name, args), flush=True)


if __name__ == "__main__":
    main()
