"""LayerNorm, GroupNorm and BatchNorm by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.backends.reference.sites import Elementwise, Site
from udlbridge.networks.layers import BatchNorm, GroupNorm, LayerNorm

Arrays = dict[str, np.ndarray]


def standardise(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """(x - mean) / s over the last axis with s = sqrt(var + eps), and 1 / s."""
    inverse = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) * inverse, inverse


def standardise_backward(xhat: np.ndarray, inverse: np.ndarray, d: np.ndarray) -> np.ndarray:
    """dx = (d - mean(d) - xhat mean(d xhat)) / s: mean and variance depend on x too. Ba, Kiros, Hinton (2016)."""
    return (d - d.mean(axis=-1, keepdims=True) - xhat * (d * xhat).mean(axis=-1, keepdims=True)) * inverse


def scale_and_shift(arrays: Arrays, xhat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """y = weight * xhat + bias, with both spread to `shape`; xhat itself without them."""
    if "weight" not in arrays:
        return xhat
    return arrays["weight"].reshape(shape) * xhat + arrays["bias"].reshape(shape)


def scale_and_shift_backward(
    arrays: Arrays, xhat: np.ndarray, dy: np.ndarray, shape: tuple[int, ...], summed: tuple[int, ...]
) -> tuple[np.ndarray, list[Site]]:
    """d/d xhat, and the gradients of weight and bias: dy xhat and dy, summed where these are spread."""
    if "weight" not in arrays:
        return dy, []
    weight = Elementwise("weight", (dy * xhat).sum(axis=summed))
    return dy * arrays["weight"].reshape(shape), [weight, Elementwise("bias", dy.sum(axis=summed))]


def layernorm_forward(layer: LayerNorm, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Over the last axes of every sample. Saves xhat and 1 / s."""
    rows = x.reshape(*x.shape[: x.ndim - len(layer.shape)], -1)
    xhat, inverse = standardise(rows, layer.eps)
    return scale_and_shift(arrays, xhat.reshape(x.shape), layer.shape), (xhat, inverse)


def layernorm_backward(layer: LayerNorm, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """The parameters sum over the axes between the sample and the normalised ones."""
    xhat, inverse = saved
    between = tuple(range(1, dy.ndim - len(layer.shape)))
    d, found = scale_and_shift_backward(arrays, xhat.reshape(dy.shape), dy, layer.shape, between)
    return standardise_backward(xhat, inverse, d.reshape(xhat.shape)).reshape(dy.shape), found


def groupnorm_forward(layer: GroupNorm, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Over each group of neighbouring channels and all of space. Saves xhat and 1 / s."""
    xhat, inverse = standardise(x.reshape(len(x), layer.num_groups, -1), layer.eps)
    return scale_and_shift(arrays, xhat.reshape(x.shape), _channelwise(x)), (xhat, inverse)


def groupnorm_backward(layer: GroupNorm, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """The parameters sum over space."""
    xhat, inverse = saved
    d, found = scale_and_shift_backward(arrays, xhat.reshape(dy.shape), dy, _channelwise(dy), _space(dy))
    return standardise_backward(xhat, inverse, d.reshape(xhat.shape)).reshape(dy.shape), found


def batchnorm_forward(layer: BatchNorm, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """With the stored mean and variance, so that samples do not touch each other. Saves xhat."""
    mean, variance = (arrays[name].reshape(_channelwise(x)) for name in ("running_mean", "running_var"))
    xhat = (x - mean) / np.sqrt(variance + layer.eps)
    return scale_and_shift(arrays, xhat, _channelwise(x)), xhat


def batchnorm_backward(layer: BatchNorm, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """The statistics are constants here: dx = d / sqrt(var + eps)."""
    d, found = scale_and_shift_backward(arrays, saved, dy, _channelwise(dy), _space(dy))
    return d / np.sqrt(arrays["running_var"].reshape(_channelwise(dy)) + layer.eps), found


def _channelwise(x: np.ndarray) -> tuple[int, ...]:
    """The shape that spreads one number per channel over (n, C, *space)."""
    return (-1, *(1 for _ in x.shape[2:]))


def _space(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))
