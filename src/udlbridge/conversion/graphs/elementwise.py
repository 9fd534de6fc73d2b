"""Translations of arithmetic, comparisons and conversions, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, OtherDtype, Unfit, Value
from udlbridge.conversion.graphs.nearest import toward_zero

Translation = Callable[[Call], Any]


def unary(op: str) -> Translation:
    """The operation of the same meaning."""
    return lambda c: c.add(op, as_float(c, first(c)))


def first(c: Call) -> Any:
    """The first argument, whatever it is called."""
    return next(iter(c.arguments.values()))


def binary(op: str) -> Translation:
    """Of two tensors, or a tensor and a number; `alpha` multiplies the second."""

    def translate(c: Call) -> Value:
        other = c["other"]
        if c.meta.dtype == torch.bool:
            return both_hold(c, op)
        if c.get("alpha", 1) != 1:
            shape = c.shape(other) if isinstance(other, Value | Tensor) else ()
            other = c.add("multiply", other, c["alpha"], shape=shape)
        return c.add(op, as_float(c, c["self"]), as_float(c, other))

    return translate


def both_hold(c: Call, op: str) -> Value:
    """Products and sums of truth values.

    Raises:
        Unfit: another operation.
    """
    functions = {"multiply": "and", "add": "or", "minimum": "and", "maximum": "or"}
    if op not in functions:
        raise Unfit("it computes with truth values")
    return c.add("logical", c["self"], c["other"], function=functions[op])


def reversed_subtraction(c: Call) -> Value:
    """other - self.

    Raises:
        Unfit: `alpha` is given.
    """
    if c.get("alpha", 1) != 1:
        raise Unfit("alpha is not 1")
    return c.add("subtract", as_float(c, c["other"]), as_float(c, c["self"]))


MOST_POWERS = 8
"""Different constant powers of one operation that are taken one by one."""


def power(c: Call) -> Value:
    """To constant powers, of a constant, or both computed.

    Both computed, it is e^(exponent log base): where the base is negative neither that nor its slope is a number, and
    where it is 0, the slope is 0.
    """
    exponent, base = c["exponent"], c["self"]
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = exponent.item()
    if isinstance(exponent, int | float):
        return c.add("power", as_float(c, base), exponent=float(exponent))
    if isinstance(base, int | float) and base > 0:
        return c.add("exp", c.add("multiply", exponent, math.log(base)))
    base, exponent = as_float(c, base), as_float(c, exponent)
    if isinstance(exponent, Tensor) and len(distinct := sorted(set(exponent.flatten().tolist()))) <= MOST_POWERS:
        return few_powers(c, base, exponent, distinct)
    above, below = raised(c, base, exponent, "greater"), raised(c, base, exponent, "less")
    shape = c.shape(base) if isinstance(base, Value | Tensor) else ()
    none = c.add("compare", exponent, 0.0, shape=c.shape(exponent), relation="equal")
    at_zero = c.add("where", none, 1.0, c.add("exp", c.add("multiply", exponent, -math.inf)))
    negative = c.add("compare", base, 0.0, shape=shape, relation="less")
    positive = c.add("compare", base, 0.0, shape=shape, relation="greater")
    return c.add("where", positive, above, c.add("where", negative, below, c.add("stop_gradient", at_zero)))


def raised(c: Call, base: Any, exponent: Any, relation: str) -> Value:
    """The power where the base is so against 0, and 1 elsewhere: no slope of there comes in the way."""
    shape = c.shape(base) if isinstance(base, Value | Tensor) else ()
    here = c.add("compare", base, 0.0, shape=shape, relation=relation)
    logarithm = c.add("log", c.add("where", here, base, 1.0, shape=shape), shape=shape)
    return c.add("exp", c.add("multiply", exponent, logarithm))


def few_powers(c: Call, base: Any, exponents: Tensor, distinct: list[float]) -> Value:
    """Each constant power where it stands; the base of the others is 1 there."""
    result: Any = 1.0
    for one in distinct:
        here = exponents == one
        alone = c.add("power", c.add("where", here, base, 1.0), exponent=one)
        result = c.add("where", here, alone, result)
    return c.value(result)


def clamp(c: Call) -> Value:
    """Between numbers, or above or below tensors; where x is equal to a bound the slope is that of x."""
    x, low, high = as_float(c, c["self"]), number(c.get("min")), number(c.get("max"))
    if isinstance(low, Tensor | Value) or isinstance(high, Tensor | Value):
        above = x if low is None else bounded(c, x, low, "less")
        return c.value(above) if high is None else bounded(c, above, high, "greater")
    return c.add("clamp", x, low=-math.inf if low is None else low, high=math.inf if high is None else high)


def number(value: Any) -> Any:
    """A constant without axes as a number."""
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def bounded(c: Call, x: Any, bound: Any, relation: str) -> Value:
    """The bound where x is `relation` than it: "maximum" and "minimum" would share the slope where both are equal."""
    bound = as_float(c, bound)
    return c.add("where", c.add("compare", x, bound, relation=relation), bound, x)


def compare(relation: str) -> Translation:
    """Truth values; whole numbers are compared as numbers."""
    return lambda c: c.add("compare", as_float(c, c["self"]), as_float(c, c["other"]), relation=relation)


def as_float(c: Call, value: Any) -> Any:
    """Truth values and whole numbers as numbers, and constants in the dtype of the graph."""
    if isinstance(value, Value) and c.builder.kinds.get(value, "float") != "float":
        return c.add("cast", value, shape=c.shape(value))
    return value.to(c.builder.dtype) if isinstance(value, Tensor) else value


def as_whole(c: Call, value: Any) -> Any:
    """Small whole numbers, which are computed as numbers, as what a table is looked up by."""
    if isinstance(value, Value) and c.builder.kinds.get(value, "float") == "float":
        return c.add("whole", value, shape=c.shape(value))
    return value


def as_truth(c: Call, value: Any) -> Any:
    """Numbers as whether they are not 0."""
    if isinstance(value, Value) and c.builder.kinds.get(value, "float") == "bool":
        return value
    return c.add("compare", as_float(c, value), 0.0, shape=c.shape(value), relation="not_equal")


def logical(function: str) -> Translation:
    """Of truth values."""

    def translate(c: Call) -> Value:
        if c.meta.dtype != torch.bool:
            raise Unfit("it counts in bits")
        return c.add("logical", *c.arguments.values(), function=function)

    return translate


def where(c: Call) -> Value:
    """By a condition."""
    return c.add("where", c["condition"], as_float(c, c["self"]), as_float(c, c["other"]))


def masked_fill(c: Call) -> Value:
    """A number where the mask holds."""
    return c.add("where", c["mask"], as_float(c, c["value"]), as_float(c, c["self"]))


def same(c: Call) -> Any:
    """What changes no number."""
    return first(c)


def converted(c: Call) -> Any:
    """To another dtype: the graph has one for all numbers.

    Raises:
        OtherDtype: it computes in another one than the graph.
    """
    value, found = first(c), c.builder.kinds.get(first(c), "float")
    target = c.meta.dtype
    if target == torch.bool:
        return as_truth(c, value)
    if target == c.builder.dtype:
        return as_float(c, value)
    if found == "int" and target == torch.int64:
        return value
    if c.builder.is_whole(value):
        found = as_float(c, value)
        c.builder.whole.add(found)
        return found
    if not target.is_floating_point and not target.is_complex:
        return toward_zero(c, value)
    raise OtherDtype(target, c.builder.dtype)


def detached(c: Call) -> Value:
    """A value whose derivative is 0."""
    return c.add("stop_gradient", first(c))


def scaled(op: str, factor: float) -> Translation:
    """A function of `factor` times x."""
    return lambda c: c.add(op, c.add("multiply", first(c), factor))


def divided(divisor: float) -> Translation:
    """log x over that of the base."""
    return lambda c: c.add("multiply", c.add("log", first(c)), 1.0 / divisor)


def added(op: str) -> Translation:
    """self + value (a op b)."""

    def translate(c: Call) -> Value:
        shape = c.shape()
        part = c.add(op, c["tensor1"], c["tensor2"], shape=shape)
        return c.add("add", c["self"], part if c["value"] == 1 else c.add("multiply", part, c["value"], shape=shape))

    return translate


def interpolated(c: Call) -> Value:
    """self + weight (end - self)."""
    step = c.add("multiply", c.add("subtract", c["end"], c["self"]), c["weight"])
    return c.add("add", c["self"], step)


def sign(c: Call) -> Value:
    """1, 0 or -1, with slope 0."""
    x = c["self"]
    above, below = (c.add("compare", x, 0.0, relation=relation) for relation in ("greater", "less"))
    return c.add("where", above, 1.0, c.add("where", below, -1.0, 0.0))


def times_logarithm(c: Call) -> Value:
    """x log y, which is 0 where x is 0."""
    x, y = as_float(c, c["self"]), as_float(c, c["other"])
    nothing = c.add("compare", x, 0.0, relation="equal")
    return c.add("where", nothing, 0.0, c.add("multiply", x, c.add("log", c.add("where", nothing, 1.0, y))))


UNARY = {
    "neg": "negative", "abs": "absolute", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sin",
    "cos": "cos", "erf": "erf",
}  # fmt: skip
"""Names of the same operations in torch and in graphs."""

TRANSLATIONS: dict[str, Translation] = {
    **{name: unary(op) for name, op in UNARY.items()},
    **dict.fromkeys(("clone", "contiguous", "alias", "lift_fresh_copy", "detach_", "positive"), same),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "double"), converted),
    "add": binary("add"),
    "sub": binary("subtract"),
    "subtract": binary("subtract"),
    "rsub": reversed_subtraction,
    "mul": binary("multiply"),
    "multiply": binary("multiply"),
    "maximum": binary("maximum"),
    "minimum": binary("minimum"),
    "pow": power,
    "square": lambda c: c.add("power", as_float(c, c["self"]), exponent=2.0),
    "reciprocal": lambda c: c.add("power", c["self"], exponent=-1.0),
    "exp2": scaled("exp", math.log(2)),
    "log2": divided(math.log(2)),
    "log10": divided(math.log(10)),
    "erfc": lambda c: c.add("subtract", 1.0, c.add("erf", c["self"])),
    "sign": sign,
    "xlogy": times_logarithm,
    "tan": lambda c: c.add("divide", c.add("sin", c["self"]), c.add("cos", c["self"])),
    "isnan": lambda c: c.add("compare", c["self"], c["self"], relation="not_equal"),
    "isinf": lambda c: c.add("compare", c.add("absolute", c["self"]), math.inf, relation="equal"),
    "addcmul": added("multiply"),
    "addcdiv": added("divide"),
    "lerp": interpolated,
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "eq": compare("equal"),
    "ne": compare("not_equal"),
    "lt": compare("less"),
    "le": compare("less_equal"),
    "gt": compare("greater"),
    "ge": compare("greater_equal"),
    "logical_not": logical("not"),
    "bitwise_not": logical("not"),
    "logical_and": logical("and"),
    "bitwise_and": logical("and"),
    "__and__": logical("and"),
    "logical_or": logical("or"),
    "bitwise_or": logical("or"),
    "__or__": logical("or"),
    "where": where,
    "masked_fill": masked_fill,
    "detach": detached,
}
"""By the name of torch's operation."""
