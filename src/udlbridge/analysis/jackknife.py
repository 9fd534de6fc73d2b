"""How far an alignment may be off, from the alignments of all but one of the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.alignments import aligned, check_symmetric, checked_estimator, checked_kernels
from udlbridge.analysis.bands import lower_bands
from udlbridge.analysis.hsic import LEAST
from udlbridge.analysis.inputs import KernelLike
from udlbridge.analysis.sums import Statistics, statistics
from udlbridge.analysis.units import Unit, units_of
from udlbridge.displays import Displayed, scalars
from udlbridge.errors import NumericalError, OptionError
from udlbridge.options import brief, checked_positive
from udlbridge.reports import json_ready
from udlbridge.texts import counted

NAMES = ("the first kernel", "the second kernel")


@dataclass(frozen=True, repr=False)
class AlignmentInterval(Displayed):
    """An alignment of two kernels of `n` samples, and the interval [`low`, `high`] that holds the population's.

    It does in a share of `level` of draws of the samples, where n is large and the alignment is neither 0 nor 1.

    Examples:
        >>> phi = np.random.default_rng(0).normal(size=(20, 3))
        >>> found = ub.alignment_interval(phi @ phi.T, phi[:, :2] @ phi[:, :2].T)
        >>> found.low < found.alignment < found.high, found.level
        (True, 0.95)
    """

    alignment: float
    standard_error: float
    low: float
    high: float
    level: float
    estimator: str
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        return [scalars(self)]

    def __str__(self) -> str:
        return (
            f"alignment {self.alignment:.4f} ({self.estimator}), between {self.low:.4f} and {self.high:.4f} "
            f"({self.level:.0%}, jackknife over {counted(self.n, 'sample')})"
        )


def alignment_interval(
    k1: KernelLike,
    k2: KernelLike,
    *,
    level: float = 0.95,
    estimator: str = "unbiased",
    tile: int | None = None,
) -> AlignmentInterval:
    """The alignment of two kernels with a confidence interval, by the jackknife over samples.

    The alignments without each of the n samples come from two passes over the kernels, in O(n^2) for all of them. The
    interval is that of Student's t around the alignment. It does not test whether there is an alignment at all, since
    estimates around 0 are not normal: `alignment_test` does.

    Args:
        k1, k2: symmetric kernels (n, n), as for `alignment`.
        level: the share of draws of the samples in which the interval is to hold.
        estimator: "unbiased" or "biased"; the latter's interval is around a value that is too high for few samples.
        tile: as for `alignment`.

    Raises:
        ShapeError: fewer than 5 samples; and as `alignment`.
        InputError: a kernel that is not symmetric; and as `alignment`.
        OptionError: a level outside (0, 1); and as `alignment`.
        NumericalError: the alignment is not defined without one of the samples; and as `alignment`.

    Source: Efron, Stein, The jackknife estimate of variance (1981).

    Examples:
        >>> phi = np.random.default_rng(0).normal(size=(20, 3))
        >>> ub.alignment_interval(phi @ phi.T, phi[:, :2] @ phi[:, :2].T, level=0.9).n
        20
    """
    from scipy.special import stdtrit

    level = checked_positive("level", level)
    if level >= 1:
        raise OptionError(f"level={brief(level)}", allowed="a share between 0 and 1", remedy="0.95 is usual")
    checked_estimator(estimator)
    kernels, n = checked_kernels([k1, k2], NAMES, "unbiased", LEAST + 1)
    sums = statistics(kernels, tile=tile, symmetric=True)
    check_symmetric(sums, NAMES)
    value = float(aligned(sums, kernels, NAMES, estimator)[0, 1])
    others = _without_each(kernels, sums, estimator, tile)
    error = math.sqrt((n - 1) / n * float(((others - others.mean()) ** 2).sum()))
    reach = error * float(stdtrit(n - 1, (1 + level) / 2))
    return AlignmentInterval(value, error, value - reach, value + reach, level, estimator, n)


def _without_each(
    kernels: Sequence[KernelLike], sums: Statistics, estimator: str, tile: int | None
) -> Float[np.ndarray, " n"]:
    """The alignments of all but sample i, for every i.

    Of centred kernels, whose rows add up to zero: what is left without sample i has the row sums -K[j, i], and all of
    it the sum K[i, i]. Centring it again, or not, changes neither estimate.
    """
    n = sums.rows.shape[1]
    units = units_of(sums)
    diagonals = np.stack([unit.centred_diagonal(d) for unit, d in zip(units, sums.diagonals, strict=True)])
    rowwise, products = _row_products(kernels, units, diagonals, tile)
    found = []
    for a, b in ((0, 1), (0, 0), (1, 1)):
        inner, row = float(rowwise[a, b].sum()), rowwise[a, b]
        both = diagonals[a] * diagonals[b]
        if estimator == "biased":
            found.append(inner - 2 * row + both - 2 * (row - both) / (n - 1) + both / (n - 1) ** 2)
            continue
        # The same without the diagonals, whose absence leaves the rows with the sums -K[j, j] - K[j, i].
        m, row = n - 1, row - both
        inner -= float(both.sum())
        spread = both.sum() - both + (products[a, b] - both) + (products[b, a] - both) + row
        totals = [2 * diagonals[index] - diagonals[index].sum() for index in (a, b)]
        found.append(inner - 2 * row + totals[0] * totals[1] / ((m - 1) * (m - 2)) - 2 / (m - 2) * spread)
    covariance, first, second = found
    # What is left of a norm, next to those that other samples leave: nothing but rounding is nothing.
    least = np.minimum(first / first.max(), second / second.max())
    if not (least > 1e-12).all():
        worst = int(least.argmin())
        raise NumericalError(
            f"without sample {worst} the alignment is not defined: one of the kernels has no norm that is known",
            allowed="kernels of which no single sample makes the norm",
            remedy="take more samples",
        )
    return np.asarray(covariance / np.sqrt(first * second))


def _row_products(
    kernels: Sequence[KernelLike], units: Sequence[Unit], diagonals: np.ndarray, tile: int | None
) -> tuple[Float[np.ndarray, "2 2 n"], Float[np.ndarray, "2 2 n"]]:
    """Of centred kernels: sum_j A[i, j] B[i, j] for all pairs, and A times the diagonal of B, by one pass."""
    n = diagonals.shape[1]
    rowwise, products = np.zeros((2, 2, n)), np.zeros((2, 2, n))
    for band in lower_bands(kernels, n, tile):
        for part in band.parts:
            rows, columns = band.rows, part.columns
            blocks = np.stack([u.centred(raw, rows, columns) for u, raw in zip(units, part.read(), strict=True)])
            rowwise[..., rows] += np.einsum("aij,bij->abi", blocks, blocks)
            products[..., rows] += np.einsum("aij,bj->abi", blocks, diagonals[:, columns])
            if part.weight == 2:
                rowwise[..., columns] += np.einsum("aij,bij->abj", blocks, blocks)
                products[..., columns] += np.einsum("aij,bi->abj", blocks, diagonals[:, rows])
    return rowwise, products
