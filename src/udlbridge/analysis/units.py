"""Blocks of kernels in the units in which their sums were taken, and centred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.sums import Statistics


@dataclass(frozen=True)
class Unit:
    """What was taken off one kernel before it was summed: entries are divided by 2^exponent, and lose a constant.

    `means` (n,) are the means of rows of what is left, of a symmetric kernel.
    """

    exponent: int
    shift: float
    means: Float[np.ndarray, " n"]

    def block(self, raw: np.ndarray, out: np.ndarray | None = None) -> Float[np.ndarray, "r c"]:
        """A block as it was summed, in float64, in memory of its own or in `out`."""
        wide = np.empty(raw.shape) if out is None else out
        np.copyto(wide, raw)
        if self.exponent:
            np.ldexp(wide, -self.exponent, out=wide)
        if self.shift:
            wide -= self.shift
        return wide

    def centred(self, raw: np.ndarray, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """A block of the centred kernel, (I - 11'/n) K (I - 11'/n)."""
        # What is subtracted from each row holds the mean of all, so that it is added once.
        own = self.means[rows] - float(self.means.mean())
        return self.block(raw) - own[:, None] - self.means[columns]

    def centred_diagonal(self, diagonal: np.ndarray) -> Float[np.ndarray, " n"]:
        """The diagonal of the centred kernel from that of what was summed."""
        return diagonal - 2 * self.means + float(self.means.mean())


def units_of(sums: Statistics) -> list[Unit]:
    """Those of all kernels, which are symmetric."""
    n = sums.rows.shape[1]
    return [
        Unit(int(exponent), float(shift), rows / n)
        for exponent, shift, rows in zip(sums.exponents, sums.shifts, sums.rows, strict=True)
    ]
