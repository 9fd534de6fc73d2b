"""Translations of functions whose plain formulas lose digits, as log(1 + x) near 0, or overflow before they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from udlbridge.conversion.graphs.builder import Call, Value
from udlbridge.conversion.graphs.elementwise import as_float
from udlbridge.conversion.graphs.reductions import root

Translation = Callable[[Call], Any]


def logarithm_of_1_and(c: Call, x: Value) -> Value:
    """log(1 + x). Near 0 it is x log(u) / (u - 1) with u the rounded 1 + x, whose error the logarithm shares.

    That has the digits, and log u has the slope: so much is added to it as it lacks, as a constant.

    Source: Kahan, as in Goldberg, What every computer scientist should know about floating-point arithmetic (1991),
    theorem 4.
    """
    u = c.add("add", x, 1.0)
    plain = c.add("log", u)
    near = c.add("compare", c.add("absolute", x), 0.5, relation="less")
    rounded = c.add("compare", u, 1.0, relation="equal")
    step = c.add("where", rounded, 1.0, c.add("subtract", u, 1.0))
    exact = c.add("where", rounded, x, c.add("divide", c.add("multiply", plain, x), step))
    lacking = c.add("where", near, c.add("subtract", exact, plain), 0.0)
    return c.add("add", plain, c.add("stop_gradient", lacking))


def exponential_less_1(c: Call) -> Value:
    """e^x - 1 = tanh(x / 2) (e^x + 1)."""
    x = as_float(c, c["self"])
    return c.add("multiply", c.add("tanh", c.add("multiply", x, 0.5)), c.add("add", c.add("exp", x), 1.0))


def cosine(c: Call) -> Value:
    """(e^x + e^-x) / 2."""
    x = as_float(c, c["self"])
    return c.add("multiply", c.add("add", c.add("exp", x), c.add("exp", c.add("negative", x))), 0.5)


def sine(c: Call) -> Value:
    """tanh x cosh x."""
    return c.add("multiply", c.add("tanh", as_float(c, c["self"])), cosine(c))


def area_sine(c: Call) -> Value:
    """log(1 + s + s^2 / (1 + sqrt(s^2 + 1))) with s = |x|, and the sign of x: nothing cancels."""
    x = as_float(c, c["self"])
    sign = c.add("where", c.add("compare", x, 0.0, relation="less"), -1.0, 1.0)
    size = c.add("multiply", sign, x)
    square = c.add("power", size, exponent=2.0)
    root = c.add("sqrt", c.add("add", square, 1.0))
    more = c.add("add", size, c.add("divide", square, c.add("add", root, 1.0)))
    return c.add("multiply", sign, logarithm_of_1_and(c, more))


def area_cosine(c: Call) -> Value:
    """log(1 + t + sqrt(t (x + 1))) with t = x - 1."""
    x = as_float(c, c["self"])
    t = c.add("subtract", x, 1.0)
    root = c.add("sqrt", c.add("multiply", t, c.add("add", x, 1.0)))
    return logarithm_of_1_and(c, c.add("add", t, root))


def area_tangent(c: Call) -> Value:
    """(log(1 + x) - log(1 - x)) / 2."""
    x = as_float(c, c["self"])
    above, below = logarithm_of_1_and(c, x), logarithm_of_1_and(c, c.add("negative", x))
    return c.add("multiply", c.add("subtract", above, below), 0.5)


def hypotenuse(c: Call) -> Value:
    """sqrt(a^2 + b^2), by what a and b are of the larger one: their own squares may be beyond all numbers."""
    a, b = as_float(c, c["self"]), as_float(c, c["other"])
    larger = c.add("maximum", *(c.add("absolute", one, shape=c.shape(one)) for one in (a, b)))
    scale = c.add("where", c.add("compare", larger, 0.0, relation="equal"), 1.0, larger)
    scale = c.add("stop_gradient", scale)
    squares = (c.add("power", c.add("divide", one, scale), exponent=2.0) for one in (a, b))
    return c.add("multiply", scale, root(c, c.add("add", *squares)))


TRANSLATIONS: dict[str, Translation] = {
    "log1p": lambda c: logarithm_of_1_and(c, as_float(c, c["self"])),
    "expm1": exponential_less_1,
    "sinh": sine,
    "cosh": cosine,
    "asinh": area_sine,
    "arcsinh": area_sine,
    "acosh": area_cosine,
    "arccosh": area_cosine,
    "atanh": area_tangent,
    "arctanh": area_tangent,
    "hypot": hypotenuse,
}
"""By torch's name."""
