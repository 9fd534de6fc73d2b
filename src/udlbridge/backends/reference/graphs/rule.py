"""What is written by hand of every operation: its value, and its derivative from either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Attributes = Mapping[str, Any]
Arrays = Sequence[np.ndarray]


class Rule(NamedTuple):
    """The value of an operation y = f(xs), and products with its Jacobian.

    `forward(attributes, n, xs) -> y`, for n samples. `backward(attributes, xs, y, dy) -> dxs` is J' dy, with None for
    an input that has no derivative. `tangent(attributes, xs, y, dxs) -> dy` is J dxs; the dxs of whole numbers and of
    truth values are None.
    """

    forward: Callable[[Attributes, int, Arrays], np.ndarray]
    backward: Callable[[Attributes, Arrays, np.ndarray, np.ndarray], Sequence[np.ndarray | None]]
    tangent: Callable[[Attributes, Arrays, np.ndarray, Sequence[Any]], np.ndarray]


def unbroadcast(d: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum of what came back over the axes that were broadcast from `shape`."""
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and d.shape[axis] != 1)
    return d.sum(axis=stretched, keepdims=True)


def slope_rule(
    f: Callable[[Attributes, np.ndarray], np.ndarray], df: Callable[[Attributes, np.ndarray, np.ndarray], np.ndarray]
) -> Rule:
    """An elementwise function of one input; `df(attributes, x, y)` is its derivative, from either side the same."""
    return Rule(
        lambda a, n, xs: f(a, xs[0]),
        lambda a, xs, y, dy: [df(a, xs[0], y) * dy],
        lambda a, xs, y, dxs: df(a, xs[0], y) * dxs[0],
    )
