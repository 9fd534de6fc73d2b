"""Dense, activations and softmax, by hand. The conventions of all rules are those of `backpropagation`."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.backends.reference.sites import Affine, Site
from udlbridge.networks.layers import Activation, Dense, Layer

Arrays = dict[str, np.ndarray]


def dense_forward(layer: Dense, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = W x + b, y = activation(z). Saves x and z."""
    z = x @ arrays["weight"].T
    if layer.bias:
        z = z + arrays["bias"]
    return ACTIVATIONS[layer.activation][0](z), (x, z)


def dense_backward(layer: Dense, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """delta = dy * activation'(z), dx = W' delta; axes between sample and feature are positions."""
    x, z = saved
    delta = dy * ACTIVATIONS[layer.activation][1](z)
    n = len(x)
    a = x.reshape(n, 1, -1, layer.in_features)
    d = delta.reshape(n, 1, -1, layer.out_features)
    affine = Affine("weight", "bias" if layer.bias else None, a, d, arrays["weight"].shape)
    return delta @ arrays["weight"], [affine]


def activation_forward(layer: Activation, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = activation(x). Saves x."""
    return ACTIVATIONS[layer.activation][0](x), x


def activation_backward(layer: Activation, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """dx = dy * activation'(x)."""
    return dy * ACTIVATIONS[layer.activation][1](saved), []


def softmax_forward(layer: Layer, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = exp(x) / sum exp(x); the largest entry is subtracted first, so that nothing overflows. Saves y."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(layer: Layer, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """dx = y (dy - <y, dy>)."""
    y = saved
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True)), []


def logsoftmax_forward(layer: Layer, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x - log sum exp(x). Saves softmax(x)."""
    shifted = x - x.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(total), np.exp(shifted) / total


def logsoftmax_backward(layer: Layer, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """dx = dy - softmax(x) sum dy."""
    return dy - saved * dy.sum(axis=-1, keepdims=True), []


def reshape_forward(layer: Layer, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Flatten: (n, *D) -> (n, prod D). Saves the shape."""
    return x.reshape(len(x), -1), x.shape


def reshape_backward(layer: Layer, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """Back to the saved shape."""
    return dy.reshape(saved), []


def identity_forward(layer: Layer, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Dropout in inference: y = x."""
    return x, None


def identity_backward(layer: Layer, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """dx = dy."""
    return dy, []
