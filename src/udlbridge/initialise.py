"""Parameters from a seed, by NumPy alone, so that every engine starts from the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from udlbridge.layers import Layer, Shape, Start

FLOATS: dict[str, np.dtype[np.floating]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def fans(shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of one unit: (out, in, *kernel) gives (in * prod kernel, out * prod kernel)."""
    kernel = int(np.prod(shape[2:], dtype=np.int64))
    return shape[1] * kernel, shape[0] * kernel


def initial_parameters(layers: Sequence[Layer], seed: int, dtype: str) -> dict[str, np.ndarray]:
    """Parameters as each layer's `start` says, drawn in the order of the layers.

    "glorot": a weight of shape (out, in, *kernel) is uniform in +-sqrt(6 / (fan_in + fan_out)). "normal": mean 0,
    variance 1 (embeddings). "zeros" (biases) and "ones" (scales of norms). Numbers are drawn in float64 and rounded, so
    that the float32 model is the rounded float64 model.

    Source: Glorot and Bengio (2010), equation 16.
    """
    generator = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    for index, layer in enumerate(layers):
        for name, shape in layer.param_shapes().items():
            params[f"{index}.{name}"] = _initial(layer.start(name), shape, generator).astype(FLOATS[dtype])
    return params


def initial_buffers(layers: Sequence[Layer], dtype: str) -> dict[str, np.ndarray]:
    """Buffers before any training: means of zero and variances of one."""
    return {
        f"{index}.{name}": (np.ones if layer.start(name) == "ones" else np.zeros)(shape, dtype=FLOATS[dtype])
        for index, layer in enumerate(layers)
        for name, shape in layer.buffer_shapes().items()
    }


def _initial(start: Start, shape: Shape, generator: np.random.Generator) -> np.ndarray:
    if start == "glorot":
        fan_in, fan_out = fans(shape)
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        return generator.uniform(-bound, bound, size=shape)
    if start == "normal":
        return generator.standard_normal(shape)
    return np.ones(shape) if start == "ones" else np.zeros(shape)
