"""Arithmetic, elementwise with broadcasting: what comes back to a smaller input is summed where it was repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, slope_rule, unbroadcast
from udlbridge.networks.graphs.values import concrete


def partial_rule(f: Callable[..., np.ndarray], partials: Callable[..., tuple[Any, Any]]) -> Rule:
    """A function f(a, b), and `partials(a, b, y)`, its two derivatives, elementwise."""

    def backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        return [unbroadcast(dy * p, x.shape) for p, x in zip(partials(*xs, y), xs, strict=True)]

    def tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
        p, q = partials(*xs, y)
        return np.asarray(p * dxs[0] + q * dxs[1]) * np.ones_like(y)

    return Rule(lambda a, n, xs: f(*xs), backward, tangent)


def ties(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first wins, 1/2 where they are equal, else 0, for `first` > `second`."""
    return np.asarray(np.where(first == second, 0.5, first > second), dtype=first.dtype)


def clamp(a: Attributes, x: np.ndarray) -> np.ndarray:
    """min(max(x, low), high): that is `high` everywhere if it is below `low`."""
    return np.minimum(np.maximum(x, a["low"]), a["high"]).astype(x.dtype)


def power_slope(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a x^(a-1); of x^0, which is 1 at 0 too, that is 0 everywhere."""
    p = a["exponent"]
    return np.asarray(p * x ** (p - 1) if p else np.zeros_like(x))


def inside(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 from `low` to `high`, the bounds included."""
    return ((x >= a["low"]) & (x <= a["high"])).astype(x.dtype)


def compare(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """The ufunc of NumPy of the same name."""
    return np.asarray(getattr(np, a["relation"])(*xs))


def logical(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """not a, a and b, a or b."""
    return np.asarray({"not": np.logical_not, "and": np.logical_and, "or": np.logical_or}[a["function"]](*xs))


def where_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray | None]:
    """Each gets what came back where it was chosen."""
    condition, one, other = xs
    zero = np.zeros_like(dy)
    return [
        None,
        unbroadcast(np.where(condition, dy, zero), one.shape),
        unbroadcast(np.where(condition, zero, dy), other.shape),
    ]


def logarithm(a: Attributes, x: np.ndarray) -> np.ndarray:
    """-inf at 0, and not a number below, without a word: another branch may be taken there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(x))


def constant_rule(forward: Callable[[Attributes, int, Arrays], np.ndarray]) -> Rule:
    """An operation without a derivative."""
    return Rule(forward, lambda a, xs, y, dy: [None] * len(xs), lambda a, xs, y, dxs: np.zeros_like(y))


RULES: dict[str, Rule] = {
    "add": partial_rule(np.add, lambda a, b, y: (1, 1)),
    "subtract": partial_rule(np.subtract, lambda a, b, y: (1, -1)),
    "multiply": partial_rule(np.multiply, lambda a, b, y: (b, a)),
    "divide": partial_rule(np.divide, lambda a, b, y: (1 / b, -y / b)),
    "maximum": partial_rule(np.maximum, lambda a, b, y: (ties(a, b), ties(b, a))),
    "minimum": partial_rule(np.minimum, lambda a, b, y: (ties(b, a), ties(a, b))),
    "power": slope_rule(lambda a, x: x ** a["exponent"], power_slope),
    "negative": slope_rule(lambda a, x: -x, lambda a, x, y: -np.ones_like(x)),
    "absolute": slope_rule(lambda a, x: np.abs(x), lambda a, x, y: np.sign(x)),
    "exp": slope_rule(lambda a, x: np.exp(x), lambda a, x, y: y),
    "log": slope_rule(logarithm, lambda a, x, y: 1 / x),
    "sqrt": slope_rule(lambda a, x: np.sqrt(x), lambda a, x, y: 1 / (2 * y)),
    "rsqrt": slope_rule(lambda a, x: 1 / np.sqrt(x), lambda a, x, y: -y / (2 * x)),
    "sin": slope_rule(lambda a, x: np.sin(x), lambda a, x, y: np.cos(x)),
    "cos": slope_rule(lambda a, x: np.cos(x), lambda a, x, y: -np.sin(x)),
    "erf": slope_rule(lambda a, x: erf(x), lambda a, x, y: 2 / float(np.sqrt(np.pi)) * np.exp(-(x**2))),
    "clamp": slope_rule(clamp, inside),
    "fill": constant_rule(lambda a, n, xs: np.full(concrete(a["shape"], n), a["value"])),
    "compare": constant_rule(compare),
    "logical": constant_rule(logical),
    "cast": constant_rule(lambda a, n, xs: xs[0].astype(float)),
    "whole": constant_rule(lambda a, n, xs: np.rint(xs[0]).astype(np.int64)),
    "stop_gradient": constant_rule(lambda a, n, xs: xs[0]),
    "where": Rule(
        lambda a, n, xs: np.where(*xs),
        where_backward,
        lambda a, xs, y, dxs: np.where(xs[0], dxs[1], dxs[2]),
    ),
}
"""By operation. `fill` and `cast` give float64; the network rounds every value to its dtype."""
