"""Forward and backward pass of a network, by hand: the third opinion, to be read in one sitting.

Every layer has two functions. `forward(layer, arrays, x)` gives the output and whatever the way back needs.
`backward(layer, arrays, saved, dy)` gives the derivative with respect to the layer's input, dy (n, *out) -> dx
(n, *in), and a list of `sites`: how each parameter entered, for *each sample* separately.

Source: Prince, Understanding Deep Learning (2023), section 7.4, kept per sample instead of summed over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from udlbridge.backends.reference import convolution, dense, normalisation, sequence
from udlbridge.backends.reference.sites import Site
from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    LogSoftmax,
    MaxPool,
    MeanPool,
    Residual,
    SelfAttention,
    SinusoidalPositions,
    Softmax,
    Take,
)
from udlbridge.networks.model import Model

Arrays = dict[str, np.ndarray]
Grads = dict[str, np.ndarray]


def own(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix` and a dot, without both."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def chain_forward(
    layers: Sequence[Layer], arrays: Mapping[str, np.ndarray], x: np.ndarray
) -> tuple[np.ndarray, list[Any]]:
    """Through a chain of layers, with what every layer saved on the way."""
    saved = []
    for index, layer in enumerate(layers):
        x, needed = RULES[type(layer)].forward(layer, own(arrays, str(index)), x)
        saved.append(needed)
    return x, saved


def chain_backward(
    layers: Sequence[Layer], arrays: Mapping[str, np.ndarray], saved: list[Any], dy: np.ndarray
) -> tuple[np.ndarray, list[Site]]:
    """Back through a chain of layers, from the last to the first."""
    found: list[Site] = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        dy, inside = RULES[type(layer)].backward(layer, own(arrays, str(index)), saved[index], dy)
        found += [site.inside(str(index)) for site in inside]
    return dy, found


def residual_forward(layer: Residual, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = layers(x) + shortcut(x)."""
    main, saved = chain_forward(layer.layers, arrays, x)
    side, saved_side = chain_forward(layer.shortcut, own(arrays, "shortcut"), x)
    return main + side, (saved, saved_side)


def residual_backward(layer: Residual, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """Both branches get dy, and what they give back is added."""
    main, found = chain_backward(layer.layers, arrays, saved[0], dy)
    side, found_side = chain_backward(layer.shortcut, own(arrays, "shortcut"), saved[1], dy)
    return main + side, [*found, *(site.inside("shortcut") for site in found_side)]


class Rule(NamedTuple):
    """The two passes of one kind of layer."""

    forward: Callable[[Any, Arrays, np.ndarray], tuple[np.ndarray, Any]]
    backward: Callable[[Any, Arrays, Any, np.ndarray], tuple[np.ndarray, list[Site]]]


RULES: dict[type[Layer], Rule] = {
    Dense: Rule(dense.dense_forward, dense.dense_backward),
    Activation: Rule(dense.activation_forward, dense.activation_backward),
    Softmax: Rule(dense.softmax_forward, dense.softmax_backward),
    LogSoftmax: Rule(dense.logsoftmax_forward, dense.logsoftmax_backward),
    Flatten: Rule(dense.reshape_forward, dense.reshape_backward),
    Dropout: Rule(dense.identity_forward, dense.identity_backward),
    Conv1d: Rule(convolution.conv_forward, convolution.conv_backward),
    Conv2d: Rule(convolution.conv_forward, convolution.conv_backward),
    MaxPool: Rule(convolution.maxpool_forward, convolution.maxpool_backward),
    MeanPool: Rule(convolution.meanpool_forward, convolution.meanpool_backward),
    GlobalMeanPool: Rule(convolution.globalmeanpool_forward, convolution.globalmeanpool_backward),
    LayerNorm: Rule(normalisation.layernorm_forward, normalisation.layernorm_backward),
    GroupNorm: Rule(normalisation.groupnorm_forward, normalisation.groupnorm_backward),
    BatchNorm: Rule(normalisation.batchnorm_forward, normalisation.batchnorm_backward),
    Embedding: Rule(sequence.embedding_forward, sequence.embedding_backward),
    SinusoidalPositions: Rule(sequence.sinusoidal_forward, dense.identity_backward),
    LearnedPositions: Rule(sequence.learned_forward, sequence.learned_backward),
    SelfAttention: Rule(sequence.attention_forward, sequence.attention_backward),
    Take: Rule(sequence.take_forward, sequence.take_backward),
    Residual: Rule(residual_forward, residual_backward),
}
"""The two passes by class of layer."""


def forward(model: Model, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """f(x) and what every layer saved on the way."""
    return chain_forward(model.layers, model.arrays, x)


def sites(model: Model, saved: list[Any], dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """From d/d f (n, *out) to d/d x (n, *D), and how every parameter entered."""
    return chain_backward(model.layers, model.arrays, saved, dy)


def backward(model: Model, saved: list[Any], dy: np.ndarray) -> tuple[np.ndarray, Grads]:
    """From d/d f (n, *out) to d/d x (n, *D) and, per sample, to d/d parameter (n, *parameter shape)."""
    dx, found = sites(model, saved, dy)
    grads = {name: value for site in found for name, value in site.gradients().items()}
    return dx, {name: grads[name] for name in model.params}


def input_jacobian(model: Model, x: np.ndarray) -> np.ndarray:
    """d f_a(x_i) / d x_i, (n, O, *D): one backward pass for each output."""
    y, saved = forward(model, x)
    passes = []
    for a in range(y.shape[1]):
        e = np.zeros_like(y)
        e[:, a] = 1
        passes.append(sites(model, saved, e)[0])
    return np.stack(passes, axis=1)
