"""The PyTorch engine, and the only module that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

from udlbridge.backends import pytorch_operator
from udlbridge.backends.base import Backend, KernelJob
from udlbridge.errors import OptionError
from udlbridge.layers import Dense, Flatten, Layer, Softmax
from udlbridge.model import Model
from udlbridge.reduction import Reduction

Params = Mapping[str, Tensor]
Tap = Callable[[Tensor, Tensor, bool], Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu_tanh": lambda z: nnf.gelu(z, approximate="tanh"),
    "gelu_erf": nnf.gelu,
    # torch returns z itself above `threshold` (20 by default), which costs 2e-9 in float64: above 50 it is exact.
    "softplus": lambda z: nnf.softplus(z, threshold=50.0),
    "swish": nnf.silu,
    "elu": nnf.elu,
    "leakyrelu": nnf.leaky_relu,
    "selu": torch.selu,
    "mish": nnf.mish,
}
"""torch's function for every activation."""


def _no_tap(inputs: Tensor, preactivation: Tensor, bias: bool) -> Tensor:
    return preactivation


def dense(layer: Dense, params: Params, x: Tensor, tap: Tap) -> Tensor:
    """activation(W x + b)."""
    z = tap(x, nnf.linear(x, params["weight"], params.get("bias")), layer.bias)
    return ACTIVATIONS[layer.activation](z)


RULES: dict[type[Layer], Callable[[Any, Params, Tensor, Tap], Tensor]] = {
    Dense: dense,
    Softmax: lambda layer, params, x, tap: torch.softmax(x, dim=-1),
    Flatten: lambda layer, params, x, tap: x.flatten(1),
}
"""How torch evaluates each class of layer. `tap` sees the input and the preactivation of every affine map."""


def evaluate(model: Model, params: Params, x: Tensor, tap: Tap = _no_tap) -> Tensor:
    """f(x) for a batch (n, *D), with the parameters as torch tensors."""
    for index, layer in enumerate(model.layers):
        own = {name: params[f"{index}.{name}"] for name in layer.param_shapes()}
        x = RULES[type(layer)](layer, own, x, tap)
    return x


def tensor(array: np.ndarray, device: str = "cpu") -> Tensor:
    """A tensor with the same numbers. On the CPU it shares the memory of a writeable array: it is only ever read."""
    if array.flags.writeable:
        return torch.from_numpy(array).to(device)
    return torch.tensor(array, device=device)


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.float64 if array.dtype == np.float64 else torch.float32


def tensors(model: Model, device: str = "cpu") -> dict[str, Tensor]:
    """The model's parameters as tensors of their own."""
    return {name: torch.tensor(value, device=device) for name, value in model.params.items()}


@dataclass(frozen=True)
class Factor:
    """One summand of the kernel: (`a` a') * (`d` d'), elementwise over pairs of samples.

    `a` (n, p) is the layer's input, with a column of ones for the bias; `d` (n, K, q) its backpropagated errors. In the
    plain method `a` is None and `d` (n, K, P) holds per-sample gradients.
    """

    a: Tensor | None
    d: Tensor


class TorchBackend(Backend[list[Factor]]):
    """PyTorch: `torch.func` for Jacobians, one batched backward pass per output for structured kernels."""

    name = "torch"

    def versions(self) -> dict[str, str]:
        """torch's version."""
        return {"torch": str(torch.__version__)}

    def outputs(self, model: Model, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        with torch.no_grad():
            return evaluate(model, tensors(model), tensor(x)).numpy()

    def jacobian(self, model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
        """`vmap(jacrev)` over samples; blocks (n, O, *parameter shape)."""
        blocks = _per_sample_jacobian(model, tensors(model), tensor(x))
        return {name: block.numpy() for name, block in blocks.items()}

    def input_jacobian(self, model: Model, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """`vmap(jacrev)` with respect to the input, (n, O, *D)."""
        params = tensors(model)

        def one(sample: Tensor) -> Tensor:
            return evaluate(model, params, sample[None])[0]

        result: Tensor = torch.func.vmap(torch.func.jacrev(one))(tensor(x))
        return result.detach().numpy()

    def prepare(self, job: KernelJob, x: np.ndarray) -> list[Factor]:
        """Layer inputs and errors ("structured"), or flattened per-sample gradients ("plain")."""
        params = tensors(job.model, checked_device(job.device))
        with _threads(job.threads):
            data = tensor(x, job.device)
            if job.method == "structured":
                return _dense_factors(job, params, data)
            blocks = _per_sample_jacobian(job.model, params, data, job.reduction)
            return [Factor(None, block.flatten(2)) for block in blocks.values()]

    def fill(
        self, job: KernelJob, left: list[Factor], rows: slice, right: list[Factor], cols: slice, out: np.ndarray
    ) -> None:
        """Sum the factors' products straight into `out` (on the CPU, without a copy)."""
        direct = job.device == "cpu"
        target = torch.from_numpy(out) if direct else torch.empty(out.shape, dtype=_dtype(out), device=job.device)
        if not left:
            target.zero_()
        with torch.no_grad(), _threads(job.threads):
            for index, (f, g) in enumerate(zip(left, right, strict=True)):
                _add_product(job.reduction, f, rows, g, cols, target, first=index == 0)
            if job.reduction.scale != 1.0:
                target.mul_(job.reduction.scale)
        if not direct:
            out[...] = target.cpu().numpy()

    def pull(self, model: Model, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"]) -> dict[str, np.ndarray]:
        """One reverse pass of the batch."""
        data = tensor(x)
        pulled = pytorch_operator.pull(lambda own: evaluate(model, own, data), tensors(model), tensor(cotangents))
        return {name: value.numpy() for name, value in pulled.items()}

    def push(
        self,
        model: Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
    ) -> Float[np.ndarray, " n"]:
        """One forward-mode pass of the batch."""
        data, moves = tensor(x), {name: tensor(value) for name, value in direction.items()}
        pushed = pytorch_operator.push(
            lambda own: evaluate(model, own, data), tensors(model), moves, tensor(cotangents)
        )
        return pushed.numpy()


def _per_sample_jacobian(
    model: Model, params: Params, x: Tensor, reduction: Reduction | None = None
) -> dict[str, Tensor]:
    """Blocks (n, K, *parameter shape), for the outputs that `reduction` asks for; all of them if it is None."""

    def one(values: Params, sample: Tensor) -> Tensor:
        y = evaluate(model, values, sample[None])[0]
        if reduction is not None and reduction.name == "sum":
            return y.sum(0, keepdim=True)
        if reduction is not None and reduction.name == "one":
            return y[reduction.index : reduction.index + 1]
        return y

    if not params:
        return {}
    blocks: dict[str, Tensor] = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(dict(params), x)
    return {name: block.detach() for name, block in blocks.items()}


def _dense_factors(job: KernelJob, params: Params, x: Tensor) -> list[Factor]:
    """(layer input, errors) of every affine map, from one forward pass and one backward pass per cotangent."""
    inputs: list[Tensor] = []
    preactivations: list[Tensor] = []

    def tap(a: Tensor, z: Tensor, bias: bool) -> Tensor:
        a = a.detach()
        inputs.append(torch.cat([a, torch.ones_like(a[:, :1])], dim=1) if bias else a)
        if not z.requires_grad:
            z = z.requires_grad_()
        preactivations.append(z)
        return z

    with torch.enable_grad():
        y = evaluate(job.model, params, x, tap)
    if not preactivations:
        return []
    name, count = job.reduction.name, job.reduction.n_cotangents
    errors = [torch.empty((len(x), count, z.shape[1]), dtype=z.dtype, device=z.device) for z in preactivations]
    for k in range(count):
        with torch.enable_grad():
            pulled = (y if name == "sum" else y[:, job.reduction.index if name == "one" else k]).sum()
        deltas = torch.autograd.grad(pulled, preactivations, retain_graph=k + 1 < count)
        for error, delta in zip(errors, deltas, strict=True):
            error[:, k] = delta
    return [Factor(a, d) for a, d in zip(inputs, errors, strict=True)]


def _add_product(
    reduction: Reduction, f: Factor, rows: slice, g: Factor, cols: slice, target: Tensor, *, first: bool
) -> None:
    """target (r, c, *trailing) = or += the product of two factors."""
    d, e = f.d[rows], g.d[cols]
    if f.a is None or g.a is None:
        _errors_product(reduction, d, e, target, first)
        return
    pairs = f.a[rows] @ g.a[cols].T
    pairs = pairs.view(*pairs.shape, *[1] * len(reduction.trailing))
    if first:
        _errors_product(reduction, d, e, target, True)
        target.mul_(pairs)
    else:
        scratch = torch.empty_like(target)
        _errors_product(reduction, d, e, scratch, True)
        target.addcmul_(scratch, pairs)


def _errors_product(reduction: Reduction, d: Tensor, e: Tensor, target: Tensor, overwrite: bool) -> None:
    """target = or += <d_i, e_j> for every pair of samples, reduced over outputs as asked."""
    r, k, _ = d.shape
    c = len(e)
    if reduction.name == "full":
        block = (d.flatten(0, 1) @ e.flatten(0, 1).T).view(r, k, c, k).transpose(1, 2)
        target.copy_(block) if overwrite else target.add_(block)
    elif reduction.name == "diagonal":
        block = torch.bmm(d.transpose(0, 1), e.permute(1, 2, 0)).permute(1, 2, 0)
        target.copy_(block) if overwrite else target.add_(block)
    else:
        # One inner product over (output, parameter) together: this is the trace, or the one output that there is.
        left, right = d.flatten(1), e.flatten(1).T
        torch.mm(left, right, out=target) if overwrite else target.addmm_(left, right)


def checked_device(device: str) -> str:
    """`device`, if torch can use it here.

    Raises:
        OptionError: unknown or absent device.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if device.split(":")[0] not in present:
        raise OptionError(f"device={device!r}", allowed=", ".join(present) + " on this machine", remedy="choose one")
    return device


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch with `count` threads; the old number comes back afterwards."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
