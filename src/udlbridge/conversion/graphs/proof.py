"""A translation beside its module on the example: outputs and gradients are equal, or it is no translation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from udlbridge.backends.pytorch.graphs.module import GraphModule
from udlbridge.backends.pytorch.layouts import differing
from udlbridge.backends.pytorch.modules import AT_ONCE, ModuleNetwork
from udlbridge.errors import ConversionError
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.graph import Graph
from udlbridge.tolerances import budget, relative_difference

REMEDY = "use ub.ntk(module, x, backend='torch'), which takes any module"


def prove(graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> None:
    """Evaluate both on the example, there and back, `AT_ONCE` samples at a time.

    Raises:
        ConversionError: outputs, or gradients by parameters or samples, differ by more than the budget.
    """
    module = GraphModule(graph)
    for start in range(0, len(batch), AT_ONCE):
        _prove(module, graph, network, batch[start : start + AT_ONCE])


def _prove(module: GraphModule, graph: Graph, network: ModuleNetwork, batch: np.ndarray) -> None:
    """For some samples."""
    limit = budget(graph.dtype)
    own = {name: value.requires_grad_() for name, value in network.tensors("cpu").items()}
    inputs = network.inputs(batch, "cpu")
    samples = torch.from_numpy(np.array(batch))
    ours: dict[str, Tensor] = dict(module.named_parameters())
    theirs = dict(own)
    if not network.takes_tokens:
        ours[INPUT], theirs[INPUT] = samples.requires_grad_(), inputs[""].requires_grad_()
    found = module(samples).reshape(len(batch), -1)
    y, _ = network.evaluate(own, inputs)
    gap = relative_difference(found.detach().numpy(), y.detach().numpy())
    if not gap <= limit:
        raise ConversionError(
            f"the graph of {network.name} gives other outputs than the module, by {gap:.2e} of the largest",
            allowed=f"a difference of at most {limit:.0e}",
            remedy=f"report it with the module, or {REMEDY}",
        )
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
        raise ConversionError(
            f"the graph of {network.name} gives another gradient by {of} than the module, by {gaps[worst]:.2e}"
            + (f"; it has backward passes of its own: {written}" if written else ""),
            allowed=f"backward passes that are the derivatives of what forward computes, to {limit:.0e} of the largest",
            remedy=REMEDY,
        )


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference; of what is not finite, none where both are the same."""
    unlike = differing(one, other)
    found = float((one - other)[unlike].abs().max()) if unlike.any() else 0.0
    return np.inf if np.isnan(found) else found


def _gradients(y: Tensor, by: list[Tensor], cotangents: Tensor) -> list[Tensor]:
    """J' c by each of them; 0 where nothing leads to one."""
    if not y.requires_grad:
        return [torch.zeros_like(value) for value in by]
    try:
        found = torch.autograd.grad(y, by, cotangents, allow_unused=True, materialize_grads=True)
    except Exception as error:  # a backward pass may be the caller's, and raise anything
        raise ConversionError(
            f"a backward pass of the module fails ({type(error).__name__}: {error})",
            allowed="modules that torch.autograd.grad can differentiate",
            remedy="look at torch.autograd.grad(module(x).sum(), module.parameters())",
        ) from error
    return [d.to_dense() for d in found]


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
