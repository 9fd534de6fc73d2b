"""Whether two kernels of the same samples are aligned at all: a test by permutations, and by a gamma distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.analysis.alignments import aligned, check_symmetric, checked_estimator, checked_kernels
from udlbridge.analysis.hsic import LEAST
from udlbridge.analysis.inputs import KernelLike
from udlbridge.analysis.permuted import PermutedProducts
from udlbridge.analysis.sums import Statistics, statistics
from udlbridge.analysis.units import units_of
from udlbridge.displays import Displayed, draw, scalars
from udlbridge.errors import OptionError
from udlbridge.options import checked_count, checked_seed
from udlbridge.reports import frozen_array, json_ready, same_fields
from udlbridge.texts import counted

NAMES = ("the first kernel", "the second kernel")


@dataclass(frozen=True, eq=False, repr=False)
class AlignmentTest(Displayed):
    """Whether two kernels of `n` samples are aligned more than those of independent features are.

    `p_value` is the share of permutations, the identity among them, whose alignment is at least `alignment`; None where
    none were drawn. `gamma_p_value` is that of a gamma distribution with the mean and variance that the biased
    alignment has over all permutations; None where there is no such distribution, as for kernels that are not positive
    semidefinite. `null` holds the permuted alignments, a read-only array of float64; `seed` draws the permutations
    again.

    Examples:
        >>> phi = np.random.default_rng(0).normal(size=(20, 3))
        >>> found = ub.alignment_test(phi @ phi.T, phi @ phi.T, permutations=99, seed=0)
        >>> found.p_value, found.null.shape
        (0.01, (99,))
    """

    alignment: float
    p_value: float | None
    gamma_p_value: float | None
    permutations: int
    estimator: str
    n: int
    seed: int
    null: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "null", frozen_array(self.null))

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.alignment, self.n, self.seed, self.null.tobytes()))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        return [scalars(self)]

    def plot(self, ax: Any = None) -> Any:
        """A histogram of the permuted alignments, and where the alignment is; returns the Axes.

        Raises:
            OptionError: no permutations were drawn.
        """
        if not len(self.null):
            raise OptionError("a test without permutations has no picture", allowed="some", remedy="permutations=1000")
        return draw("alignments:draw_test", ax, self)

    def __str__(self) -> str:
        lines = [f"alignment {self.alignment:.4f} ({self.estimator}) of {counted(self.n, 'sample')}"]
        if self.p_value is not None:
            low, high = np.quantile(self.null, [0.025, 0.975])
            lines.append(
                f"  p = {self.p_value:.3g} by {counted(self.permutations, 'permutation')}, of which 95% lie between "
                f"{low:.4f} and {high:.4f}"
            )
        if self.gamma_p_value is not None:
            lines.append(f"  p = {self.gamma_p_value:.3g} by a gamma distribution")
        return "\n".join(lines)


def alignment_test(
    k1: KernelLike,
    k2: KernelLike,
    *,
    permutations: int = 1000,
    estimator: str = "biased",
    seed: int | None = None,
    tile: int | None = None,
) -> AlignmentTest:
    """Test whether two kernels are aligned, against the hypothesis that their features are independent.

    Independent features may be paired with each other in any order, so the alignments of K1 with K2 whose samples are
    permuted are what chance gives. The alignment and all permutations take one pass over tiles together; no permuted
    kernel is ever formed. Permutations are of all samples where one of the kernels is an array in memory, or lazy with
    few features, as that of labels. Where both lie on disk, samples are permuted within tiles, which is as exact a
    test.

    It takes n^2 `permutations` operations (and as many for each feature of a lazy kernel). For large n, and for very
    small p-values, `permutations=0` leaves the gamma distribution alone, at the price of the alignment.

    Args:
        k1, k2: symmetric kernels (n, n) of at least 4 samples, as for `alignment`.
        permutations: how many are drawn; the smallest p-value is 1 / (permutations + 1). Their table takes 4 n bytes
            each.
        estimator: of the alignment, "biased" or "unbiased".
        seed: for the permutations; None draws it anew.
        tile: as for `alignment`.

    Raises:
        InputError: a kernel that is not symmetric; and as `alignment`.
        ShapeError: fewer than 4 samples; and as `alignment`.
        OptionError, DTypeError, NumericalError: as `alignment`.

    Source: Gretton et al., A kernel statistical test of independence (2008), for the test and the gamma distribution;
    Kazi-Aoual et al., Refined approximations to permutation tests (1995), for its exact moments; Phipson, Smyth (2010)
    for counting the identity.

    Examples:
        >>> phi, other = np.random.default_rng(0).normal(size=(2, 20, 3))
        >>> ub.alignment_test(phi @ phi.T, other @ other.T, permutations=99, seed=0).p_value > 0.05
        True
    """
    count, seed = checked_count("permutations", permutations, 0), checked_seed(seed)
    checked_estimator(estimator)
    kernels, n = checked_kernels([k1, k2], NAMES, "unbiased", LEAST)
    tile = None if tile is None else checked_count("tile", tile, 1)
    products = PermutedProducts(kernels, n, count, seed, tile) if count else None
    sums = statistics(kernels, tile=tile, symmetric=True, visit=None if products is None else products.add)
    check_symmetric(sums, NAMES)
    value = float(aligned(sums, kernels, NAMES, estimator)[0, 1])
    null = np.empty(0)
    exceeding = 0
    if products is not None:
        found, rounding = products.alignments(sums, estimator)
        # Of the same sums as the others, so that permutations that change nothing come out equal but for rounding.
        exceeding = int(np.count_nonzero(found[1:] >= found[0] - rounding))
        null = found[1:]
    return AlignmentTest(
        alignment=value,
        p_value=(exceeding + 1) / (count + 1) if count else None,
        gamma_p_value=_gamma(sums),
        permutations=count,
        estimator=estimator,
        n=n,
        seed=seed,
        null=null,
    )


def _gamma(sums: Statistics) -> float | None:
    """The p-value of the biased alignment by a gamma distribution with its mean and variance over all permutations."""
    from scipy.special import gammaincc

    products = sums.products(centred=True)
    mean, variance = permutation_moments(
        [unit.centred_diagonal(d) for unit, d in zip(units_of(sums), sums.diagonals, strict=True)],
        np.diag(products),
        sums.rows.shape[1],
    )
    if not (mean > 0 and variance > 0 and np.isfinite(variance)):
        return None
    # The upper tail of the gamma distribution with the shape mean^2 / variance and the scale variance / mean.
    return float(gammaincc(mean**2 / variance, max(float(products[0, 1]), 0.0) * mean / variance))


def permutation_moments(diagonals: Sequence[np.ndarray], squares: np.ndarray, n: int) -> tuple[float, float]:
    """Mean and variance of <A, PBP'> over all n! permutations, for centred A and B.

    From their diagonals (n,) and the squares of their norms (2,). Source: Kazi-Aoual et al. (1995).
    """
    traces = np.array([float(d.sum()) for d in diagonals])
    peaks = np.array([float(d @ d) for d in diagonals])
    even = (n - 1) * squares - traces**2
    odd = n * (n + 1) * peaks - (n - 1) * (traces**2 + 2 * squares)
    variance = 2 * even[0] * even[1] / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance += odd[0] * odd[1] / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    return float(traces.prod()) / (n - 1), float(variance)
