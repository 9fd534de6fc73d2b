"""A number that is known with an error, from estimates that each leave out one of the random probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.displays import Displayed
from udlbridge.reports import json_ready
from udlbridge.texts import counted

LEVEL = 0.95
"""The share of seeds in which an error bar holds, at least."""

CONFIDENCE = 0.99
"""What bars are made for: few probes, and quantities that are not normal, may take four of 100 seeds from it."""


@dataclass(frozen=True, repr=False)
class Estimate(Displayed):
    """A number, and how far it may be off: |`value` - truth| <= `error` for at least 95 of 100 seeds.

    `error` is 0 where the number was computed from all entries, and not estimated. `products` counts the products of
    the kernel with a vector; `seed` draws the probes again, and is None where there were none. `float` of it is
    `value`.

    Examples:
        >>> found = ub.trace(np.diag([1.0, 2.0, 3.0]))
        >>> found.value, found.low, found.high
        (6.0, 6.0, 6.0)
    """

    value: float
    error: float = 0.0
    products: int = 0
    seed: int | None = None

    @property
    def low(self) -> float:
        """The lower end of the error bar."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """The upper end of the error bar."""
        return self.value + self.error

    def __float__(self) -> float:
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        ends = {"low": self.low, "high": self.high}
        return [{"value": self.value, "error": self.error, **ends, "products": self.products, "seed": self.seed}]

    def __str__(self) -> str:
        if self.seed is None:
            return f"{self.value:.6g} (exact)"
        return f"{self.value:.6g} +- {self.error:.2g} ({LEVEL:.0%} of seeds, {counted(self.products, 'product')})"


def error_bar(others: Float[np.ndarray, " m *d"]) -> Any:
    """Half the width of an interval around an estimate, from the estimates without one of its m probes each.

    The jackknife, whose variance is not too small on average, with Student's t for so few. Source: Efron, Stein, The
    jackknife estimate of variance (1981).
    """
    from scipy.special import stdtrit

    m = len(others)
    spread = np.sqrt((m - 1) / m * ((others - others.mean(axis=0)) ** 2).sum(axis=0))
    return stdtrit(m - 1, (1 + CONFIDENCE) / 2) * spread
