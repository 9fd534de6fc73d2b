"""The minimum of a function of one number on an interval, by bracketing with four points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from udlbridge.errors import NumericalError
from udlbridge.options import checked_count, checked_positive


@dataclass(frozen=True)
class LineSearch:
    """Where a line search ended, the function there, and the four points (a, b, c, d) of each iteration, (k, 4)."""

    minimum: float
    value: float
    brackets: Float[np.ndarray, "k 4"]


def line_search(
    f: Callable[[float], float], *, maximum: float = 1.0, threshold: float = 1e-4, iterations: int = 10
) -> LineSearch:
    """The minimum of `f` on [0, maximum] by bracketing with four points a < b < c < d.

    Three rules: (1) if no point is lower than a, halve the distances of b, c and d from it; (2) if b is lower than c, d
    moves to c; (3) otherwise a moves to b. After (2) and (3), b and c go to one and two thirds of [a, d]. Ends when b
    and c are closer than `threshold` times d.

    The source's answer, the middle between the last b and c, is one more point to look at: of all points that were, the
    lowest is returned, so the search never ends above f(0).

    Args:
        f: function of one number. Where it is NaN or +inf, as after an overflow, it counts as +inf.
        maximum: right end of the interval.
        threshold: distance of b and c at which to stop, relative to d: minima near 0 are found as exactly as others.
        iterations: largest number of them, all rules counted.

    Returns:
        The lowest point, f there, and all brackets. The lowest point is 0 if nothing lower was found.

    Raises:
        OptionError: a `maximum` or `threshold` that is not positive and finite, or no iterations.
        NumericalError: f(0) is not finite, or f is -inf somewhere.

    Source: Prince, Understanding Deep Learning (2023), practical "Training I".
    """
    maximum, threshold = checked_positive("maximum", maximum), checked_positive("threshold", threshold)
    iterations = checked_count("iterations", iterations, 1)
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
    while c - b > threshold * d and len(brackets) < iterations:
        brackets.append((a, b, c, d))
        values = [value(point) for point in (a, b, c, d)]
        if values[0] <= min(values[1:]):
            b, c, d = a + (b - a) / 2, a + (c - a) / 2, a + (d - a) / 2
            continue
        if values[1] < values[2]:
            d = c
        else:
            a = b
        b, c = a + (d - a) / 3, a + 2 * (d - a) / 3
    value(0.0)
    value((b + c) / 2)
    lowest = min(known, key=known.__getitem__)
    return LineSearch(lowest, known[lowest], np.array(brackets).reshape(-1, 4))
