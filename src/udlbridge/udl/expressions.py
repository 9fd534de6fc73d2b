"""Formulas as plain data: a function of one array, written once, evaluated and differentiated by every engine.

An `Expression` computes nothing. Arithmetic on expressions, and the functions below, build a graph; `program` lays it
out as a list of steps that each backend runs in its own way, with its own automatic (or hand-written) derivatives.

Examples:
    >>> formula = lambda p: ub.expressions.total(ub.expressions.sin(p))
    >>> ub.Function(formula).gradient(np.zeros(2))
    array([1., 1.])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge import options
from udlbridge.arrays import as_array
from udlbridge.backends.programs import Program, Step
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.texts import completion, kind_of

__all__ = ["Expression", "column", "constant", "cos", "exp", "log", "logsumexp", "sigmoid", "sin", "softplus", "total"]
__dir__ = completion(__all__)


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
        number = options.real(exponent)
        if number is None or not math.isfinite(number):
            raise OptionError(
                f"a power with exponent {options.brief(exponent)}", allowed="a number", remedy="use exp(p * log(a))"
            )
        return Expression("power", (self,), setting=float(number))

    def __getitem__(self, index: int) -> Expression:
        """Entry `index` along the first axis, (k, ...) -> (...), counted from 0, as of a NumPy array.

        Raises:
            OptionError: not a whole number from 0 on.
        """
        return Expression("item", (self,), setting=_checked_index(index))

    def __iter__(self) -> Any:
        raise TypeError("an expression has no length: take its entries by number")


Operand = Expression | np.ndarray | float
"""What the functions below take: an expression, or numbers, which are constants of the formula."""


def _checked_index(index: object) -> int:
    number = options.whole(index)
    if number is None or number < 0:
        raise OptionError(
            f"index {options.brief(index)} of an expression",
            allowed="a whole number from 0 on",
            remedy="count from the front",
        )
    return number


def constant(value: Any) -> Expression:
    """A fixed number or array as an expression; an expression is left as it is.

    Raises:
        InputError, DTypeError: not an array of finite numbers.
    """
    if isinstance(value, Expression):
        return value
    given = as_array(value, "an array in a formula", wanted=np.float64)
    array = np.array(given, dtype=np.float64, order="C") if given.dtype.kind in "biuf" else np.array(np.nan)
    if not np.isfinite(array).all():
        raise InputError(
            f"{kind_of(value)} in a formula that is not made of finite numbers",
            allowed="expressions, numbers, arrays of numbers",
            remedy="convert or clean it",
        )
    return Expression("constant", value=array)


def sin(a: Operand) -> Expression:
    """Sine. Raises as `constant`."""
    return Expression("sin", (constant(a),))


def cos(a: Operand) -> Expression:
    """Cosine. Raises as `constant`."""
    return Expression("cos", (constant(a),))


def exp(a: Operand) -> Expression:
    """Exponential. Raises as `constant`."""
    return Expression("exp", (constant(a),))


def log(a: Operand) -> Expression:
    """Natural logarithm. Raises as `constant`."""
    return Expression("log", (constant(a),))


def sigmoid(a: Operand) -> Expression:
    """1 / (1 + exp(-a)). Raises as `constant`."""
    return Expression("sigmoid", (constant(a),))


def softplus(a: Operand) -> Expression:
    """log(1 + exp(a)), which does not overflow. Raises as `constant`."""
    return Expression("softplus", (constant(a),))


def total(a: Operand) -> Expression:
    """The sum of all entries. Raises as `constant`."""
    return Expression("sum", (constant(a),))


def column(a: Operand, index: int) -> Expression:
    """Entry `index` along the last axis, (..., k) -> (...), counted from 0.

    Raises:
        OptionError: `index` is not a whole number from 0 on.
    """
    return Expression("column", (constant(a),), setting=_checked_index(index))


def logsumexp(a: Operand) -> Expression:
    """log sum exp along the last axis, (..., k) -> (...); the largest entry is taken out, so it does not overflow.

    Raises:
        InputError, DTypeError: as `constant`.
    """
    return Expression("logsumexp", (constant(a),))


def program(formula: Callable[[Expression], Expression]) -> Program:
    """The steps of `formula`, found by calling it once with a symbol for its argument. Shared parts appear once.

    Raises:
        InputError, DTypeError: it returns, or contains, something that is neither an expression nor finite numbers.
    """
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


Shape = tuple[int, ...]


def result_shape(steps: Program, argument: Shape) -> Shape:
    """The shape of the last step's result for an argument of this shape, found before any engine computes.

    Raises:
        ShapeError: an entry that is not there, or shapes that do not broadcast.
    """
    shapes: list[Shape] = []
    for step in steps:
        shapes.append(_step_shape(step, [shapes[i] for i in step.arguments], argument))
    return shapes[-1]


def _step_shape(step: Step, shapes: list[Shape], argument: Shape) -> Shape:
    match step.operation:
        case "input":
            return argument
        case "constant":
            return np.asarray(step.value).shape
        case "sum":
            return ()
        case "item":
            return _without(shapes[0], 0, int(step.setting))
        case "column":
            return _without(shapes[0], -1, int(step.setting))
        case "logsumexp":
            return _without(shapes[0], -1, 0)
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"the formula takes {step.operation} of arrays of shapes {shapes[0]} and {shapes[1]}",
            allowed="shapes that NumPy broadcasts",
            remedy="check the shapes of its constants and of its argument",
        ) from None


def _without(shape: Shape, axis: int, index: int) -> Shape:
    """`shape` without its first (0) or last (-1) axis, which has an entry `index`."""
    where = "last" if axis else "first"
    if not shape or index >= shape[axis]:
        raise ShapeError(
            f"the formula takes entry {index} along the {where} axis of an array of shape {shape}",
            allowed=f"0 to {shape[axis] - 1}" if shape else "an array with axes",
            remedy="count from 0",
        )
    return shape[:-1] if axis else shape[1:]
