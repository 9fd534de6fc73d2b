"""A translation beside its module on the example: outputs and gradients are equal, or it is no translation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from udlbridge.backends.pytorch.graphs.module import GraphModule, graph_module
from udlbridge.backends.pytorch.layouts import differing
from udlbridge.backends.pytorch.module_inputs import arguments
from udlbridge.backends.pytorch.modules import AT_ONCE, ModuleNetwork
from udlbridge.backends.pytorch.tensors import gradients
from udlbridge.errors import ConversionError, UDLBridgeError
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.entries import value_name
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import in_float64
from udlbridge.tolerances import budget, relative_difference

REMEDY = "use ub.ntk(module, x, backend='torch'), which takes any module"


def prove(graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> None:
    """Evaluate both on the example, there and back, `AT_ONCE` samples at a time.

    Raises:
        ConversionError: outputs, or gradients by parameters or samples, differ by more than the budget.
    """
    module = graph_module(graph)
    for start in range(0, len(batch), AT_ONCE):
        _prove(module, graph, network, batch[start : start + AT_ONCE])


def _prove(module: GraphModule, graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> None:
    """For some samples."""
    limit = budget(graph.dtype)
    own = {name: value.requires_grad_() for name, value in network.tensors("cpu").items()}
    samples, inputs = (network.inputs(batch, "cpu") for _ in range(2))
    ours: dict[str, Tensor] = dict(module.named_parameters())
    theirs = dict(own)
    for field, value in inputs.items():
        if value.is_floating_point():
            name = value_name(field)
            ours[name], theirs[name] = samples[field].requires_grad_(), value.requires_grad_()
    by_position, by_name = arguments(samples)
    found = module(*by_position, **by_name).reshape(len(batch), -1)
    y, _ = network.evaluate(own, inputs)
    gap = relative_difference(found.detach().numpy(), y.detach().numpy())
    if not y.isfinite().all():
        raise ConversionError(
            f"the outputs of {network.name} are not finite for these samples",
            allowed="a module and samples of finite outputs",
            remedy="scale the samples or the weights down" + (", or take float64" if y.dtype != torch.float64 else ""),
        )
    if not gap <= limit:
        raise _apart(f"gives other outputs than the module, by {gap:.2e} of the largest", graph, network, batch)
    cotangents = torch.from_numpy(np.random.default_rng(0).standard_normal(tuple(y.shape))).to(y.dtype)
    both = [(name, ours[name], theirs[name]) for name in theirs if name in ours]
    one = _gradients(found, [value for _, value, _ in both], cotangents)
    other = _gradients(y, [value for _, _, value in both], cotangents)
    scale = max((float(d[d.isfinite()].abs().max()) for d in other if d.isfinite().any()), default=0.0)
    gaps = {name: _gap(a, b) for (name, _, _), a, b in zip(both, one, other, strict=True)}
    worst = max(gaps, key=gaps.__getitem__, default="")
    if worst and gaps[worst] > limit * scale:
        written = ", ".join(sorted(set(_written_by_hand(y)))[:5])
        of = "the samples" if worst == INPUT else worst
        if not written:
            words = f"gives another gradient by {of} than the module, by {gaps[worst]:.2e}"
            raise _apart(words, graph, network, batch)
        raise ConversionError(
            f"the graph of {network.name} gives another gradient by {of} than the module, by {gaps[worst]:.2e}; "
            f"it has backward passes of its own: {written}",
            allowed=f"backward passes that are the derivatives of what forward computes, to {limit:.0e} of the largest",
            remedy=REMEDY,
        )


def _apart(words: str, graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> ConversionError:
    """The error of a graph and a module that differ; if they do not in float64, that is rounding."""
    allowed = f"a difference of at most {budget(graph.dtype):.0e}"
    if graph.dtype != np.float64 and _agree_in_float64(graph, network, batch):
        return ConversionError(
            f"the graph of {network.name} {words}; in float64 they agree: it is rounding",
            allowed=allowed,
            remedy="translate it in float64, ub.from_torch(module.double(), x.astype('float64')); scale down what "
            f"cancels or overflows; or {REMEDY}",
            shell="add --dtype float64; the module itself can be computed without a translation",
        )
    rounding = (
        ""
        if graph.dtype != np.float64
        else "where large numbers cancel in forward, this is rounding: scale them down; else "
    )
    return ConversionError(
        f"the graph of {network.name} {words}",
        allowed=allowed,
        remedy=f"{rounding}{REMEDY}; a translation that is wrong is a fault of udlbridge: report it with the module",
    )


def _agree_in_float64(graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> bool:
    """Whether the two are equal, there and back, in float64."""
    try:
        prove(graph.astype("float64"), network.astype("float64"), in_float64(batch))
    except UDLBridgeError:
        return False
    return True


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference; of what is not finite, none where both are the same."""
    unlike = differing(one, other)
    found = float((one - other)[unlike].abs().max()) if unlike.any() else 0.0
    return np.inf if np.isnan(found) else found


def _gradients(y: Tensor, by: list[Tensor], cotangents: Tensor) -> list[Tensor]:
    """J' c by each of them; 0 where nothing leads to one."""
    if not y.requires_grad:
        return [torch.zeros_like(value) for value in by]
    exact = SlopeOfHardsigmoid() if y.dtype == torch.float64 else nullcontext()  # type: ignore[no-untyped-call]
    with exact:
        found = gradients(y, by, cotangents)
    return [torch.zeros_like(value) if d is None else d.to_dense() for value, d in zip(by, found, strict=True)]


class SlopeOfHardsigmoid(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, the slope of `hardsigmoid` is 1/6: on the CPU torch's own has the digits of single precision."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.hardsigmoid_backward.default:
            d, x = args
            return torch.where((x > -3) & (x < 3), d / 6, 0.0)
        return func(*args, **(kwargs or {}))


def _written_by_hand(y: Tensor) -> Iterator[str]:
    """The names of the `torch.autograd.Function` classes that y was computed by."""
    seen: set[Node] = set()
    stack: list[Any] = [] if y.grad_fn is None else [y.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            yield type(node).__name__.removesuffix("Backward")
        stack += [child for child, _ in node.next_functions if child is not None]
