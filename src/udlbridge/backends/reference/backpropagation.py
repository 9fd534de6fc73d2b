"""Forward and backward pass of every layer, by hand: the third opinion, to be read in one sitting.

Every layer has two functions. `forward(layer, params, x)` gives the output and whatever the way back needs.
`backward(layer, params, saved, dy)` gives the derivative with respect to the layer's input and, for every parameter,
the derivative of *each sample* separately: dy (n, *out) -> dx (n, *in), {name: (n, *parameter shape)}.

Source: Prince, Understanding Deep Learning (2023), section 7.4, kept per sample instead of summed over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.layers import Dense, Flatten, Layer, Softmax
from udlbridge.model import Model

Params = Mapping[str, np.ndarray]
Grads = dict[str, np.ndarray]


def dense_forward(layer: Dense, params: Params, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = W x + b, y = activation(z). Saves x and z."""
    z = x @ params["weight"].T
    if layer.bias:
        z = z + params["bias"]
    return ACTIVATIONS[layer.activation][0](z), (x, z)


def dense_error(layer: Dense, saved: Any, dy: np.ndarray) -> np.ndarray:
    """delta = dy * activation'(z), the derivative with respect to the preactivation z."""
    _, z = saved
    return dy * ACTIVATIONS[layer.activation][1](z)


def dense_backward(layer: Dense, params: Params, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, Grads]:
    """dx = W' delta; dW_i = delta_i x_i', db_i = delta_i, summed over axes between sample and feature, if any."""
    x, _ = saved
    delta = dense_error(layer, saved, dy)
    n = len(x)
    rows, errors = x.reshape(n, -1, layer.in_features), delta.reshape(n, -1, layer.out_features)
    grads = {"weight": errors.transpose(0, 2, 1) @ rows}
    if layer.bias:
        grads["bias"] = errors.sum(axis=1)
    return delta @ params["weight"], grads


def softmax_forward(layer: Softmax, params: Params, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = exp(x) / sum exp(x); the largest entry is subtracted first, so that nothing overflows. Saves y."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(layer: Softmax, params: Params, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, Grads]:
    """dx = y (dy - <y, dy>)."""
    y = saved
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True)), {}


def flatten_forward(layer: Flatten, params: Params, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """(n, *D) -> (n, prod D). Saves the shape."""
    return x.reshape(len(x), -1), x.shape


def flatten_backward(layer: Flatten, params: Params, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, Grads]:
    """Back to the saved shape."""
    return dy.reshape(saved), {}


class Rule(NamedTuple):
    """The two passes of one kind of layer."""

    forward: Callable[[Any, Params, np.ndarray], tuple[np.ndarray, Any]]
    backward: Callable[[Any, Params, Any, np.ndarray], tuple[np.ndarray, Grads]]


RULES: dict[type[Layer], Rule] = {
    Dense: Rule(dense_forward, dense_backward),
    Softmax: Rule(softmax_forward, softmax_backward),
    Flatten: Rule(flatten_forward, flatten_backward),
}
"""The two passes by class of layer."""


def forward(model: Model, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """f(x) and what every layer saved on the way."""
    saved = []
    for index, layer in enumerate(model.layers):
        x, kept = RULES[type(layer)].forward(layer, model.layer_params(index), x)
        saved.append(kept)
    return x, saved


def backward(model: Model, saved: list[Any], dy: np.ndarray) -> tuple[np.ndarray, Grads]:
    """From d/d f (n, *out) to d/d x (n, *D) and, per sample, to d/d parameter (n, *parameter shape)."""
    grads: Grads = {}
    for index in reversed(range(len(model.layers))):
        layer = model.layers[index]
        dy, own = RULES[type(layer)].backward(layer, model.layer_params(index), saved[index], dy)
        grads |= {f"{index}.{name}": value for name, value in own.items()}
    return dy, {name: grads[name] for name in model.params}
