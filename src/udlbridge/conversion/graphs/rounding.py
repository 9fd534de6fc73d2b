"""Translations of what rounds, and of division with a remainder: all from the nearest whole number."""

from __future__ import annotations

from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float, binary
from udlbridge.conversion.graphs.nearest import above, below, nearest, toward_zero, whole


def rounded(function: Any) -> Translation:
    """Of every entry; what is whole stays as it is.

    Raises:
        Unfit: to decimal places.
    """

    def translate(c: Call) -> Value:
        if c.get("decimals"):
            raise Unfit("it rounds to decimal places")
        x = c["self"]
        if c.builder.is_whole(x):
            return whole(c, c.value(as_float(c, x)))
        return c.value(function(c, as_float(c, x)))

    return translate


def fraction(c: Call) -> Value:
    """What stands behind the point."""
    x = c["self"]
    return c.add("subtract", x, toward_zero(c, x))


def quotient(c: Call) -> Value:
    """a / b rounded down, toward zero, or not at all."""
    mode = "floor" if c.name == "floor_divide" else c.get("rounding_mode")
    if mode is None:
        return c.value(binary("divide")(c))
    a, b = as_float(c, c["self"]), as_float(c, c["other"])
    return (below if mode == "floor" else toward_zero)(c, c.add("divide", a, b))


def remainder(function: Any) -> Translation:
    """a - b times the rounded a / b."""

    def translate(c: Call) -> Value:
        a, b = as_float(c, c["self"]), as_float(c, c["other"])
        times = function(c, c.add("divide", a, b))
        found = c.add("subtract", a, c.add("multiply", times, b))
        return whole(c, found) if all(map(c.builder.is_whole, (c["self"], c["other"]))) else found

    return translate


TRANSLATIONS: dict[str, Translation] = {
    "round": rounded(nearest),
    "floor": rounded(below),
    "ceil": rounded(above),
    "trunc": rounded(toward_zero),
    "fix": rounded(toward_zero),
    "frac": fraction,
    "floor_divide": quotient,
    **dict.fromkeys(("div", "divide", "true_divide"), quotient),
    "remainder": remainder(below),
    "fmod": remainder(toward_zero),
}
"""By the name of torch's operation."""
