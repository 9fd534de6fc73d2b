"""`Function`: a formula with a value and a gradient, from the engine of one's choice."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from udlbridge import backends
from udlbridge.arrays import as_array
from udlbridge.errors import DTypeError, InputError, NumericalError, OptionError, ShapeError
from udlbridge.texts import kind_of
from udlbridge.udl.expressions import Expression, program, result_shape
from udlbridge.words import EngineWord


class Function:
    """A scalar function of one array, described by a formula that every engine evaluates by itself.

    Args:
        formula: takes the symbol of the argument and returns an expression made with arithmetic and the functions of
            `udlbridge.udl.expressions`. It is called once. Numbers and arrays in it are constants.
        backend: the engine for values and gradients; None is the default one.

    Raises:
        InputError, DTypeError: the formula contains something that is not a finite number.
        OptionError: it is no function; or it takes a power, or an entry, that there is not.

    Example: `Function(lambda phi: total((phi[0] + phi[1] * x - y) ** 2))`.

    Examples:
        >>> square = ub.Function(lambda p: ub.expressions.total(p**2))
        >>> square.value(np.array([1.0, 2.0])), square.gradient(np.array([1.0, 2.0]))
        (5.0, array([2., 4.]))
    """

    def __init__(self, formula: Callable[[Expression], Expression], *, backend: EngineWord | None = None) -> None:
        if not callable(formula):
            raise OptionError(
                f"{kind_of(formula)} in the place of a formula",
                allowed="a function of one argument",
                remedy="as ub.Function(lambda p: ub.expressions.total(p**2))",
            )
        self.program = program(formula)
        self.backend = backend

    def value(self, x: np.ndarray) -> float:
        """f(x), computed in the dtype of `x`.

        Raises:
            DTypeError, InputError: `x` is not an array of finite float32 or float64 numbers.
            ShapeError: the result is not a scalar, or the formula does not fit an argument of this shape.
            NumericalError: the result is not finite.
        """
        argument = checked_argument(x)
        shape = result_shape(self.program, argument.shape)
        if math.prod(shape) != 1:
            raise ShapeError(
                f"the formula gives an array of shape {shape}", allowed="a scalar", remedy="sum it with total()"
            )
        number = float(backends.get(self.backend).program_value(self.program, argument).reshape(()))
        if not np.isfinite(number):
            raise NumericalError(
                f"the formula gives {number} here", allowed="finite values", remedy="move the argument"
            )
        return number

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """df/dx, of the shape and dtype of `x`.

        Raises:
            NumericalError: f(x) or its gradient is not finite, as that of a square root at 0.
            DTypeError, InputError, ShapeError: as `value`.
        """
        argument = checked_argument(x)
        self.value(argument)
        found = backends.get(self.backend).program_gradient(self.program, argument)
        if not np.isfinite(found).all():
            raise NumericalError(
                "the gradient of the formula is not finite here",
                allowed="finite derivatives",
                remedy="move the argument",
            )
        return found


def checked_argument(x: object) -> np.ndarray:
    """`x` as a C-contiguous float array.

    Raises:
        DTypeError: neither float32 nor float64.
        InputError: empty, NaN or infinite.
    """
    array = as_array(x, "the argument", wanted=np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise DTypeError(
            f"the argument has dtype {array.dtype}", allowed="float32, float64", remedy="np.asarray(x, dtype=float)"
        )
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError("the argument is empty, NaN or infinite", allowed="finite numbers", remedy="check the start")
    return np.ascontiguousarray(array).reshape(array.shape)
