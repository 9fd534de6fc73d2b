"""Pools: windows laid side by side along a new first axis, and their largest or their mean."""

from __future__ import annotations

import numpy as np

from udlbridge.backends.reference.graphs.convolution import last_axes, offsets
from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule

Shape = tuple[int, ...]


def window_counts(a: Attributes, space: Shape) -> Shape:
    """How many windows along each axis; with `ceil_mode` also one that hangs over, if it begins inside."""
    counts = []
    for size, k, s, p, d in zip(space, a["kernel"], a["stride"], a["padding"], dilation(a), strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        count = room // s + 1
        if a["ceil_mode"] and room % s and count * s < size + p:
            count += 1
        counts.append(count)
    return tuple(counts)


def dilation(a: Attributes) -> Shape:
    """1 where a pool has none."""
    return tuple(a.get("dilation", (1,) * len(a["kernel"])))


def framed(a: Attributes, x: np.ndarray, counts: Shape, padding: float, beyond: float) -> np.ndarray:
    """The sample in its padding, and after it what windows see that reach beyond."""
    inner = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in a["padding"])], constant_values=padding)
    more = []
    for size, count, k, s, d in zip(inner.shape[2:], counts, a["kernel"], a["stride"], dilation(a), strict=True):
        more.append((0, max(0, (count - 1) * s + d * (k - 1) + 1 - size)))
    return np.pad(inner, [(0, 0), (0, 0), *more], constant_values=beyond)


def windows(a: Attributes, frame: np.ndarray, counts: Shape) -> np.ndarray:
    """(offsets in the kernel, n, channels, *windows)."""
    settings = {**a, "dilation": dilation(a)}
    return np.stack([frame[index] for _, index in offsets(settings, a["kernel"], counts)])


def give_back(a: Attributes, d: np.ndarray, x: np.ndarray, counts: Shape) -> np.ndarray:
    """The transpose of `windows` and `framed`, from (offsets, n, channels, *windows) to the shape of x."""
    frame = framed(a, np.zeros_like(x), counts, 0, 0)
    settings = {**a, "dilation": dilation(a)}
    for part, (_, index) in zip(d, offsets(settings, a["kernel"], counts), strict=True):
        frame[index] += part
    return frame[last_axes(slice(p, p + size) for p, size in zip(a["padding"], x.shape[2:], strict=True))]


def largest(a: Attributes, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All windows, and the offset in each of the first of the largest, (1, n, channels, *windows)."""
    counts = window_counts(a, x.shape[2:])
    found = windows(a, framed(a, x, counts, -np.inf, -np.inf), counts)
    return found, found.argmax(axis=0)[None]


def max_pool(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """The largest of each window."""
    found, argmax = largest(a, xs[0])
    return np.take_along_axis(found, argmax, axis=0)[0]


def max_pool_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """The largest gets all."""
    found, argmax = largest(a, xs[0])
    d = np.zeros_like(found)
    np.put_along_axis(d, argmax, dy[None], axis=0)
    return [give_back(a, d, xs[0], y.shape[2:])]


def max_pool_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """The tangent at the largest."""
    _, argmax = largest(a, xs[0])
    moved = windows(a, framed(a, dxs[0], y.shape[2:], 0, 0), y.shape[2:])
    return np.take_along_axis(moved, argmax, axis=0)[0]


def divisors(a: Attributes, x: np.ndarray, counts: Shape) -> np.ndarray:
    """How many numbers count in each window: what hangs over never, the padding if it should."""
    inside = framed(a, np.ones((1, 1, *x.shape[2:]), x.dtype), counts, float(a["count_padding"]), 0)
    return windows(a, inside, counts).sum(axis=0)


def mean_pool(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """Sums over windows, divided by how many numbers count."""
    x = xs[0]
    counts = window_counts(a, x.shape[2:])
    return windows(a, framed(a, x, counts, 0, 0), counts).sum(axis=0) / divisors(a, x, counts)


def mean_pool_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Every entry of a window gets the same."""
    share = dy / divisors(a, xs[0], y.shape[2:])
    return [give_back(a, np.broadcast_to(share, (int(np.prod(a["kernel"])), *share.shape)), xs[0], y.shape[2:])]


RULES: dict[str, Rule] = {
    "max_pool": Rule(max_pool, max_pool_backward, max_pool_tangent),
    "mean_pool": Rule(mean_pool, mean_pool_backward, lambda a, xs, y, dxs: mean_pool(a, 0, dxs)),
}
"""By operation."""
