"""Translations of what takes several numbers to one, or weighs them by each other, along axes."""

from __future__ import annotations

import math
from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float, as_truth
from udlbridge.conversion.graphs.movement import piece


def reduction(op: str, **settings: Any) -> Translation:
    """Over some axes or all."""

    def translate(c: Call) -> Value:
        x = as_float(c, c["self"])
        return c.add(op, x, axes=c.axes(x, c.get("dim")), keep=bool(c.get("keepdim", False)), **settings)

    return translate


def variance(c: Call) -> Value:
    """With Bessel's correction, unless said otherwise.

    Raises:
        Unfit: its correction is not a whole number.
    """
    x = c["self"]
    correction = c.get("correction", 1 if c.get("unbiased", True) else 0)
    correction = 1 if correction is None else correction
    if correction != int(correction):
        raise Unfit("a correction that is not whole")
    axes = c.axes(x, c.get("dim"))
    return c.add("variance", x, axes=axes, keep=bool(c.get("keepdim", False)), correction=int(correction))


def variance_and_mean(c: Call) -> tuple[Value, Value]:
    """Both, over the same axes."""
    return variance(c), reduction("mean")(c)


def any_holds(c: Call) -> Value:
    """Whether one of several is not 0."""
    x = c.add("cast", as_truth(c, c["self"]), shape=c.shape(c["self"]))
    most = c.add("max", x, axes=c.axes(x, c.get("dim")), keep=bool(c.get("keepdim", False)), ties="share")
    return c.add("compare", most, 0.5, relation="greater")


MOST_FACTORS = 256
"""As many numbers are multiplied one by one."""


def factors(c: Call) -> tuple[list[Value], int]:
    """What is multiplied along an axis, and the axis.

    Raises:
        Unfit: it is the axis of samples, or has more entries than `MOST_FACTORS`.
    """
    x = as_float(c, c["self"])
    if c.get("dim") is None:
        raise Unfit("it multiplies samples by each other")
    axis = c.axis(x, c["dim"])
    count = c.size(x, axis)
    if count > MOST_FACTORS:
        raise Unfit(f"it multiplies {count} numbers, and at most {MOST_FACTORS} are multiplied one by one")
    return [piece(c, x, axis, place, 1) for place in range(count)], axis


def products(c: Call) -> list[Value]:
    """All products of the first entries of an axis, as `cumprod` has them."""
    parts, _ = factors(c)
    found = parts[:1]
    for part in parts[1:]:
        found.append(c.add("multiply", found[-1], part, shape=c.shape(part)))
    return found


def cumulated_product(c: Call) -> Value:
    """Products of the first entries of an axis, of one, of two, and so on."""
    return c.add("concatenate", *products(c), axis=c.axis(c["self"], c["dim"]))


def distances(c: Call) -> Value:
    """Between all rows of two matrices.

    Raises:
        Unfit: an order other than 1 and 2.
    """
    one, other = (as_float(c, c.get(f"x{k}")) for k in (1, 2))
    if c["p"] not in (1, 2):
        raise Unfit(f"distances of order {c['p']}")
    rows, columns = c.shape(one), c.shape(other)
    wide = (*c.shape(), c.size(one, -1))
    left = c.reshape(one, (*rows[:-1], 1, rows[-1]))
    right = c.reshape(other, (*columns[:-2], 1, *columns[-2:]))
    settings: dict[str, Any] = {"axes": (len(wide) - 1,), "keep": False}
    apart = c.add("subtract", left, right, shape=wide)
    if c["p"] == 1:
        return c.add("sum", c.add("absolute", apart, shape=wide), **settings)
    return root(c, c.add("sum", c.add("power", apart, shape=wide, exponent=2.0), **settings))


def deviation(c: Call) -> Value:
    """The root of the variance."""
    return root(c, variance(c))


def root(c: Call, x: Value, exponent: float = 0.5) -> Value:
    """The square root or another, with the derivative 0 at 0, as torch defines it for norms and deviations."""
    zero = c.add("compare", x, 0.0, relation="equal")
    inside = c.add("where", zero, 1.0, x)
    found = c.add("sqrt", inside) if exponent == 0.5 else c.add("power", inside, exponent=exponent)
    return c.add("where", zero, 0.0, found)


def norm(c: Call) -> Value:
    """Of vectors: the largest absolute value, their sum, or a root of the sum of their powers.

    Raises:
        Unfit: an order of at most 0, or between 0 and 1.
    """
    x, order = c["self"], c.get("ord", c.get("p", 2))
    settings: dict[str, Any] = {"axes": c.axes(x, c.get("dim")), "keep": bool(c.get("keepdim", False))}
    if order == 1:
        return c.add("sum", c.add("absolute", x, shape=c.shape(x)), **settings)
    if order == math.inf:
        return c.add("max", c.add("absolute", x, shape=c.shape(x)), **settings, ties="share")
    if order not in (2, None):
        if not order > 1:
            raise Unfit(f"a norm of order {order}")
        powers = c.add("power", c.add("absolute", x, shape=c.shape(x)), shape=c.shape(x), exponent=float(order))
        return root(c, c.add("sum", powers, **settings), 1.0 / order)
    return root(c, c.add("sum", c.add("power", x, shape=c.shape(x), exponent=2.0), **settings))


def softmax(op: str) -> Translation:
    """Along an axis."""
    return lambda c: c.add(op, c["self"], axis=c.axis(c["self"], c["dim"]))


TRANSLATIONS: dict[str, Translation] = {
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "amax": reduction("max", ties="share"),
    "amin": reduction("min", ties="share"),
    "logsumexp": reduction("logsumexp"),
    "any": any_holds,
    "prod": lambda c: c.reshape(products(c)[-1]),
    "cumprod": cumulated_product,
    "_cdist_forward": distances,
    "cdist": distances,
    "var": variance,
    "var_mean": variance_and_mean,
    "std": deviation,
    "linalg_vector_norm": norm,
    "norm": norm,
    **{name: softmax("softmax") for name in ("softmax", "_softmax")},
    **{name: softmax("log_softmax") for name in ("log_softmax", "_log_softmax")},
}
"""By the name of torch's operation."""
