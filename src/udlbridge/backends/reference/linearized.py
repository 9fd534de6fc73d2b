"""The loss of a linearised network by hand: f(x) + J(x) w, with f and J where the training began."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from udlbridge.backends.reference.backpropagation import forward
from udlbridge.backends.reference.graphs.network import evaluate, pull_back, push_forward
from udlbridge.backends.reference.operator import pull, push
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
"""Outputs and targets (n, O) to the mean loss and its derivative with respect to the outputs."""


def linear_outputs(start: Model | Graph, x: np.ndarray, moves: Mapping[str, np.ndarray]) -> np.ndarray:
    """f(x) + J(x) w, (n, O), one output after the other; of a graph, in one pass of tangents."""
    if isinstance(start, Graph):
        values = evaluate(start, x)
        return np.asarray(values[start.output].reshape(len(x), -1) + push_forward(start, values, moves))
    f, _ = forward(start, x)
    units = np.eye(f.shape[1], dtype=f.dtype)
    return f + np.stack([push(start, x, moves, np.tile(unit, (len(f), 1))) for unit in units], axis=1)


def linear_loss_gradient(
    start: Model | Graph, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, loss: Loss
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss, and its gradient J' dL/df by name: J does not depend on the parameters."""
    moves = {name: np.asarray(params[name] - value) for name, value in start.params.items()}
    value, slope = loss(linear_outputs(start, x, moves), y)
    if isinstance(start, Graph):
        return value, pull_back(start, evaluate(start, x), slope, list(start.params))
    return value, pull(start, x, slope)
