"""The PyTorch engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import KernelJob, Slopes, TrainJob, TrainState
from udlbridge.backends.programs import Program
from udlbridge.backends.pytorch import module_engine, operator, programs, training
from udlbridge.backends.pytorch.devices import blas_threads, checked_device
from udlbridge.backends.pytorch.factors import Factor, Summand, add_product
from udlbridge.backends.pytorch.gathering import Observed, at_once, gathered
from udlbridge.backends.pytorch.graphs import engine as graphs
from udlbridge.backends.pytorch.layers import RULES
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.backends.pytorch.products import strip_rows
from udlbridge.backends.pytorch.sites import Scope, Site
from udlbridge.backends.pytorch.tensors import Params, array, buffers, evaluate, tensor, tensors, torch_dtype
from udlbridge.backends.pytorch.watching import undisturbed
from udlbridge.backends.reduction import Reduction
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.layers import Dense
from udlbridge.networks.model import Model


class TorchBackend(Backend[list[Summand]]):
    """PyTorch: `torch.func` for Jacobians, one batched backward pass per output for structured kernels."""

    name = "torch"

    def versions(self) -> dict[str, str]:
        """torch's version."""
        return {"torch": str(torch.__version__)}

    @undisturbed()
    def outputs(self, model: Any, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        if isinstance(model, Graph):
            return graphs.outputs(model, x)
        if isinstance(model, ModuleNetwork):
            return module_engine.outputs(model, x)
        with torch.no_grad():
            return evaluate(model, tensors(model), tensor(x)).numpy().copy()  # a Flatten alone gives a view of x

    @undisturbed()
    def jacobian(self, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        """`vmap(jacrev)` over samples; blocks (n, O, *parameter shape)."""
        if isinstance(model, Graph):
            by_name = self.jacobian(graphs.as_module_network(model, x), x)
            return {name: by_name[name] for name in model.params}
        if isinstance(model, ModuleNetwork):
            found = module_engine.jacobian(
                model, model.tensors(model.device), model.inputs(x, model.device), None, model.trainable
            )
            return {name: array(block) for name, block in found.items()}
        blocks = _per_sample_jacobian(model, tensors(model), tensor(x))
        return {name: array(block) for name, block in blocks.items()}

    @undisturbed()
    def input_jacobian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """`vmap(jacrev)` with respect to the input, (n, O, *D)."""
        if isinstance(model, Graph):
            return graphs.input_jacobian(model, x)
        if isinstance(model, ModuleNetwork):
            return module_engine.input_derivatives(model, x, 1)
        params = tensors(model)

        def one(sample: Tensor) -> Tensor:
            return evaluate(model, params, sample[None])[0]

        result: Tensor = torch.func.vmap(torch.func.jacrev(one))(tensor(x))
        return array(result)

    @undisturbed()
    def input_hessian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs features features"]:
        """Reverse mode over reverse mode, which every activation has exactly, (n, O, D, D)."""
        model = graphs.as_module_network(model, x) if isinstance(model, Graph) else model
        if isinstance(model, ModuleNetwork):
            size = prod(x.shape[1:])
            return module_engine.input_derivatives(model, x, 2).reshape(len(x), -1, size, size)
        params = tensors(model)
        shape = x.shape[1:]

        def one(sample: Tensor) -> Tensor:
            return evaluate(model, params, sample.reshape(1, *shape))[0]

        second = torch.func.jacrev(torch.func.jacrev(one))
        result: Tensor = torch.func.vmap(second)(tensor(x).flatten(1))
        return array(result)

    @undisturbed()
    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of the layers and errors at them, by autograd."""
        # Tokens carry no gradient, so parameters have to: errors after an Embedding come through them.
        arrays = {**buffers(model), **{name: value.requires_grad_() for name, value in tensors(model).items()}}
        h = torch.tensor(x, requires_grad=x.dtype.kind == "f")
        activations, points = [], []
        for index, layer in enumerate(model.layers):
            seen: list[Tensor] = []

            def observe(site: Site, z: Tensor, seen: list[Tensor] = seen) -> Tensor:
                seen.append(z)
                return z

            h = RULES[type(layer)](layer, Scope(arrays, f"{index}.", observe), h)
            activations.append(h)
            points.append(seen[0] if isinstance(layer, Dense) else h)
        errors = torch.autograd.grad(((h - tensor(y)) ** 2).sum(), points)
        # Layers that change nothing pass on the tensor that they got.
        return [a.detach().numpy().copy() for a in activations], [e.numpy().copy() for e in errors]

    @undisturbed()
    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula in torch's functions."""
        return programs.value(program, x)

    @undisturbed()
    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula's gradient by autograd."""
        return programs.gradient(program, x)

    def prepare(self, job: KernelJob, x: np.ndarray) -> list[Summand]:
        """Layer inputs and errors ("structured"), or flattened per-sample gradients ("plain")."""
        with blas_threads(job.threads), undisturbed():
            network = graphs.as_module_network(job.model, x) if isinstance(job.model, Graph) else job.model
            if isinstance(network, ModuleNetwork):
                return module_engine.prepared(job, network, x)
            model: Model = network
            params, data = tensors(model, checked_device(job.device)), tensor(x, job.device)
            if job.method == "structured":
                return _structured_factors(job, model, params, data)
            blocks = _per_sample_jacobian(model, params, data, job.reduction, job.parameters)
            return [Summand((name,), Factor(None, block.flatten(2))) for name, block in blocks.items()]

    @undisturbed()
    def fill(
        self,
        job: KernelJob,
        left: list[Summand],
        rows: slice,
        right: list[Summand],
        cols: slice,
        out: np.ndarray,
        *,
        lower: bool = False,
    ) -> None:
        """Sum the factors' products straight into `out` (on the CPU, without a copy)."""
        direct = job.device == "cpu"
        target = torch.from_numpy(out) if direct else torch.empty(out.shape, dtype=torch_dtype(out), device=job.device)
        wanted = set(job.parameters)
        both = zip(left, right, strict=True)
        pairs = [(one.factor, other.factor) for one, other in both if not wanted.isdisjoint(one.names)]
        if not pairs:
            target.zero_()
        strips = [pair for pair in pairs if isinstance(pair[0], Factor)]
        others = [pair for pair in pairs if not isinstance(pair[0], Factor)]
        with blas_threads(job.threads), torch.no_grad():
            own_strips = list(strip_rows(len(out), lower))
            numbers = max((own.stop - own.start for own in own_strips), default=0) * out.shape[1]
            trailing = prod(out.shape[2:])
            scratch = target.new_empty(numbers), target.new_empty(numbers * trailing)
            for own in own_strips:
                first = slice(rows.start + own.start, rows.start + own.stop)
                end = own.stop if lower else cols.stop - cols.start
                for index, (f, g) in enumerate(strips):
                    second = slice(cols.start, cols.start + end)
                    part = target[own, :end]
                    add_product(job.reduction, f, first, g, second, part, first=index == 0, scratch=scratch)
            for index, (f, g) in enumerate(others):
                add_product(job.reduction, f, rows, g, cols, target, first=index == 0 and not strips, lower=lower)
                if job.watch is not None:
                    job.watch(1 / len(others))
            if job.reduction.scale != 1.0:
                target.mul_(job.reduction.scale)
        if not direct:
            out[...] = target.cpu().numpy()

    @undisturbed()
    def loss_gradient(
        self, model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """One backward pass; for slopes, one through the backward passes that they are."""
        model = graphs.as_module_network(model, x) if isinstance(model, Graph) else model
        return training.loss_gradient(model, x, y, loss, slopes)

    @undisturbed()
    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """torch.optim."""
        if isinstance(job.model, Graph):
            job = replace(job, model=graphs.as_module_network(job.model, x))
        return training.TorchTraining(job, x, y, state)

    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """torch with `count` threads."""
        return blas_threads(count)

    def check_device(self, device: str) -> None:
        """Raise `OptionError` for a device that torch does not find here."""
        checked_device(device)

    @undisturbed()
    def pull(
        self, model: Any, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"], device: str | None = None
    ) -> dict[str, np.ndarray]:
        """One reverse pass of the batch."""
        model = graphs.as_module_network(model, x) if isinstance(model, Graph) else model
        if isinstance(model, ModuleNetwork):
            return module_engine.pull(model, x, tensor(cotangents), device)
        where = device or "cpu"
        data = tensor(x, where)
        pulled = operator.pull(lambda own: evaluate(model, own, data), tensors(model, where), tensor(cotangents, where))
        return {name: array(value) for name, value in pulled.items()}

    @undisturbed()
    def push(
        self,
        model: Any,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
        device: str | None = None,
    ) -> Float[np.ndarray, " n"]:
        """One forward-mode pass of the batch."""
        model = graphs.as_module_network(model, x) if isinstance(model, Graph) else model
        if isinstance(model, ModuleNetwork):
            return module_engine.push(model, x, direction, tensor(cotangents), device)
        where = device or "cpu"
        data, moves = tensor(x, where), {name: tensor(value, where) for name, value in direction.items()}
        weights, counted = tensors(model, where), tensor(cotangents, where)
        pushed = operator.push(lambda own: evaluate(model, own, data), weights, moves, counted)
        return array(pushed)

    @undisturbed()
    def expand(
        self, model: Any, x: np.ndarray, direction: Mapping[str, np.ndarray], degree: int
    ) -> Float[np.ndarray, "n outputs"]:
        """Forward-mode passes through one another, one more for each degree."""
        if isinstance(model, Graph):
            return graphs.expand(model, x, direction, degree)
        data, moves = tensor(x), {name: tensor(value) for name, value in direction.items()}
        return array(operator.expand(lambda own: evaluate(model, own, data), tensors(model), moves, degree))


def _per_sample_jacobian(
    model: Model,
    params: Params,
    x: Tensor,
    reduction: Reduction | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Blocks (n, K, *parameter shape), for the outputs that `reduction` asks for and the parameters in `names`.

    None means all of them.
    """
    counted = {name: value for name, value in params.items() if names is None or name in names}
    rest = {name: value for name, value in params.items() if name not in counted}

    def one(values: Params, sample: Tensor) -> Tensor:
        y = evaluate(model, {**rest, **values}, sample[None])[0]
        if reduction is not None and reduction.name == "sum":
            return y.sum(0, keepdim=True)
        return y if reduction is None else y[list(reduction.indices)]

    if not counted:
        return {}
    blocks: dict[str, Tensor] = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(counted, x)
    return {name: block.detach() for name, block in blocks.items()}


STRETCH = 32
"""Least number of samples that go through the network together: what autograd keeps for them has to fit in memory."""

STRETCH_NUMBERS = 2**19
"""More go together where layers are small: about this many numbers after the widest one, which the cache holds."""


def _structured_factors(job: KernelJob, model: Model, params: Params, x: Tensor) -> list[Summand]:
    """A factor for every site, from one forward pass and one backward pass per cotangent."""
    names = set(job.parameters)
    widest, shape = x[0].numel(), tuple(x.shape[1:])
    for layer in model.layers:
        shape = layer.output_shape(shape)
        widest = max(widest, prod(shape))

    def observed(samples: slice) -> Observed:
        sites: list[Site] = []
        entered: list[Tensor] = []

        def observe(site: Site, z: Tensor) -> Tensor:
            if names.isdisjoint(site.parameters):
                return z
            # The first site has nothing before it that needs a gradient: there the errors begin.
            z = z if z.requires_grad else z.requires_grad_()
            sites.append(site.detached())
            entered.append(z)
            return z

        y = evaluate(model, params, x[samples], observe)

        def deltas(found: Sequence[Tensor | None]) -> list[Tensor]:
            return [torch.zeros_like(z) if d is None else d for d, z in zip(found, entered, strict=True)]

        return Observed(y, sites, entered, deltas)

    return gathered(job, len(x), at_once(len(x), max(STRETCH, STRETCH_NUMBERS // widest)), observed)
