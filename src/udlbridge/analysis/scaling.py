"""Powers of two that bring a kernel to a size whose squares can be summed."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

SAFE = 400
"""Entries within 2^-SAFE and 2^SAFE are summed as they are: neither their squares nor the squares' last digits leave
the range of float64."""


def scale_exponent(peak: float) -> int:
    """The exponent of the power of two that a kernel with the largest entry `peak` is divided by before it is summed.

    It is 0 for all but very large and very small entries, and for those that are zero or not finite. Dividing by a
    power of two changes no digit.
    """
    if 2.0**-SAFE <= peak <= 2.0**SAFE or peak == 0 or not math.isfinite(peak):
        return 0
    # A bound, since 2^1074, which would bring the smallest of all numbers to 1, is none.
    return max(-1000, min(math.frexp(peak)[1], 1000))


def scale_exponents(peaks: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Those of several kernels."""
    return np.array([scale_exponent(float(peak)) for peak in peaks])


def peak_of(block: np.ndarray) -> float:
    """The largest magnitude where squares may leave the range of float64; 0 where the dtype does not let them."""
    return max(float(block.max()), -float(block.min())) if block.dtype.kind == "f" and block.itemsize > 4 else 0.0
