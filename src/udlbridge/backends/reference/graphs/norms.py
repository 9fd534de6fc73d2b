"""Norms: numbers made to have mean 0 and variance 1 over some axes, then scaled and shifted.

With h = (x - mean) / s over a set of numbers, the Jacobian of h by x, (I - 11'/N - h h'/N) / s, is symmetric: the same
function takes a cotangent back and a tangent forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, unbroadcast


class Normed(NamedTuple):
    """The normed numbers in the shape of x, and the product of their Jacobian with a cotangent or tangent."""

    h: np.ndarray
    slope: Callable[[np.ndarray], np.ndarray]


def centred(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> Normed:
    """(x - mean) / sqrt(var + epsilon)."""
    distance = x - x.mean(axis=axes, keepdims=True)
    s = np.sqrt((distance**2).mean(axis=axes, keepdims=True) + epsilon)
    h = distance / s

    def slope(d: np.ndarray) -> np.ndarray:
        own = (h * d).mean(axis=axes, keepdims=True)
        return np.asarray((d - d.mean(axis=axes, keepdims=True) - h * own) / s)

    return Normed(h, slope)


def layer(a: Attributes, xs: Arrays) -> Normed:
    """Over the last axes."""
    x = xs[0]
    return centred(x, tuple(range(x.ndim - a["axes"], x.ndim)), a["epsilon"])


def rms(a: Attributes, xs: Arrays) -> Normed:
    """x / sqrt(mean of x^2 + epsilon) over the last axes, without a mean taken out."""
    x = xs[0]
    axes = tuple(range(x.ndim - a["axes"], x.ndim))
    s = np.sqrt((x**2).mean(axis=axes, keepdims=True) + a["epsilon"])
    h = x / s
    return Normed(h, lambda d: np.asarray((d - h * (h * d).mean(axis=axes, keepdims=True)) / s))


def group(a: Attributes, xs: Arrays) -> Normed:
    """Over the channels of a group, and all positions."""
    x = xs[0]
    grouped = x.reshape(len(x), a["groups"], -1)
    found = centred(grouped, (2,), a["epsilon"])
    return Normed(found.h.reshape(x.shape), lambda d: found.slope(d.reshape(grouped.shape)).reshape(x.shape))


def by_channel(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """(channels,) as (1, channels, 1, ...)."""
    return value.reshape(1, -1, *(1,) * (like.ndim - 2))


def norm_rule(normed: Callable[[Attributes, Arrays], Normed], channels: bool) -> Rule:
    """y = scale h + shift, where they are given; along the second axis, or along the last ones."""

    def placed(value: np.ndarray, like: np.ndarray) -> np.ndarray:
        return by_channel(value, like) if channels else value

    def forward(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
        y = normed(a, xs).h
        y = y * placed(xs[1], y) if len(xs) > 1 else y
        return y + placed(xs[2], y) if len(xs) > 2 else y

    def backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        found = normed(a, xs)
        scaled = dy * placed(xs[1], dy) if len(xs) > 1 else dy
        own = [
            unbroadcast(d, placed(x, dy).shape).reshape(x.shape)
            for d, x in zip((dy * found.h, dy), xs[1:], strict=False)
        ]
        return [found.slope(scaled), *own]

    def tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
        found = normed(a, xs)
        dy = found.slope(dxs[0])
        if len(xs) > 1:
            dy = dy * placed(xs[1], dy) + found.h * placed(dxs[1], dy)
        return dy + placed(dxs[2], dy) if len(xs) > 2 else dy

    return Rule(forward, backward, tangent)


def batch_parts(xs: Arrays) -> tuple[np.ndarray, ...]:
    """Distance from the mean, variance, and scale of every channel, spread along the second axis."""
    x, mean, var = xs[:3]
    scale = by_channel(xs[3], x) if len(xs) > 3 else np.ones((1,) * x.ndim, x.dtype)
    return x - by_channel(mean, x), by_channel(var, x), scale


def batch_norm(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """With a mean and a variance that are given."""
    distance, var, scale = batch_parts(xs)
    y = distance / np.sqrt(var + a["epsilon"]) * scale
    return y + by_channel(xs[4], y) if len(xs) > 4 else y


def batch_norm_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Elementwise: nothing but the sums over samples and positions connects them."""
    distance, var, scale = batch_parts(xs)
    s = np.sqrt(var + a["epsilon"])
    parts = [-dy * scale / s, -dy * scale * distance / (2 * s**3), dy * distance / s, dy]
    over = (0, *range(2, dy.ndim))
    return [dy * scale / s, *(part.sum(axis=over) for part in parts[: len(xs) - 1])]


def batch_norm_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """The same terms forward."""
    distance, var, scale = batch_parts(xs)
    s = np.sqrt(var + a["epsilon"])
    dx, dmean, dvar = dxs[0], by_channel(dxs[1], y), by_channel(dxs[2], y)
    dy = (dx - dmean) * scale / s - distance * scale * dvar / (2 * s**3)
    if len(xs) > 3:
        dy = dy + distance / s * by_channel(dxs[3], y)
    return dy + by_channel(dxs[4], y) if len(xs) > 4 else dy


RULES: dict[str, Rule] = {
    "layer_norm": norm_rule(layer, channels=False),
    "rms_norm": norm_rule(rms, channels=False),
    "group_norm": norm_rule(group, channels=True),
    "batch_norm": Rule(batch_norm, batch_norm_backward, batch_norm_tangent),
}
"""By operation."""
