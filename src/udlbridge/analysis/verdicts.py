"""Whether a kernel is positive semidefinite: the verdict on its eigenvalues, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from udlbridge.displays import Displayed, draw
from udlbridge.errors import NumericalError
from udlbridge.reports import frozen_array, json_ready, same_fields
from udlbridge.texts import counted

PSD = "PSD"
ROUNDING = "rounding"
NOT_PSD = "not PSD"
UNDECIDED = "undecided"


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Displayed):
    """Eigenvalues of an (n, n) kernel and the verdict on its positivity, with the evidence.

    `eigenvalues` ascend, a read-only array of float64. `tolerance` is 10 sqrt(n) eps lambda_max with the `eps` of the
    kernel's dtype, or of a store's narrower storage; `units` is lambda_min / (eps lambda_max). `rank_bound` is the
    largest possible rank, min(n, P), where P is known.

    Where `complete` is False, the eigenvalues are the largest ones and, in front of them, the first `n_smallest` from
    the lower end, from `products` products with vectors. Then each `residuals[i]` is |K u - lambda u| of a unit vector
    u, measured: there is an eigenvalue no further than that from `eigenvalues[i]`. The smallest one is an upper bound
    of lambda_min, and `lower_bound` lies below lambda_min, except with a probability of 1e-6 over the start vector.
    `seed` draws that start vector again.

    Two spectra are equal if all of this is.

    Examples:
        >>> found = ub.spectrum(np.diag([1.0, 2.0]))
        >>> found.eigenvalues, found.negative, found.verdict
        (array([1., 2.]), 0, 'PSD')
    """

    eigenvalues: np.ndarray
    n: int
    dtype: str
    tolerance: float
    units: float
    verdict: str
    eps: float
    rank_bound: int | None = None
    complete: bool = True
    n_smallest: int = 0
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    lower_bound: float | None = None
    products: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "eigenvalues", frozen_array(self.eigenvalues))
        object.__setattr__(self, "residuals", frozen_array(self.residuals))

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.n, self.dtype, self.verdict, self.eigenvalues.tobytes()))

    @property
    def negative(self) -> int:
        """How many of the eigenvalues are below zero: the notebook's question."""
        return int(np.count_nonzero(self.eigenvalues < 0))

    @property
    def largest(self) -> np.ndarray:
        """The eigenvalues of the upper end, ascending; all of them in a complete spectrum."""
        return self.eigenvalues[self.n_smallest :]

    @property
    def smallest(self) -> np.ndarray:
        """The eigenvalues of the lower end, ascending; all of them in a complete spectrum."""
        return self.eigenvalues if self.complete else self.eigenvalues[: self.n_smallest]

    @property
    def ranks(self) -> np.ndarray:
        """Of the eigenvalues in descending order, from 1 for the largest: those of the lower end are the last of n."""
        found = np.arange(1, len(self.eigenvalues) + 1)
        return found + (self.n - len(found)) * (found > len(self.largest))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return {**json_ready(self), "negative": self.negative}

    def __str__(self) -> str:
        smallest, largest = self.eigenvalues[0], self.eigenvalues[-1]
        shown = [f"{value:.6g}" for value in self.eigenvalues]
        if len(shown) > 8:
            shown = [*shown[:4], "...", *shown[-4:]]
        count = f"{self.n}" if self.complete else f"{len(self.eigenvalues)} of {self.n}"
        stored = "" if self.eps == np.finfo(self.dtype).eps else f" stored to eps = {self.eps:.2g}"
        lines = [
            f"{self.verdict}: {count} eigenvalues of a {self.dtype} kernel{stored}, {self.negative} negative",
            f"  eigenvalues                    {' '.join(shown)}",
            f"  smallest, largest              {smallest:.6g}, {largest:.6g}",
            f"  smallest / (eps largest)       {self.units:.3g}",
            f"  tolerance 10 sqrt(n) eps max   {self.tolerance:.3g}",
        ]
        if not self.complete:
            top = self.residuals[self.n_smallest :].max()
            lines += [
                f"  residuals                      {self.residuals[0]:.3g} of the smallest, at most {top:.3g} of the "
                f"{len(self.largest)} largest",
                f"  lambda_min lies between        {self.lower_bound:.6g} and {smallest:.6g} (Lanczos, "
                f"{counted(self.products, 'product')}; the lower end fails for one start vector in a million)",
            ]
        if self.verdict == UNDECIDED:
            lines.append("  an eigenvalue below the tolerance is neither found nor excluded: allow more products")
        if self.rank_bound is not None and self.rank_bound < self.n:
            lines.append(
                f"  rank at most {self.rank_bound}: at least {self.n - self.rank_bound} eigenvalues are zero before "
                "rounding, and small negative ones are to be expected"
            )
        return "\n".join(lines)

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [
            {"rank": int(rank), "eigenvalue": float(value)}
            for rank, value in zip(self.ranks, self.eigenvalues[::-1], strict=True)
        ]

    def plot(self, ax: Any = None) -> Any:
        """Eigenvalues by rank on a logarithmic scale, on `ax` or a new figure; returns the Axes."""
        return draw("kernels:draw_spectrum", ax, {"eigenvalues": self}, f"spectrum: {self.verdict}")


def judged(
    values: np.ndarray, n: int, dtype: np.dtype[Any], eps: float, rank: int | None, exponent: int = 0
) -> Spectrum:
    """The verdict on all eigenvalues (ascending) of an (n, n) kernel whose entries are rounded to `eps`.

    `values` are in units of 2^exponent.
    """
    smallest = float(values[0])
    tolerance, units = tolerance_of(smallest, float(values[-1]), n, eps)
    return Spectrum(
        eigenvalues=in_units(values, exponent),
        n=n,
        dtype=dtype.name,
        tolerance=float(np.ldexp(tolerance, exponent)),
        units=units,
        verdict=PSD if smallest >= 0 else ROUNDING if smallest >= -tolerance else NOT_PSD,
        eps=eps,
        rank_bound=None if rank is None else min(rank, n),
    )


def tolerance_of(smallest: float, largest: float, n: int, eps: float) -> tuple[float, float]:
    """The tolerance 10 sqrt(n) eps lambda_max of the verdict, and lambda_min / (eps lambda_max)."""
    unit = eps * abs(largest)
    return float(10.0 * np.sqrt(n) * unit), smallest / unit if unit > 0 else 0.0


def in_units(values: np.ndarray, exponent: int) -> np.ndarray:
    """`values` times 2^exponent.

    Raises:
        NumericalError: one of them is too large for float64.
    """
    with np.errstate(over="ignore"):
        found = np.ldexp(values, exponent)
    if not np.isfinite(found).all():
        raise NumericalError(
            f"an eigenvalue of {np.abs(values).max():.3g} times 2^{exponent}",
            allowed="what float64 can hold, below 1.8e308",
            remedy="divide the kernel by a power of two: nothing but the unit changes",
        )
    return found
