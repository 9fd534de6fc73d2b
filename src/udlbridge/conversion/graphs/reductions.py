"""Translations of what takes several numbers to one, or weighs them by each other, along axes."""

from __future__ import annotations

from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation


def reduction(op: str, **settings: Any) -> Translation:
    """Over some axes or all."""

    def translate(c: Call) -> Value:
        x = c["self"]
        return c.add(op, x, axes=c.axes(x, c.get("dim")), keep=bool(c.get("keepdim", False)), **settings)

    return translate


def extreme(op: str) -> Translation:
    """With an axis torch gives places too, for which nobody may ask, and the slope goes to the first."""

    def translate(c: Call) -> Any:
        x = c["self"]
        if "dim" not in c.arguments:
            return c.add(op, x, axes=c.axes(x, None), keep=False, ties="share")
        return c.add(op, x, axes=c.axes(x, c["dim"]), keep=bool(c["keepdim"]), ties="first"), None

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


def deviation(c: Call) -> Value:
    """The root of the variance."""
    return root(c, variance(c))


def root(c: Call, x: Value) -> Value:
    """The square root, with the derivative 0 at 0, as torch defines it for norms and deviations."""
    zero = c.add("compare", x, 0.0, relation="equal")
    return c.add("where", zero, 0.0, c.add("sqrt", c.add("where", zero, 1.0, x)))


def norm(c: Call) -> Value:
    """Of vectors: the root of the sum of squares, or the sum of absolute values.

    Raises:
        Unfit: an order other than 1 and 2.
    """
    x, order = c["self"], c.get("ord", c.get("p", 2))
    settings: dict[str, Any] = {"axes": c.axes(x, c.get("dim")), "keep": bool(c.get("keepdim", False))}
    if order == 1:
        return c.add("sum", c.add("absolute", x, shape=c.shape(x)), **settings)
    if order not in (2, None):
        raise Unfit(f"a norm of order {order}")
    return root(c, c.add("sum", c.add("power", x, shape=c.shape(x), exponent=2.0), **settings))


def softmax(op: str) -> Translation:
    """Along an axis."""
    return lambda c: c.add(op, c["self"], axis=c.axis(c["self"], c["dim"]))


TRANSLATIONS: dict[str, Translation] = {
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "amax": reduction("max", ties="share"),
    "amin": reduction("min", ties="share"),
    "max": extreme("max"),
    "min": extreme("min"),
    "logsumexp": reduction("logsumexp"),
    "var": variance,
    "std": deviation,
    "linalg_vector_norm": norm,
    "norm": norm,
    **{name: softmax("softmax") for name in ("softmax", "_softmax")},
    **{name: softmax("log_softmax") for name in ("log_softmax", "_log_softmax")},
}
"""By the name of torch's operation."""
