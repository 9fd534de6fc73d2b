"""Sums, means, extremes and the like over axes, and softmax along one. What was reduced is spread out again first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule


def spread(a: Attributes, y: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A reduced value with its axes of extent 1, whether or not they were kept."""
    return y if a["keep"] else np.expand_dims(y, [axis for axis in a["axes"] if axis < like.ndim])


def count(a: Attributes, x: np.ndarray) -> int:
    """How many numbers are reduced to one."""
    return int(np.prod([x.shape[axis] for axis in a["axes"]]))


def weighted_rule(
    f: Callable[..., np.ndarray], weights: Callable[[Attributes, np.ndarray, np.ndarray], np.ndarray]
) -> Rule:
    """A reduction f, whose derivative by every entry is `weights(attributes, x, y)`."""

    def backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        x = xs[0]
        return [weights(a, x, spread(a, y, x)) * spread(a, dy, x)]

    def tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
        x = xs[0]
        return np.asarray((weights(a, x, spread(a, y, x)) * dxs[0]).sum(axis=a["axes"], keepdims=a["keep"]))

    return Rule(lambda a, n, xs: f(a, xs[0], axis=a["axes"], keepdims=a["keep"]), backward, tangent)


def share(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 at the extreme; of several, 1 at the first in C order, or the same share for each."""
    hits = x == y
    if a["ties"] == "share":
        return np.asarray(hits / hits.sum(axis=a["axes"], keepdims=True), dtype=x.dtype)
    rest = [axis for axis in range(x.ndim) if axis not in a["axes"]]
    order = [*rest, *a["axes"]]
    flat = hits.transpose(order).reshape(*(x.shape[axis] for axis in rest), -1)
    first = np.zeros(flat.shape, dtype=x.dtype)
    np.put_along_axis(first, flat.argmax(axis=-1)[..., None], 1, axis=-1)
    return first.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))


def logsumexp(a: Attributes, x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """The largest is taken out first, so that nothing overflows."""
    top = x.max(axis=axis, keepdims=True)
    found = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return np.asarray(found if keepdims else found.squeeze(axis))


def variance(a: Attributes, x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Squared distances from the mean."""
    distance = x - x.mean(axis=axis, keepdims=True)
    return np.asarray((distance**2).sum(axis=axis, keepdims=keepdims) / (count(a, x) - a["correction"]))


def variance_weights(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """2 (x - mean) / (count - correction); the mean's own part sums to 0."""
    return np.asarray(2 * (x - x.mean(axis=a["axes"], keepdims=True)) / (count(a, x) - a["correction"]))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """With the largest taken out first."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def log_softmax(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """x - logsumexp(x)."""
    shifted = xs[0] - xs[0].max(axis=a["axis"], keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=a["axis"], keepdims=True)))


def softmax_slope(a: Attributes, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Y (d - sum of y d): the Jacobian diag(y) - y y' is symmetric."""
    return np.asarray(y * (d - (y * d).sum(axis=a["axis"], keepdims=True)))


RULES: dict[str, Rule] = {
    "sum": weighted_rule(lambda a, x, **over: x.sum(**over), lambda a, x, y: np.ones_like(x)),
    "mean": weighted_rule(lambda a, x, **over: x.mean(**over), lambda a, x, y: np.ones_like(x) / count(a, x)),
    "max": weighted_rule(lambda a, x, **over: x.max(**over), share),
    "min": weighted_rule(lambda a, x, **over: x.min(**over), share),
    "logsumexp": weighted_rule(logsumexp, lambda a, x, y: np.exp(x - y)),
    "variance": weighted_rule(variance, variance_weights),
    "softmax": Rule(
        lambda a, n, xs: softmax(xs[0], a["axis"]),
        lambda a, xs, y, dy: [softmax_slope(a, y, dy)],
        lambda a, xs, y, dxs: softmax_slope(a, y, dxs[0]),
    ),
    "log_softmax": Rule(
        log_softmax,
        lambda a, xs, y, dy: [dy - np.exp(y) * dy.sum(axis=a["axis"], keepdims=True)],
        lambda a, xs, y, dxs: dxs[0] - (np.exp(y) * dxs[0]).sum(axis=a["axis"], keepdims=True),
    ),
}
"""By operation."""
