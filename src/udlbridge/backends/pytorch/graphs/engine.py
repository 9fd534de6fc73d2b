"""What the engine does with a graph: it becomes a module, and is computed as any module is."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from udlbridge.backends.pytorch import operator
from udlbridge.backends.pytorch.graphs.module import GraphModule, graph_module
from udlbridge.backends.pytorch.module_inputs import arguments
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.backends.pytorch.tensors import array, tensor
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.several import fields_of

_Last = tuple[weakref.ref[Graph], ModuleNetwork] | None

_last: _Last = None
"""The last graph and its module, since callers ask for the same one again and again; both go when the graph goes."""


def as_module_network(graph: Graph, x: np.ndarray) -> ModuleNetwork:
    """The graph as a module, and that as a network, which has seen the first samples."""
    global _last
    last = _last  # read once: another thread may ask with another graph meanwhile
    if last is not None and last[0]() is graph:
        return last[1]
    network = ModuleNetwork(graph_module(graph))
    network.checked_batch(x[:4], "x")
    _last = weakref.ref(graph, _forget), network
    return network


def _forget(gone: weakref.ref[Graph]) -> None:
    """Let go of the module of a graph that is gone, unless another one came after it."""
    global _last
    if _last is not None and _last[0] is gone:
        _last = None


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """f(x), (n, O)."""
    with torch.no_grad():
        args, words = _arguments(x)
        return array(graph_module(graph)(*args, **words).reshape(len(x), -1)).copy()  # it may be a view of x


def _arguments(x: np.ndarray) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """How a module is called with samples."""
    return arguments({field: tensor(part) for field, part in fields_of(x).items()})


def input_jacobian(graph: Graph, x: np.ndarray) -> np.ndarray:
    """One backward pass of the batch for each output, (n, O, *D)."""
    samples = tensor(x).requires_grad_()
    y = GraphModule(graph)(samples).reshape(len(x), -1)
    if not y.requires_grad:
        return np.zeros((*y.shape, *x.shape[1:]), x.dtype)
    rows = []
    for a in range(y.shape[1]):
        (row,) = torch.autograd.grad(y[:, a].sum(), samples, retain_graph=True, materialize_grads=True)
        rows.append(row)
    return array(torch.stack(rows, dim=1))


def expand(graph: Graph, x: np.ndarray, direction: Mapping[str, np.ndarray], degree: int) -> np.ndarray:
    """Forward-mode passes through one another."""
    module, (args, words) = graph_module(graph), _arguments(x)

    def run(params: Mapping[str, Tensor]) -> Tensor:
        y: Tensor = torch.func.functional_call(module, dict(params), args, words)
        return y.reshape(len(x), -1)

    params = {name: tensor(value) for name, value in graph.params.items()}
    moves = {name: tensor(value) for name, value in direction.items()}
    return array(operator.expand(run, params, moves, degree))
