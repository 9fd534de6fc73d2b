"""Convolutions and pools by hand: cut the sample into windows, compute on them, add up what comes back to an entry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.backends.reference.sites import Affine, Site
from udlbridge.networks.layers import Convolution, GlobalMeanPool, MaxPool, MeanPool
from udlbridge.networks.layers.convolution import window_count

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]


def offsets(layer: Convolution | MaxPool | MeanPool, space: Shape) -> tuple[Shape, Iterator[tuple[slice, ...]]]:
    """How many windows there are per axis, and for every offset in the kernel, in C order, the index where it falls.

    Offset u of the kernel meets the padded sample at d u, d u + s, d u + 2 s, ..., once for every window.
    """
    dilations = getattr(layer, "dilations", (1,) * len(space))
    axes = zip(space, layer.kernel, layer.strides, layer.sides, dilations, strict=True)
    windows = tuple(window_count(*axis) for axis in axes)

    def slices() -> Iterator[tuple[slice, ...]]:
        for offset in product(*map(range, layer.kernel)):
            starts = [d * u for d, u in zip(dilations, offset, strict=True)]
            settings = zip(starts, layer.strides, windows, strict=True)
            inside = (slice(start, start + s * (count - 1) + 1, s) for start, s, count in settings)
            yield (slice(None), slice(None), *inside)

    return windows, slices()


def cut(layer: Convolution | MaxPool | MeanPool, x: np.ndarray, filling: float = 0.0) -> np.ndarray:
    """x (n, C, *space) as windows (n, C, offsets in the kernel, *windows)."""
    padded = np.pad(x, [(0, 0), (0, 0), *layer.sides], constant_values=filling)
    _, slices = offsets(layer, x.shape[2:])
    return np.stack([padded[where] for where in slices], axis=2)


def put_back(layer: Convolution | MaxPool | MeanPool, pieces: np.ndarray, shape: Shape) -> np.ndarray:
    """The transpose of `cut`: every piece is added where it came from, and the padding is cut off."""
    padded = np.zeros(
        (*shape[:2], *(s + sum(side) for s, side in zip(shape[2:], layer.sides, strict=True))), pieces.dtype
    )
    _, slices = offsets(layer, shape[2:])
    for index, where in enumerate(slices):
        padded[where] += pieces[:, :, index]
    inside = (slice(p, p + s) for s, (p, _) in zip(shape[2:], layer.sides, strict=True))
    return padded[(slice(None), slice(None), *inside)]


def conv_forward(layer: Convolution, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """z_gt = W_g a_gt + b with one column a_gt per window t and group g. Saves the shape of x, the windows and z."""
    n, groups = len(x), layer.groups
    windows, _ = offsets(layer, x.shape[2:])
    # (n, C, u, *windows) -> (n, group, channel of the group and u, window) -> positions before numbers
    a = cut(layer, x).reshape(n, groups, layer.patch_size, -1).swapaxes(2, 3)
    weight = arrays["weight"].reshape(groups, -1, layer.patch_size)
    z = (a @ weight.swapaxes(1, 2)).swapaxes(2, 3).reshape(n, layer.out_channels, *windows)
    if layer.bias:
        z = z + arrays["bias"].reshape(-1, *(1 for _ in windows))
    return ACTIVATIONS[layer.activation][0](z), (x.shape, a, z)


def conv_backward(layer: Convolution, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """delta = dy * activation'(z); every window gets W_g' delta_gt back, which is added where the window was cut."""
    shape, a, z = saved
    n, groups = len(dy), layer.groups
    delta = dy * ACTIVATIONS[layer.activation][1](z)
    d = delta.reshape(n, groups, layer.out_channels // groups, -1).swapaxes(2, 3)
    weight = arrays["weight"].reshape(groups, -1, layer.patch_size)
    pieces = (d @ weight).swapaxes(2, 3).reshape(n, layer.in_channels, -1, *dy.shape[2:])
    affine = Affine("weight", "bias" if layer.bias else None, a, d, arrays["weight"].shape)
    return put_back(layer, pieces, shape), [affine]


def maxpool_forward(layer: MaxPool, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The largest of every window; the first of equals. Saves the shape of x and which offset won."""
    windows = cut(layer, x, filling=-np.inf)
    winner = windows.argmax(axis=2, keepdims=True)
    return np.take_along_axis(windows, winner, axis=2)[:, :, 0], (x.shape, windows.shape, winner)


def maxpool_backward(layer: MaxPool, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """The winner gets all."""
    shape, cut_shape, winner = saved
    pieces = np.zeros(cut_shape, dy.dtype)
    np.put_along_axis(pieces, winner, dy[:, :, None], axis=2)
    return put_back(layer, pieces, shape), []


def meanpool_forward(layer: MeanPool, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean of every window. Saves the shape of x."""
    return cut(layer, x).mean(axis=2), x.shape


def meanpool_backward(layer: MeanPool, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """Every entry gets its share."""
    size = int(np.prod(layer.kernel))
    pieces = np.repeat(dy[:, :, None] / size, size, axis=2)
    return put_back(layer, pieces, saved), []


def globalmeanpool_forward(layer: GlobalMeanPool, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean over space, which keeps axes of length 1. Saves the shape of x."""
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True), x.shape


def globalmeanpool_backward(
    layer: GlobalMeanPool, arrays: Arrays, saved: Any, dy: np.ndarray
) -> tuple[np.ndarray, list[Site]]:
    """Every entry gets its share."""
    return np.broadcast_to(dy / int(np.prod(saved[2:])), saved), []
