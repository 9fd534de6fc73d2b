"""Operations that move numbers and compute nothing: what goes forward is moved along a tangent in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, unbroadcast
from udlbridge.networks.graphs.values import concrete

MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""NumPy's words for what stands in a padding."""


def moving_rule(
    forward: Callable[[Attributes, int, Arrays], np.ndarray],
    back: Callable[[Attributes, Arrays, np.ndarray], np.ndarray],
    tangent: Callable[[Attributes, Arrays, np.ndarray, Arrays], np.ndarray],
) -> Rule:
    """Of one input that has a derivative; `back(attributes, xs, dy)` is the transpose."""
    return Rule(forward, lambda a, xs, y, dy: [back(a, xs, dy), *[None] * (len(xs) - 1)], tangent)


def slice_index(a: Attributes) -> tuple[slice, ...]:
    """The part as NumPy's index."""
    return (*(slice(None),) * a["axis"], slice(a["start"], a["stop"], a["step"]))


def slice_back(a: Attributes, xs: Arrays, dy: np.ndarray) -> np.ndarray:
    """Zeros around it."""
    d = np.zeros(xs[0].shape, dy.dtype)
    d[slice_index(a)] = dy
    return d


def put_back(dy: np.ndarray, index: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The transpose of `np.take`: entries that were taken several times get the sum."""
    moved = np.moveaxis(dy, axis, 0)
    d = np.zeros((size, *moved.shape[1:]), dy.dtype)
    np.add.at(d, index, moved)
    return np.moveaxis(d, 0, axis)


def concatenate_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Each gets its part."""
    ends = np.cumsum([x.shape[a["axis"]] for x in xs])[:-1]
    return list(np.split(dy, ends, axis=a["axis"]))


def padded_indices(a: Attributes, x: np.ndarray) -> list[np.ndarray]:
    """For each axis the indices that its padded entries come from."""
    return [np.pad(np.arange(size), pair, mode=MODES[a["mode"]]) for size, pair in zip(x.shape, a["pads"], strict=True)]


def pad(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """A value around it, or its own entries."""
    x = xs[0]
    if a["mode"] == "constant":
        return np.pad(x, a["pads"], constant_values=a["value"])
    for axis, indices in enumerate(padded_indices(a, x)):
        x = np.take(x, indices, axis=axis)
    return x


def pad_back(a: Attributes, xs: Arrays, dy: np.ndarray) -> np.ndarray:
    """What lies in the padding goes back to where it came from, or nowhere."""
    x = xs[0]
    if a["mode"] == "constant":
        return dy[tuple(slice(before, before + size) for (before, _), size in zip(a["pads"], x.shape, strict=True))]
    for axis, indices in enumerate(padded_indices(a, x)):
        dy = put_back(dy, indices, axis, x.shape[axis])
    return dy


RULES: dict[str, Rule] = {
    "reshape": moving_rule(
        lambda a, n, xs: xs[0].reshape(concrete(a["shape"], n)),
        lambda a, xs, dy: dy.reshape(xs[0].shape),
        lambda a, xs, y, dxs: dxs[0].reshape(y.shape),
    ),
    "expand": moving_rule(
        lambda a, n, xs: np.broadcast_to(xs[0], concrete(a["shape"], n)),
        lambda a, xs, dy: unbroadcast(dy, xs[0].shape),
        lambda a, xs, y, dxs: np.broadcast_to(dxs[0], y.shape),
    ),
    "permute": moving_rule(
        lambda a, n, xs: xs[0].transpose(a["axes"]),
        lambda a, xs, dy: dy.transpose(np.argsort(a["axes"])),
        lambda a, xs, y, dxs: dxs[0].transpose(a["axes"]),
    ),
    "slice": moving_rule(
        lambda a, n, xs: xs[0][slice_index(a)], slice_back, lambda a, xs, y, dxs: dxs[0][slice_index(a)]
    ),
    "take": moving_rule(
        lambda a, n, xs: np.take(xs[0], xs[1], axis=a["axis"]),
        lambda a, xs, dy: put_back(dy, xs[1], a["axis"], xs[0].shape[a["axis"]]),
        lambda a, xs, y, dxs: np.take(dxs[0], xs[1], axis=a["axis"]),
    ),
    "concatenate": Rule(
        lambda a, n, xs: np.concatenate(xs, axis=a["axis"]),
        concatenate_backward,
        lambda a, xs, y, dxs: np.concatenate(dxs, axis=a["axis"]),
    ),
    "pad": moving_rule(pad, pad_back, lambda a, xs, y, dxs: pad({**a, "value": 0.0}, 0, dxs)),
}
"""By operation."""
