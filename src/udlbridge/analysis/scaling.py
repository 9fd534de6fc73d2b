"""Powers of two that bring a kernel to a size whose squares can be summed. Dividing by one changes no digit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.errors import InputError

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
    # Bounded, since 2^1074, which would bring the smallest of all numbers to 1, is not a float64.
    return max(-1000, min(math.frexp(peak)[1], 1000))


def scale_exponents(peaks: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Those of several kernels."""
    return np.array([scale_exponent(float(peak)) for peak in peaks])


def peak_of(block: np.ndarray) -> float:
    """The largest magnitude where squares may leave the range of float64; 0 where the dtype does not let them."""
    return max(float(block.max()), -float(block.min())) if block.dtype.kind == "f" and block.itemsize > 4 else 0.0


class UnitProduct:
    """A symmetric matrix divided by 2^exponent, as products with vectors: they neither vanish nor overflow.

    The first product decides: `exponent` brings its largest entry to about 1. Entries near the ends of float64's range
    are multiplied by vectors that are smaller, or larger, than they are given.

    Args:
        matrix: anything with `@`.
    """

    SHIFT = 64
    """Vectors are made smaller or larger by 2^SHIFT: enough for sums of 2^64 of the largest entries that there are,
    and little enough for the vectors to stay in the range of float32."""

    FAR = 900
    """A first product of 2^-FAR or 2^FAR is taken again with vectors of another size."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self._shift = 0
        self.exponent: int | None = None
        self.shape: tuple[int, ...] = tuple(matrix.shape)

    def __matmul__(self, vectors: Float[np.ndarray, " n *k"]) -> Float[np.ndarray, " n *k"]:
        """The matrix divided by 2^exponent, times a vector (n,) or a block (n, k).

        Raises:
            InputError: a product is not finite.
        """
        image = self._product(vectors)
        if self.exponent is None:
            size = _exponent(image)
            if size is None or abs(size) > self.FAR:
                self._shift = self.SHIFT if size is None or size > 0 else -self.SHIFT
                image = self._product(vectors)
            self.exponent = (_exponent(image) or 0) + self._shift
        if not np.isfinite(image).all():
            raise InputError(
                "a product of the kernel with a vector is not finite",
                allowed="finite numbers in the kernel",
                remedy="look for NaN and infinity in it, or in the model's derivatives",
            )
        return np.ldexp(image, self._shift - self.exponent)

    def _product(self, vectors: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            smaller = np.ldexp(vectors, -self._shift) if self._shift else vectors
            return np.asarray(self._matrix @ smaller, dtype=np.float64)


def _exponent(values: np.ndarray) -> int | None:
    """The exponent of the largest of some numbers, 0 where they are zero; None where one is not finite."""
    largest = float(np.abs(values).max(initial=0.0))
    return math.frexp(largest)[1] if math.isfinite(largest) else None
