"""Jacobians of a graph and products with them, from the passes of `network`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from udlbridge.backends.reference.graphs.network import evaluate, outputs, pull_back, push_forward
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.graph import Graph

__all__ = ["input_jacobian", "jacobian", "outputs", "pull", "push"]


def jacobian(
    graph: Graph, x: np.ndarray, cotangents: Sequence[np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """d <c, f(x_i)> / d parameter for K vectors c (O,): blocks (n, K, *parameter shape), one sample at a time."""
    blocks = {name: np.zeros((len(x), len(cotangents), *graph.params[name].shape), graph.dtype) for name in names}
    for i in range(len(x)):
        values = evaluate(graph, x[i : i + 1])
        for k, c in enumerate(cotangents):
            for name, gradient in pull_back(graph, values, c[None], names).items():
                blocks[name][i, k] = gradient
    return blocks


def input_jacobian(graph: Graph, x: np.ndarray) -> np.ndarray:
    """d f_a(x_i) / d x_i, (n, O, *D): one backward pass of the batch for each output."""
    values = evaluate(graph, x)
    passes = []
    for a in range(graph.n_outputs):
        e = np.zeros((len(x), graph.n_outputs), graph.dtype)
        e[:, a] = 1
        passes.append(pull_back(graph, values, e, [INPUT])[INPUT])
    return np.stack(passes, axis=1)


def pull(graph: Graph, x: np.ndarray, cotangents: np.ndarray) -> dict[str, np.ndarray]:
    """J' c by one backward pass of the batch."""
    return pull_back(graph, evaluate(graph, x), cotangents, list(graph.params))


def push(graph: Graph, x: np.ndarray, direction: Mapping[str, np.ndarray], cotangents: np.ndarray) -> np.ndarray:
    """<c_i, (J w)_i> for every sample, by one pass of tangents."""
    return np.asarray((push_forward(graph, evaluate(graph, x), direction) * cotangents).sum(axis=1))
