"""Formulas in NumPy, and their derivatives by a backward pass that is written out operation by operation.

Source: Prince, Understanding Deep Learning (2023), section 7.3: forward pass, then the chain rule in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from udlbridge.backends.programs import Program, Step


def _last_axis_logsumexp(a: np.ndarray) -> np.ndarray:
    largest = a.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(a - largest).sum(axis=-1)))


def _run_step(step: Step, x: np.ndarray, args: list[np.ndarray]) -> Any:
    """An array, or the NumPy scalar that NumPy makes of an array without axes."""
    match step.operation:
        case "input":
            return x
        case "constant":
            return np.asarray(step.value, dtype=x.dtype)
        case "add":
            return args[0] + args[1]
        case "subtract":
            return args[0] - args[1]
        case "multiply":
            return args[0] * args[1]
        case "divide":
            return args[0] / args[1]
        case "power":
            return args[0] ** x.dtype.type(step.setting)
        case "item":
            return args[0][int(step.setting)]
        case "column":
            return args[0][..., int(step.setting)]
        case "sum":
            return args[0].sum()
        case "logsumexp":
            return _last_axis_logsumexp(args[0])
        case "sigmoid":
            return expit(args[0])
        case "softplus":
            return np.logaddexp(args[0], np.zeros_like(args[0]))
    return {"sin": np.sin, "cos": np.cos, "exp": np.exp, "log": np.log}[step.operation](args[0])


def _spread_into_item(step: Step, a: np.ndarray, dy: Any) -> np.ndarray:
    da = np.zeros_like(a)
    da[int(step.setting)] = dy
    return da


def _spread_into_column(step: Step, a: np.ndarray, dy: Any) -> np.ndarray:
    da = np.zeros_like(a)
    da[..., int(step.setting)] = dy
    return da


def _power_slope(step: Step, a: np.ndarray) -> Any:
    """p a ** (p - 1); a ** 0 is 1 everywhere, at 0 too, where the formula would say 0 / 0."""
    return np.zeros_like(a) if step.setting == 0 else step.setting * a ** (step.setting - 1)


Pull = Callable[[Step, list[np.ndarray], np.ndarray, np.ndarray], tuple[Any, ...]]

PULLS: dict[str, Pull] = {
    "add": lambda step, a, y, dy: (dy, dy),
    "subtract": lambda step, a, y, dy: (dy, -dy),
    "multiply": lambda step, a, y, dy: (dy * a[1], dy * a[0]),
    "divide": lambda step, a, y, dy: (dy / a[1], -dy * y / a[1]),
    "power": lambda step, a, y, dy: (dy * _power_slope(step, a[0]),),
    "item": lambda step, a, y, dy: (_spread_into_item(step, a[0], dy),),
    "column": lambda step, a, y, dy: (_spread_into_column(step, a[0], dy),),
    "sin": lambda step, a, y, dy: (dy * np.cos(a[0]),),
    "cos": lambda step, a, y, dy: (-dy * np.sin(a[0]),),
    "exp": lambda step, a, y, dy: (dy * y,),
    "log": lambda step, a, y, dy: (dy / a[0],),
    "sigmoid": lambda step, a, y, dy: (dy * y * expit(-a[0]),),
    "softplus": lambda step, a, y, dy: (dy * expit(a[0]),),
    "sum": lambda step, a, y, dy: (np.broadcast_to(dy, a[0].shape),),
    "logsumexp": lambda step, a, y, dy: (dy[..., None] * np.exp(a[0] - y[..., None]),),
}
"""From d/dy to d/d(argument), by operation: (step, arguments, y, dy)."""


def run(program: Program, x: np.ndarray) -> list[np.ndarray]:
    """The value of every step. Overflow gives inf, which the caller reports, and no warning."""
    values: list[np.ndarray] = []
    with np.errstate(all="ignore"):
        for step in program:
            values.append(np.asarray(_run_step(step, x, [values[i] for i in step.arguments])))
    return values


def differentiate(program: Program, x: np.ndarray) -> np.ndarray:
    """d(last step)/dx, for a program that ends in a scalar. Overflow gives inf, as in `run`."""
    with np.errstate(all="ignore"):
        return _pulled_back(program, x, run(program, x))


def _pulled_back(program: Program, x: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """The derivative of the last of the `values`, from the last step to the first."""
    slopes: list[Any] = [np.zeros_like(value) for value in values]
    slopes[-1] = np.ones_like(values[-1])
    dx = np.zeros_like(x)
    for number in reversed(range(len(program))):
        step = program[number]
        if step.operation == "input":
            dx += slopes[number]
        if not step.arguments:
            continue
        pulled = PULLS[step.operation](step, [values[i] for i in step.arguments], values[number], slopes[number])
        for argument, slope in zip(step.arguments, pulled, strict=True):
            slopes[argument] = slopes[argument] + _summed_to(np.asarray(slope), values[argument].shape)
    return dx


def _summed_to(slope: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo broadcasting: an entry that was used several times collects the slopes of all its uses."""
    slope = np.asarray(slope.sum(axis=tuple(range(slope.ndim - len(shape)))))
    widened = tuple(axis for axis, size in enumerate(shape) if size == 1 and slope.shape[axis] != 1)
    return np.asarray(slope.sum(axis=widened, keepdims=True))
