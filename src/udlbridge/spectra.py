"""Eigenvalues of a kernel matrix, and whether it is positive semidefinite."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.errors import InputError, ShapeError
from udlbridge.tolerances import relative_difference

PSD = "PSD"
ROUNDING = "rounding"
NOT_PSD = "not PSD"


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of an (n, n) kernel and the verdict on its positivity, with the evidence.

    `eigenvalues` ascend. `tolerance` is 10 sqrt(n) eps lambda_max with the eps of the kernel's dtype; `units` is
    lambda_min / (eps lambda_max). `rank_bound` is the largest possible rank, min(n, P), where P is known.
    """

    eigenvalues: tuple[float, ...]
    n: int
    dtype: str
    tolerance: float
    units: float
    verdict: str
    rank_bound: int | None = None

    @property
    def negative(self) -> int:
        """How many eigenvalues are below zero: the notebook's question."""
        return sum(value < 0 for value in self.eigenvalues)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return {**asdict(self), "eigenvalues": list(self.eigenvalues), "negative": self.negative}

    def __str__(self) -> str:
        smallest, largest = self.eigenvalues[0], self.eigenvalues[-1]
        shown = [f"{value:.6g}" for value in self.eigenvalues]
        if len(shown) > 8:
            shown = [*shown[:4], "...", *shown[-4:]]
        lines = [
            f"{self.verdict}: {self.n} eigenvalues of a {self.dtype} kernel, {self.negative} negative",
            f"  eigenvalues                    {' '.join(shown)}",
            f"  smallest, largest              {smallest:.6g}, {largest:.6g}",
            f"  smallest / (eps largest)       {self.units:.3g}",
            f"  tolerance 10 sqrt(n) eps max   {self.tolerance:.3g}",
        ]
        if self.rank_bound is not None and self.rank_bound < self.n:
            lines.append(
                f"  rank at most {self.rank_bound}: at least {self.n - self.rank_bound} eigenvalues are zero before "
                "rounding, and small negative ones are to be expected"
            )
        return "\n".join(lines)


def spectrum(kernel: Float[np.ndarray, "n n"], *, rank: int | None = None) -> Spectrum:
    """All eigenvalues of a kernel matrix, and the verdict on its positivity.

    The eigenvalues are computed in float64 whatever the dtype of `kernel`, so that what is judged is the kernel's own
    rounding. "PSD": none is negative. "rounding": none is below -10 sqrt(n) eps lambda_max. "not PSD": otherwise; that
    is a bug, or the matrix is not a Gram matrix.

    Args:
        kernel: a symmetric matrix (n, n), float32 or float64.
        rank: an upper bound of its rank, where known: P for a kernel of one output, O P for a trace.

    Raises:
        ShapeError: if it is not square.
        InputError: if it is empty, not finite, not real, or not symmetric.

    Source: the tolerance is that of numerical rank (Higham, Accuracy and Stability, 2002) with sqrt(n) for n, since
    rounding in a Gram matrix adds up at random.
    """
    matrix = checked_kernel(kernel)
    wide = matrix.astype(np.float64)
    values = np.linalg.eigvalsh((wide + wide.T) / 2)
    return judged(values, len(matrix), matrix.dtype, rank)


def judged(values: np.ndarray, n: int, dtype: np.dtype[Any], rank: int | None) -> Spectrum:
    """The verdict on ascending eigenvalues of an (n, n) kernel that was computed in `dtype`."""
    smallest, largest = float(values[0]), float(values[-1])
    unit = float(np.finfo(dtype).eps) * abs(largest)
    tolerance = 10.0 * np.sqrt(n) * unit
    verdict = PSD if smallest >= 0 else ROUNDING if smallest >= -tolerance else NOT_PSD
    return Spectrum(
        eigenvalues=tuple(float(value) for value in values),
        n=n,
        dtype=dtype.name,
        tolerance=float(tolerance),
        units=smallest / unit if unit > 0 else 0.0,
        verdict=verdict,
        rank_bound=None if rank is None else min(rank, n),
    )


def checked_kernel(kernel: object) -> np.ndarray:
    """`kernel` as a finite, real, symmetric float matrix, or an error that says what it is instead."""
    matrix = np.asarray(kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        remedy = "take one reduction of the kernel"
        if matrix.ndim > 2:
            remedy = 'ask ntk for outputs="trace" or for one output: the eigenvalues are those of an (n, n) matrix'
        raise ShapeError(f"the kernel has shape {matrix.shape}", allowed="(n, n)", remedy=remedy)
    if matrix.size == 0:
        raise InputError("the kernel is empty", allowed="n >= 1", remedy="check the selection of samples")
    if matrix.dtype.kind != "f":
        raise InputError(
            f"the kernel has dtype {matrix.dtype}", allowed="float32 or float64", remedy="convert it with .astype"
        )
    if not np.isfinite(matrix).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
        raise InputError(f"the kernel is {matrix[bad]} at {bad}", allowed="finite numbers", remedy="find its origin")
    gap = relative_difference(matrix, matrix.T)
    if gap > 100 * np.finfo(matrix.dtype).eps * np.sqrt(len(matrix)):
        raise InputError(
            f"the kernel is not symmetric: K and K' differ by {gap:.2g} of the largest entry",
            allowed="a symmetric matrix",
            remedy="a cross kernel (x2=) has no spectrum of this kind; use singular values",
        )
    return matrix
