"""Minimising a function of a parameter vector: line search and gradient descent, with the whole path kept.

The functions come from `udlbridge.Function` or `ModelFunction`, so their gradients come from the chosen engine.

Examples:
    >>> bowl = ub.Function(lambda p: ub.expressions.total((p - 1) ** 2))
    >>> ub.optimize.descend(bowl, np.zeros(2), steps=50, step_size=0.1).minimum.round(3)
    array([1., 1.])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from udlbridge.displays import Displayed, Lines, Row
from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.options import checked_count, checked_positive
from udlbridge.texts import completion, counted, kind_of
from udlbridge.training.schedules import Schedule, checked_schedule
from udlbridge.udl.function import checked_argument
from udlbridge.udl.linesearch import LineSearch as LineSearch
from udlbridge.udl.linesearch import Rule, checked_limits
from udlbridge.udl.linesearch import line_search as line_search
from udlbridge.udl.parameters import LossFunction as LossFunction
from udlbridge.udl.parameters import ModelFunction as ModelFunction
from udlbridge.udl.parameters import ParameterVector as ParameterVector

__all__ = [
    "Descent",
    "LineSearch",
    "LossFunction",
    "ModelFunction",
    "ParameterVector",
    "descend",
    "descend_by_line_search",
    "descend_stochastically",
    "line_search",
]
__dir__ = completion(__all__)


@runtime_checkable
class Differentiable(Protocol):
    """Anything with a value and a gradient at a vector."""

    def value(self, x: np.ndarray, /) -> float:
        """f(x)."""

    def gradient(self, x: np.ndarray, /) -> np.ndarray:
        """df/dx."""


@dataclass(frozen=True, repr=False)
class Descent(Displayed):
    """The path of a descent: `points` (steps + 1, p) and the function's `values` (steps + 1,) there."""

    points: Float[np.ndarray, "k p"]
    values: Float[np.ndarray, " k"]

    @property
    def minimum(self) -> np.ndarray:
        """The last point, (p,)."""
        return self.points[-1]

    def __str__(self) -> str:
        steps = counted(len(self.values) - 1, "step")
        return f"{steps} in {self.points.shape[1]} dimensions: from {self.values[0]:.6g} to {self.values[-1]:.6g}"

    def as_rows(self) -> Lines:
        """The value and the point at the start and after each step."""

        def row(step: int) -> Row:
            point = {f"x {index}": number for index, number in enumerate(self.points[step])}
            return {"step": step, "value": self.values[step], **point}

        return Lines(len(self.values), row)


def descend(
    function: Differentiable, start: np.ndarray, *, steps: int, step_size: float, schedule: Any = None
) -> Descent:
    """Gradient descent with steps of a given size: x <- x - step_size * factor * gradient.

    Args:
        function: what to minimise.
        start: first point (p,), float32 or float64; the whole path has its dtype.
        steps: number of them.
        step_size: the learning rate.
        schedule: as for `udlbridge.train`, counting steps where that counts epochs: ("step", {"every": 10, "factor":
            0.5}) halves the step size every ten steps. None leaves it as it is.

    Raises:
        OptionError: no steps, a `step_size` that is not positive, an unknown schedule, or a `function` without
            value and gradient.
        NumericalError: the path left the finite numbers.
    """
    steps, step_size, factors = _checked_steps(steps, step_size, schedule)
    _checked_function(function)

    def move(x: np.ndarray, step: int) -> np.ndarray:
        return _stepped(x, step_size * factors.factor(step), function.gradient(x))

    return _walk(start, steps, function.value, move)


def descend_by_line_search(
    function: Differentiable,
    start: np.ndarray,
    *,
    steps: int,
    maximum: float = 1.0,
    iterations: int | None = None,
    threshold: float | None = None,
    rule: Rule = "lowest",
    schedule: Any = None,
) -> Descent:
    """Gradient descent that finds the length of each step by `line_search` along the negative gradient.

    With the rule "lowest" the values never rise: a step is taken only to a point that is lower. A step where the
    function cannot be computed (an overflow far away) is too long. Where even the shortest step promises less than
    rounding, the descent has arrived, and stays. With the rule "source" every step is as long as the source's search
    says, uphill too.

    Args:
        function, start, steps: as for `descend`.
        maximum: largest step size that is tried.
        iterations: of each line search at most; halvings of the interval count. None is 100, which reaches steps of
            1e-16; for "source" 15.
        threshold, rule: as for `line_search`.
        schedule: as for `descend`; it multiplies `maximum`.

    Raises:
        As `descend` and `line_search`; NumericalError if no step that was tried leads downhill.
    """
    steps, maximum, factors = _checked_steps(steps, maximum, schedule)
    limits = checked_limits(rule, threshold, 100 if iterations is None and rule == "lowest" else iterations)
    _checked_function(function)

    def move(x: np.ndarray, step: int) -> np.ndarray:
        slope = function.gradient(x)
        here = function.value(x)
        longest = maximum * factors.factor(step)
        tried: dict[float, float] = {}

        def along(distance: float) -> float:
            if distance == 0:
                return here
            tried[distance] = _value_or_infinity(function, _stepped(x, distance, slope))
            return tried[distance]

        found = line_search(along, maximum=longest, rule=rule, **limits._asdict())
        if rule == "source" or found.value < here:
            return _stepped(x, found.minimum, slope)
        length, size = (float(np.linalg.norm(v.astype(np.float64))) for v in (slope, x))
        # Values round, and so do points: a point that is off by its last digit is off by |gradient| |x| eps in value.
        visible = 100 * float(np.finfo(x.dtype).eps) * (abs(here) + length * size)
        if not _arrived(here, length**2, tried, visible):
            raise NumericalError(
                f"step {step}: no step size from {min(tried):g} to {longest:g} along the negative gradient leads below "
                f"{here:g}",
                allowed="a function that falls along its negative gradient",
                remedy="take a smaller maximum or more iterations, or check the gradient",
            )
        return x

    return _walk(start, steps, function.value, move)


def _arrived(here: float, squared: float, tried: dict[float, float], visible: float) -> bool:
    """Whether a point that no step leads below is a minimum, as far as rounding lets one see.

    Args:
        here: the function there.
        squared: |gradient|^2; a short step t promises to fall by t |gradient|^2.
        tried: the function by step size.
        visible: the smallest difference of values that is more than rounding.
    """
    if min(tried) * squared > visible:
        return False  # a shorter step might do
    rises = ((step, value - here) for step, value in sorted(tried.items()) if value - here > visible)
    step, rise = next(rises, (0.0, math.inf))
    # Past a minimum a rise that is seen first is due to curvature, and larger than what the gradient promises. A rise
    # of that very size means that the gradient points the wrong way.
    return step * squared < rise / 2


def _stepped(x: np.ndarray, distance: float, slope: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (x - distance * slope).astype(x.dtype)


def _value_or_infinity(function: Differentiable, point: np.ndarray) -> float:
    """The value, or +inf where it cannot be computed."""
    if not np.isfinite(point).all():
        return math.inf
    with np.errstate(all="ignore"):
        try:
            return function.value(point)
        except NumericalError:
            return math.inf


def descend_stochastically(
    function_of: Callable[[np.ndarray], Differentiable],
    start: np.ndarray,
    *,
    n: int,
    batch_size: int,
    steps: int,
    step_size: float,
    seed: int | np.random.Generator | np.random.RandomState = 0,
    schedule: Any = None,
) -> Descent:
    """Gradient descent on a new random batch at every step, drawn by NumPy so that all engines see the same ones.

    Args:
        function_of: the function restricted to the data of the given indices.
        start, steps, step_size, schedule: as for `descend`.
        n: number of data.
        batch_size: number of data in a batch: the first ones of a new permutation of all, without replacement.
        seed: for `numpy.random.default_rng`; or a generator of NumPy, whose permutations are taken:
            `np.random.RandomState(1)` draws what a program draws after `np.random.seed(1)`.

    Returns:
        The path, with the values of the function of all data.

    Raises:
        As `descend`; OptionError if the batch is empty or larger than the data.
    """
    steps, step_size, factors = _checked_steps(steps, step_size, schedule)
    n = checked_count("n", n, 1)
    batch_size = checked_count("batch_size", batch_size, 1, n)
    if isinstance(seed, (np.random.Generator, np.random.RandomState)):
        generator = seed
    else:
        generator = np.random.default_rng(checked_count("seed", seed, 0))
    batches = [generator.permutation(n)[:batch_size] for _ in range(steps)]

    def move(x: np.ndarray, step: int) -> np.ndarray:
        return _stepped(x, step_size * factors.factor(step), function_of(batches[step]).gradient(x))

    return _walk(start, steps, _checked_function(function_of(np.arange(n))).value, move)


def _checked_steps(steps: int, size: float, schedule: object) -> tuple[int, float, Schedule]:
    """All three; a size that is a number of NumPy's would widen float32 points."""
    return checked_count("steps", steps, 1), checked_positive("the size of a step", size), checked_schedule(schedule)


def _checked_function(function: Differentiable) -> Differentiable:
    if callable(getattr(function, "value", None)) and callable(getattr(function, "gradient", None)):
        return function
    raise OptionError(
        f"{kind_of(function)} without value(x) and gradient(x)",
        allowed="a udlbridge.Function, ModelFunction or LossFunction",
        remedy="ub.Function(lambda p: ...), with the functions of ub.expressions",
    )


def _walk(
    start: np.ndarray, steps: int, value: Callable[[np.ndarray], float], move: Callable[[np.ndarray, int], np.ndarray]
) -> Descent:
    first = checked_argument(start)
    if first.ndim != 1:
        raise ShapeError(f"a start of shape {first.shape}", allowed="a vector (p,)", remedy="start.ravel()")
    points = [first]
    for step in range(steps):
        point = move(points[-1], step).astype(first.dtype)
        if not np.isfinite(point).all():
            raise NumericalError(
                f"step {step} leads to {point}", allowed="finite points", remedy="take smaller steps or another start"
            )
        points.append(point)
    return Descent(np.stack(points), np.array([value(point) for point in points]))
