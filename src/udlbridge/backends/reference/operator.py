"""Products with the Jacobian by hand: per-sample gradients of a few samples at a time, summed or multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from udlbridge.backends.reference.backpropagation import backward, forward
from udlbridge.networks.model import Model

NUMBERS_AT_ONCE = 1 << 24
"""How many entries of per-sample gradients are held at a time."""


def gradients(model: Model, x: np.ndarray, cotangents: np.ndarray) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """J_i' c_i of every sample, {name: (rows, *parameter shape)}, for a few rows at a time."""
    step = max(1, NUMBERS_AT_ONCE // max(model.n_params, 1))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        _, saved = forward(model, x[rows])
        yield rows, backward(model, saved, cotangents[rows])[1]


def pull(model: Model, x: np.ndarray, cotangents: np.ndarray) -> dict[str, np.ndarray]:
    """J' c = sum_i J_i' c_i: `cotangents` (n, O) -> an array of each parameter's shape."""
    total = {name: np.zeros_like(value) for name, value in model.params.items()}
    for _, grads in gradients(model, x, cotangents):
        for name, grad in grads.items():
            total[name] += grad.sum(axis=0)
    return total


def push(model: Model, x: np.ndarray, direction: Mapping[str, np.ndarray], cotangents: np.ndarray) -> np.ndarray:
    """<c_i, (J w)_i> = <J_i' c_i, w> for every sample: `direction` w in parameter space -> (n,)."""
    result = np.zeros(len(x), dtype=cotangents.dtype)
    for rows, grads in gradients(model, x, cotangents):
        for name, grad in grads.items():
            result[rows] += grad.reshape(len(grad), -1) @ direction[name].reshape(-1)
    return result
