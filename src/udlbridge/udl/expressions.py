"""Formulas as plain data: a function of one array, written once, evaluated and differentiated by every engine.

An `Expression` computes nothing. Arithmetic on expressions, and the functions below, build a graph; `program` lays it
out as a list of steps that each backend runs in its own way, with its own automatic (or hand-written) derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.backends.programs import Program, Step
from udlbridge.errors import InputError, OptionError


@dataclass(frozen=True, eq=False)
class Expression:
    """One node of a formula: an operation on other nodes.

    `value` holds the array of a constant; `setting` the exponent of a power or the index of an item or column.
    """

    operation: str
    arguments: tuple[Expression, ...] = ()
    value: np.ndarray | None = None
    setting: float = 0.0

    # NumPy must leave `array * expression` to the methods below.
    __array_ufunc__ = None

    def __add__(self, other: Any) -> Expression:
        return Expression("add", (self, constant(other)))

    def __radd__(self, other: Any) -> Expression:
        return Expression("add", (constant(other), self))

    def __sub__(self, other: Any) -> Expression:
        return Expression("subtract", (self, constant(other)))

    def __rsub__(self, other: Any) -> Expression:
        return Expression("subtract", (constant(other), self))

    def __mul__(self, other: Any) -> Expression:
        return Expression("multiply", (self, constant(other)))

    def __rmul__(self, other: Any) -> Expression:
        return Expression("multiply", (constant(other), self))

    def __truediv__(self, other: Any) -> Expression:
        return Expression("divide", (self, constant(other)))

    def __rtruediv__(self, other: Any) -> Expression:
        return Expression("divide", (constant(other), self))

    def __neg__(self) -> Expression:
        return Expression("multiply", (constant(-1.0), self))

    def __pow__(self, exponent: float) -> Expression:
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)):
            raise OptionError(f"a power with exponent {exponent!r}", allowed="a number", remedy="use exp(p * log(a))")
        return Expression("power", (self,), setting=float(exponent))

    def __getitem__(self, index: int) -> Expression:
        """Entry `index` of a vector, counted from 0."""
        return Expression("item", (self,), setting=_checked_index(index))

    def __iter__(self) -> Any:
        raise TypeError("an expression has no length: take its entries by number")


def _checked_index(index: object) -> int:
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise OptionError(f"index {index!r} of an expression", allowed="0, 1, 2, ...", remedy="count from the front")
    return int(index)


def constant(value: Any) -> Expression:
    """A fixed number or array as an expression; an expression is left as it is.

    Raises:
        InputError: not an array of finite numbers.
    """
    if isinstance(value, Expression):
        return value
    try:
        array = np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not np.isfinite(array).all():
        raise InputError(
            f"a {type(value).__name__} in a formula that is not made of finite numbers",
            allowed="expressions, numbers, arrays of numbers",
            remedy="convert or clean it",
        )
    return Expression("constant", value=array)


def sin(a: Expression) -> Expression:
    """Sine."""
    return Expression("sin", (a,))


def cos(a: Expression) -> Expression:
    """Cosine."""
    return Expression("cos", (a,))


def exp(a: Expression) -> Expression:
    """Exponential."""
    return Expression("exp", (a,))


def log(a: Expression) -> Expression:
    """Natural logarithm."""
    return Expression("log", (a,))


def sigmoid(a: Expression) -> Expression:
    """1 / (1 + exp(-a))."""
    return Expression("sigmoid", (a,))


def softplus(a: Expression) -> Expression:
    """log(1 + exp(a)), which does not overflow."""
    return Expression("softplus", (a,))


def total(a: Expression) -> Expression:
    """The sum of all entries."""
    return Expression("sum", (a,))


def column(a: Expression, index: int) -> Expression:
    """Entry `index` along the last axis, (..., k) -> (...)."""
    return Expression("column", (a,), setting=_checked_index(index))


def logsumexp(a: Expression) -> Expression:
    """log sum exp along the last axis, (..., k) -> (...); the largest entry is taken out, so it does not overflow."""
    return Expression("logsumexp", (a,))


def program(formula: Callable[[Expression], Expression]) -> Program:
    """The steps of `formula`, found by calling it once with a symbol for its argument. Shared parts appear once."""
    numbers: dict[int, int] = {}
    steps: list[Step] = []
    pending = [constant(formula(Expression("input")))]
    while pending:
        node = pending[-1]
        waiting = [a for a in node.arguments if id(a) not in numbers]
        if waiting:
            pending.extend(waiting)
            continue
        pending.pop()
        if id(node) not in numbers:
            numbers[id(node)] = len(steps)
            arguments = tuple(numbers[id(a)] for a in node.arguments)
            steps.append(Step(node.operation, arguments, node.value, node.setting))
    return tuple(steps)
