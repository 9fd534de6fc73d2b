"""What the engine does with a module instead of a `Model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.pytorch.devices import checked_device
from udlbridge.backends.pytorch.factors import Factor, Summand
from udlbridge.backends.pytorch.gathering import STRETCH, Observed, gathered, samples_together
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.backends.pytorch.persample import blocks
from udlbridge.backends.pytorch.tensors import array, differentiating, gradients, tensor
from udlbridge.backends.pytorch.watching import undisturbed
from udlbridge.backends.reduction import Reduction


@undisturbed()
def outputs(network: ModuleNetwork, x: np.ndarray) -> np.ndarray:
    """f(x), (n, O), in the dtype of kernels."""
    params = network.tensors(network.device)
    parts = []
    for start in range(0, len(x), STRETCH):
        y, _ = network.evaluate(params, network.inputs(x[start : start + STRETCH], network.device))
        parts.append(y.detach().to(network.dtypes.kernel))
    return array(torch.cat(parts))


@undisturbed()
def jacobian(
    network: ModuleNetwork,
    params: Mapping[str, Tensor],
    inputs: Inputs,
    reduction: Reduction | None,
    names: tuple[str, ...],
) -> dict[str, Tensor]:
    """Blocks (n, K, *parameter shape), for the outputs that `reduction` asks for and the parameters `names`."""
    counted = {name: params[name] for name in names}

    def run(values: Mapping[str, Tensor], sample: Inputs) -> Tensor:
        y = network.evaluate({**params, **values}, sample)[0][0]
        if reduction is not None and reduction.name == "sum":
            return y.sum(0, keepdim=True)
        return y if reduction is None else y[list(reduction.indices)]

    return blocks(run, counted, inputs, network.dtypes.kernel)


@undisturbed()
def input_derivatives(network: ModuleNetwork, x: np.ndarray, order: int) -> np.ndarray:
    """d f_a(x_i) / d x_i, (n, O, *D), or the second derivatives, (n, O, *D, *D), one sample after the other."""
    params, derivatives = network.tensors(network.device), torch.autograd.functional
    result = []
    for i in range(len(x)):
        ((field, sample),) = network.inputs(x[i : i + 1], network.device).items()

        def one(value: Tensor, field: str = field) -> Tensor:
            return network.evaluate(params, {field: value})[0][0]

        with differentiating():
            if order == 1:
                found = derivatives.jacobian(one, sample)[:, 0]  # type: ignore[no-untyped-call]
            else:
                parts = [_component(one, a) for a in range(network.n_outputs)]
                rows = [derivatives.hessian(part, sample) for part in parts]  # type: ignore[no-untyped-call]
                found = torch.stack(rows).reshape(len(rows), *x.shape[1:], *x.shape[1:])
        result.append(found.to(network.dtypes.kernel))
    return array(torch.stack(result))


def _component(function: Callable[[Tensor], Tensor], index: int) -> Callable[[Tensor], Tensor]:
    return lambda value: function(value)[index]


@undisturbed()
def pull(network: ModuleNetwork, x: np.ndarray, cotangents: Tensor, device: str | None = None) -> dict[str, np.ndarray]:
    """J' c by one reverse pass of the batch, where the module is unless a device is named."""
    where = device or network.device
    with undisturbed():
        params = {name: value.requires_grad_() for name, value in network.tensors(where).items()}
        y, _ = network.evaluate(params, network.inputs(x, where))
        found = gradients(y, list(params.values()), cotangents.to(y))
    kernel = network.dtypes.kernel
    both = zip(params.items(), found, strict=True)
    dense = {name: torch.zeros_like(value) if d is None else d.to_dense() for (name, value), d in both}
    return {name: array(value.to(kernel)) for name, value in dense.items()}


@undisturbed()
def push(
    network: ModuleNetwork,
    x: np.ndarray,
    direction: Mapping[str, np.ndarray],
    cotangents: Tensor,
    device: str | None = None,
) -> np.ndarray:
    """<c_i, (J w)_i> for every sample: the derivative of J' c by c along w, since not all of torch goes forward.

    What cannot be differentiated twice is taken sample by sample.
    """
    where = device or network.device
    params, inputs = network.tensors(where), network.inputs(x, where)
    moves = {name: tensor(np.ascontiguousarray(value), where) for name, value in direction.items()}
    try:
        along = _along(network, params, inputs, moves)
    except RuntimeError:
        found = jacobian(network, params, inputs, None, network.trainable)
        shares = [block.reshape(*block.shape[:2], -1) @ moves[name].flatten() for name, block in found.items()]
        along = torch.stack(shares).sum(0)
    return array((cotangents.to(along.device) * along).sum(dim=1).to(network.dtypes.kernel))


def _along(network: ModuleNetwork, params: Mapping[str, Tensor], inputs: Inputs, moves: Mapping[str, Tensor]) -> Tensor:
    """J w, (n, O)."""
    with undisturbed():
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        y, _ = network.evaluate(leaves, inputs)
        seed = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, list(leaves.values()), seed, create_graph=True, allow_unused=True)
        both = zip(leaves, pulled, strict=True)
        moved = torch.stack([(d * moves[name].to(d.dtype)).sum() for name, d in both if d is not None])
        (along,) = torch.autograd.grad(moved.sum(), seed)
    return along


@undisturbed()
def prepared(job: KernelJob, network: ModuleNetwork, x: np.ndarray) -> list[Summand]:
    """Factors of the sites, and per-sample gradients of the parameters that have none; of all for "plain"."""
    device = checked_device(job.device)
    params, inputs, names = network.tensors(device), network.inputs(x, device), job.parameters
    if not names:
        return []
    plan = network.recipe(names, params, device)
    if job.method == "plain" or not plan.groups or device != network.device:
        network.check_owed()
    alone = names if job.method == "plain" else plan.alone
    found = jacobian(network, params, inputs, job.reduction, alone)
    summands = [Summand((name,), Factor(None, block.reshape(*block.shape[:2], -1))) for name, block in found.items()]
    if job.method == "plain" or not plan.groups:
        return summands

    def observe(samples: slice) -> Observed:
        seen = network.observed(names, params, {name: value[samples] for name, value in inputs.items()})
        network.check_passed(x[samples], seen.y, params)
        return seen

    return [*gathered(job, len(x), samples_together(plan.numbers, len(x)), observe), *summands]
