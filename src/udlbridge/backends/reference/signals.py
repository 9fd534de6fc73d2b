"""What flows through a network: activations forwards, loss gradients backwards, kept per layer."""

from __future__ import annotations

import numpy as np

from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.backends.reference.backpropagation import RULES, own
from udlbridge.networks.layers import Dense
from udlbridge.networks.model import Model


def signals(model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per layer, its output and the gradient of sum (f(x) - y)^2 at its preactivation (Dense) or its output."""
    activations, saved = [], []
    for index, layer in enumerate(model.layers):
        x, needed = RULES[type(layer)].forward(layer, own(model.arrays, str(index)), x)
        activations.append(x)
        saved.append(needed)
    slope = 2 * (x - y)
    errors = []
    for index in reversed(range(len(model.layers))):
        layer = model.layers[index]
        if isinstance(layer, Dense):
            _, z = saved[index]
            errors.append(slope * ACTIVATIONS[layer.activation][1](z))
        else:
            errors.append(slope)
        slope, _ = RULES[type(layer)].backward(layer, own(model.arrays, str(index)), saved[index], slope)
    # Layers that change nothing pass on the array that they got.
    return [a.copy() for a in activations], [e.copy() for e in errors[::-1]]
