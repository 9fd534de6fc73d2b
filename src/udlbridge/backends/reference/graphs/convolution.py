"""Convolutions over 1 to 3 axes: for each offset in the kernel, a product of the part of the sample that it meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule

Shape = tuple[int, ...]


def last_axes(parts: Iterable[int | slice]) -> Any:
    """An index of the last axes."""
    return (..., *parts)


def offsets(a: Attributes, kernel: Shape, counts: Shape) -> Iterator[tuple[Shape, Any]]:
    """Every offset u in the kernel, and the index of what all windows see: d u, d u + s, ... of the padded sample."""
    for u in product(*map(range, kernel)):
        parts = []
        for position, count, stride, dilation in zip(u, counts, a["stride"], a["dilation"], strict=True):
            start = position * dilation
            parts.append(slice(start, start + stride * (count - 1) + 1, stride))
        yield u, last_axes(parts)


def padded(x: np.ndarray, padding: Shape) -> np.ndarray:
    """Zeros at both ends of the axes after the channels."""
    return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])


def cut(x: np.ndarray, padding: Shape) -> np.ndarray:
    """The sample without its padding."""
    return x[last_axes(slice(p, size - p) for p, size in zip(padding, x.shape[2:], strict=True))]


def by_group(x: np.ndarray, groups: int) -> np.ndarray:
    """(n, G c, *space) -> (n, G, c, *space)."""
    return x.reshape(len(x), groups, -1, *x.shape[2:])


def correlate(a: Attributes, x: np.ndarray, w: np.ndarray, counts: Shape) -> np.ndarray:
    """Y[o, t] = sum over c and u of w[o, c, u] x[c, s t + d u], in every group."""
    groups = a["groups"]
    source = by_group(padded(x, a["padding"]), groups)
    kernel = w.reshape(groups, -1, *w.shape[1:])
    y = np.zeros((len(x), groups, kernel.shape[1], *counts), x.dtype)
    for u, index in offsets(a, w.shape[2:], counts):
        y += np.einsum("ngc...,goc->ngo...", source[index], kernel[last_axes(u)])
    return y.reshape(len(x), -1, *counts)


def scatter(a: Attributes, d: np.ndarray, w: np.ndarray, space: Shape) -> np.ndarray:
    """The transpose of `correlate` by x: every window gives back to where it took from. (n, in, *space)."""
    groups = a["groups"]
    kernel, given = w.reshape(groups, -1, *w.shape[1:]), by_group(d, groups)
    size = tuple(s + 2 * p for s, p in zip(space, a["padding"], strict=True))
    result = np.zeros((len(d), groups, kernel.shape[2], *size), d.dtype)
    for u, index in offsets(a, w.shape[2:], d.shape[2:]):
        result[index] += np.einsum("ngo...,goc->ngc...", given, kernel[last_axes(u)])
    return cut(result.reshape(len(d), -1, *size), a["padding"])


def kernel_gradient(a: Attributes, x: np.ndarray, d: np.ndarray, shape: Shape) -> np.ndarray:
    """The transpose of `correlate` by w: dw[o, c, u] = sum over n and t of d[o, t] x[c, s t + d u]."""
    groups = a["groups"]
    source, given = by_group(padded(x, a["padding"]), groups), by_group(d, groups)
    result = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for u, index in offsets(a, shape[2:], d.shape[2:]):
        part = source[index].reshape(*source.shape[:3], -1)
        result[last_axes(u)] = np.einsum("ngot,ngct->goc", given.reshape(*given.shape[:3], -1), part)
    return result.reshape(shape)


def with_bias(y: np.ndarray, biases: Arrays) -> np.ndarray:
    """One number for each channel, if there is one."""
    return y + biases[0].reshape(-1, *(1,) * (y.ndim - 2)) if biases else y


def over_channels(dy: np.ndarray) -> np.ndarray:
    """What comes back to a bias."""
    return dy.sum(axis=(0, *range(2, dy.ndim)))


def conv(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """With zeros at both ends; (size + 2 p - d (k - 1) - 1) / s + 1 windows."""
    x, w = xs[:2]
    both = zip(x.shape[2:], w.shape[2:], a["stride"], a["padding"], a["dilation"], strict=True)
    counts = tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in both)
    return with_bias(correlate(a, x, w, counts), xs[2:])


def conv_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Both transposes."""
    x, w = xs[:2]
    return [scatter(a, dy, w, x.shape[2:]), kernel_gradient(a, x, dy, w.shape), over_channels(dy)][: len(xs)]


def conv_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """It is linear in either."""
    dy = correlate(a, dxs[0], xs[1], y.shape[2:]) + correlate(a, xs[0], dxs[1], y.shape[2:])
    return with_bias(dy, dxs[2:])


def conv_transpose(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """The transpose of the convolution that goes from (n, out, *space) to x with the same kernel."""
    x, w = xs[:2]
    lists = zip(x.shape[2:], w.shape[2:], a["stride"], a["padding"], a["dilation"], a["output_padding"], strict=True)
    space = tuple((size - 1) * s - 2 * p + d * (k - 1) + extra + 1 for size, k, s, p, d, extra in lists)
    return with_bias(scatter(a, x, w, space), xs[2:])


def conv_transpose_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """The convolution itself; x and dy change places in the gradient of the kernel."""
    x, w = xs[:2]
    return [correlate(a, dy, w, x.shape[2:]), kernel_gradient(a, dy, x, w.shape), over_channels(dy)][: len(xs)]


def conv_transpose_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """It is linear in either."""
    dy = scatter(a, dxs[0], xs[1], y.shape[2:]) + scatter(a, xs[0], dxs[1], y.shape[2:])
    return with_bias(dy, dxs[2:])


RULES: dict[str, Rule] = {
    "conv": Rule(conv, conv_backward, conv_tangent),
    "conv_transpose": Rule(conv_transpose, conv_transpose_backward, conv_transpose_tangent),
}
"""By operation."""
