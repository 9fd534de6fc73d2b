"""How many eigenvalues a kernel effectively has."""

from __future__ import annotations

import math

import numpy as np

from udlbridge.analysis.estimates import Estimate, error_bar
from udlbridge.analysis.sources import EXACT_LIMIT, Source, source_of
from udlbridge.analysis.spectra import eigenvalues
from udlbridge.analysis.spectral_sums import exact_norm, exact_trace
from udlbridge.analysis.traces import LEAST, PROBES, STEPS, find_unit, trace_estimate, trace_of_function, traces_of
from udlbridge.analysis.verdicts import tolerance_of
from udlbridge.errors import NumericalError
from udlbridge.options import checked_choice, checked_count, checked_seed

KINDS = ("entropy", "participation")
"""What an effective rank may be."""


def effective_rank(
    kernel: object,
    *,
    kind: str = "entropy",
    probes: int = PROBES,
    steps: int = STEPS,
    seed: int | None = None,
    exact_limit: int = EXACT_LIMIT,
) -> Estimate:
    """How many eigenvalues a kernel effectively has, between 1 and its rank.

    | kind | what it is, with p = lambda / trace |
    |---|---|
    | "entropy" | exp(- sum p log p): Roy and Vetterli |
    | "participation" | 1 / sum p^2 = trace^2 / Frobenius norm^2 |

    The participation ratio is exact where entries can be read, and else comes from the products of `trace`. The entropy
    is exact up to `exact_limit`; beyond, and of operators, it is estimated from products with p log p of the kernel by
    Lanczos: 2 `probes` `steps` of them at most, and 8 n `probes` `steps` bytes.

    Args:
        kernel, probes, seed: as for `trace`; positive semidefinite.
        kind: "entropy" or "participation".
        steps: of Lanczos at most; what more could change is part of the error.
        exact_limit: bytes of a float64 copy, 8 n^2, up to which all eigenvalues are computed for the entropy.

    Raises:
        As `trace`; OptionError for a kind that does not exist; NumericalError for a kernel that vanishes, or is not
        positive semidefinite.

    Source: Roy, Vetterli, The effective rank: a measure of effective dimensionality (2007).

    Examples:
        >>> print(ub.effective_rank(np.eye(4)))
        4 (exact)
    """
    probes, seed, steps = checked_count("probes", probes, LEAST), checked_seed(seed), checked_count("steps", steps, 1)
    kind, exact_limit = checked_choice("kind", kind, KINDS), checked_count("exact_limit", exact_limit, 0)
    source = source_of(kernel)
    if kind == "participation":
        return _participation(source, probes, seed)
    if source.fits(exact_limit):
        return Estimate(_exact(source))
    unit = source.unit()
    if source.entries is not None:
        find_unit(source, unit, seed)
        total = Estimate(math.ldexp(exact_trace(source), -(unit.exponent or 0)))
    else:
        found, products = traces_of(source, unit, probes, seed)
        total = trace_estimate(found, source, products, seed)
    _check_trace(total.value)

    def entropy(values: np.ndarray) -> np.ndarray:
        """- p log p, of what is positive."""
        shares = np.maximum(values / total.value, np.finfo(np.float64).tiny)
        return np.where(values > 0, -shares * np.log(shares), 0.0)

    found_entropy = trace_of_function(source, unit, entropy, probes=probes, steps=steps, seed=seed)
    _check_positive(found_entropy.lowest, found_entropy.highest, source)
    sum_of_all = found_entropy.estimate
    # Were the trace r times as large, all shares would be 1 / r of what they are.
    off = abs(1 - sum_of_all.value) * total.error / total.value
    rank = math.exp(sum_of_all.value)
    return Estimate(rank, rank * math.hypot(sum_of_all.error, off), total.products + sum_of_all.products, seed)


def _participation(source: Source, probes: int, seed: int) -> Estimate:
    """trace^2 / Frobenius norm^2, from estimates that each leave out one probe for both."""
    if source.entries is not None:
        total = exact_trace(source)
        _check_trace(total)
        return Estimate((total / exact_norm(source)) ** 2)
    found, products = traces_of(source, source.unit(), probes, seed)
    _check_trace(found.trace)
    value = found.trace**2 / found.square
    error = error_bar(found.other_traces**2 / found.other_squares) + 20 * source.eps * value
    return Estimate(value, error, products, seed)


def _exact(source: Source) -> float:
    """exp(- sum p log p) from all eigenvalues."""
    assert source.entries is not None
    values, _ = eigenvalues(source.entries)
    _check_positive(float(values[0]), float(values[-1]), source)
    positive = values[values > 0]
    _check_trace(float(positive.sum()))
    shares = positive / positive.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def _check_trace(total: float) -> None:
    if not total > 0:
        raise NumericalError(
            f"a kernel with the trace {total:.3g} has no effective rank",
            allowed="positive semidefinite kernels that are not zero",
            remedy="look at ub.spectrum(k)",
        )


def _check_positive(lowest: float, highest: float, source: Source) -> None:
    """Raise `NumericalError` for an eigenvalue below what rounding gives."""
    tolerance, _ = tolerance_of(lowest, highest, source.n, source.verdict_eps)
    if lowest < -tolerance:
        raise NumericalError(
            f"the kernel is not positive semidefinite: it has an eigenvalue of {lowest / highest:.3g} of the largest",
            allowed=f"eigenvalues above {-tolerance / highest:.2g} of the largest, where rounding ends",
            remedy="look at ub.spectrum(k), or mend it with ub.repair(k)",
        )
