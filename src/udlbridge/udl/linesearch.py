"""The minimum of a function of one number on an interval, by bracketing with four points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from udlbridge.displays import Displayed, Lines
from udlbridge.errors import NumericalError, OptionError
from udlbridge.options import brief, checked_count, checked_positive
from udlbridge.texts import counted

Rule = Literal["lowest", "source"]


class Limits(NamedTuple):
    """When a search ends: the distance of b and c, and the number of iterations."""

    threshold: float
    iterations: int


RULES: dict[str, Limits] = {"lowest": Limits(1e-4, 10), "source": Limits(1e-5, 15)}
"""Names of the rules of `line_search`, and the limits that each has by default."""


@dataclass(frozen=True, repr=False)
class LineSearch(Displayed):
    """Where a line search ended, the function there, and the four points (a, b, c, d) of each iteration, (k, 4)."""

    minimum: float
    value: float
    brackets: Float[np.ndarray, "k 4"]

    def __str__(self) -> str:
        return f"minimum at {self.minimum:.10g}, {self.value:.10g}, after {counted(len(self.brackets), 'iteration')}"

    def as_rows(self) -> Lines:
        """The four points of each iteration."""
        return Lines(len(self.brackets), lambda k: {"": k, **dict(zip("abcd", self.brackets[k], strict=True))})


def line_search(
    f: Callable[[float], float],
    *,
    maximum: float = 1.0,
    threshold: float | None = None,
    iterations: int | None = None,
    rule: Rule = "lowest",
) -> LineSearch:
    """The minimum of `f` on [0, maximum] by bracketing with four points a < b < c < d.

    Three steps: (1) if no point is lower than a, b, c and d move towards it by half; (2) if b is lower than c, d moves
    to c; (3) otherwise a moves to b. After (2) and (3), b and c go to one and two thirds of [a, d].

    With the rule "lowest", the answer is the lowest of all points that were looked at, the midpoint of the last b
    and c among them, so that the search never ends above f(0); step (1) halves the distances from a; and the search
    ends when b and c are closer than `threshold` times d. With the rule "source", everything is as the source writes
    it: the answer is the midpoint of the last b and c, whether or not it is lower than f(0); step (1) halves b, c
    and d themselves, wherever a is; and `threshold` is a distance.

    Args:
        f: function of one number. Where it is NaN or +inf, as after an overflow, it counts as +inf.
        maximum: right end of the interval.
        threshold: distance of b and c at which to stop, for "lowest" relative to d: minima near 0 are found as exactly
            as others. None is 1e-4, for "source" 1e-5.
        iterations: largest number of them, all steps counted. None is 10, for "source" 15.
        rule: "lowest" or "source".

    Returns:
        The answer, f there, and all brackets. With the rule "lowest" it is 0 if nothing lower was found.

    Raises:
        OptionError: a `maximum` or `threshold` that is not positive and finite, no iterations, or another rule.
        NumericalError: f(0) is not finite, or f is -inf somewhere.

    Source: Prince, Understanding Deep Learning (2023), practicals "Training I" to "Training III".
    """
    limits = checked_limits(rule, threshold, iterations)
    maximum = checked_positive("maximum", maximum)
    known: dict[float, float] = {}

    def value(point: float) -> float:
        if point not in known:
            found = float(f(point))
            if found == -math.inf or (point == 0 and not math.isfinite(found)):
                raise NumericalError(
                    f"the function of the line search is {found} at {point}",
                    allowed="a finite value at 0, and none that is -inf",
                    remedy="start where the function is finite",
                )
            known[point] = found if math.isfinite(found) else math.inf
        return known[point]

    a, b, c, d = 0.0, 0.33 * maximum, 0.66 * maximum, maximum
    brackets: list[tuple[float, float, float, float]] = []
    lowest = rule == "lowest"
    while abs(c - b) > limits.threshold * (d if lowest else 1.0) and len(brackets) < limits.iterations:
        brackets.append((a, b, c, d))
        values = [value(point) for point in (a, b, c, d)]
        if values[0] <= min(values[1:]):
            fixed = a if lowest else 0.0
            b, c, d = fixed + (b - fixed) / 2, fixed + (c - fixed) / 2, fixed + (d - fixed) / 2
            continue
        if values[1] < values[2]:
            d = c
        else:
            a = b
        b, c = a + (d - a) / 3, a + 2 * (d - a) / 3
    value(0.0)
    answer = (b + c) / 2
    value(answer)
    if lowest:
        answer = min(known, key=known.__getitem__)
    return LineSearch(answer, known[answer], np.array(brackets).reshape(-1, 4))


def checked_limits(rule: object, threshold: object = None, iterations: object = None) -> Limits:
    """The limits of a search by `rule`, where None stands for the rule's own.

    Raises:
        OptionError: another rule, or limits that are not positive.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise OptionError(f"rule={brief(rule)}", allowed=", ".join(RULES), remedy="use one of them")
    limits = RULES[rule]
    return Limits(
        limits.threshold if threshold is None else checked_positive("threshold", threshold),
        limits.iterations if iterations is None else checked_count("iterations", iterations, 1),
    )
