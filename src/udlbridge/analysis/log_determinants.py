"""The log-determinant of a kernel."""

from __future__ import annotations

import math

import numpy as np

from udlbridge.analysis.estimates import Estimate
from udlbridge.analysis.sources import EXACT_LIMIT, Source, source_of
from udlbridge.analysis.traces import LEAST, PROBES, STEPS, find_unit, trace_of_function
from udlbridge.analysis.verdicts import tolerance_of
from udlbridge.errors import NumericalError
from udlbridge.options import checked_count, checked_not_negative, checked_seed


def log_det(
    kernel: object,
    *,
    shift: float = 0.0,
    probes: int = PROBES,
    steps: int = STEPS,
    seed: int | None = None,
    exact_limit: int = EXACT_LIMIT,
) -> Estimate:
    """log det (K + shift I), the natural logarithm, as in the evidence of a Gaussian process whose noise is `shift`.

    Exact, by Cholesky, up to `exact_limit`; beyond, and of operators, it is n log shift plus an estimate of the trace
    of log (1 + K / shift), which small eigenvalues add nothing to, by Lanczos and XTrace.

    Args:
        kernel, probes, seed: as for `trace`.
        shift: added to the diagonal, in the unit of the kernel, at least 0.
        steps, exact_limit: as for `effective_rank`.

    Raises:
        As `trace`; OptionError for a negative shift; NumericalError for a kernel that is not positive definite with the
        shift.

    Source: Ubaru, Chen, Saad, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature (2017).

    Examples:
        >>> ub.log_det(np.diag([1.0, np.e]), shift=0.0).value
        1.0
    """
    probes, seed, steps = checked_count("probes", probes, LEAST), checked_seed(seed), checked_count("steps", steps, 1)
    shift, exact_limit = checked_not_negative("shift", shift), checked_count("exact_limit", exact_limit, 0)
    source = source_of(kernel)
    if source.fits(exact_limit):
        return Estimate(_exact(source, shift))
    unit = source.unit()
    size = find_unit(source, unit, seed)
    exponent = unit.exponent or 0
    own = math.ldexp(shift, -exponent)
    # Logarithms are taken relative to the shift, or without one to the size of the kernel.
    base = own if own > 0 else max(size, float(np.finfo(np.float64).tiny))

    def logarithm(values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum((values + own) / base, np.finfo(np.float64).tiny))

    found = trace_of_function(source, unit, logarithm, probes=probes, steps=steps, seed=seed)
    tolerance, _ = tolerance_of(found.lowest, found.highest, source.n, source.eps)
    if found.lowest + own <= (0 if own > 0 else tolerance):
        raise _not_definite(f"{math.ldexp(found.lowest + own, exponent):.3g}")
    value = found.estimate.value + source.n * (math.log(base) + exponent * math.log(2))
    return Estimate(value, found.estimate.error, found.estimate.products + 1, seed)


def _exact(source: Source, shift: float) -> float:
    """By Cholesky, of a kernel whose entries can be read."""
    assert source.entries is not None
    dense, exponent = source.entries.dense()
    dense[np.diag_indices(source.n)] += math.ldexp(shift, -exponent)
    largest = float(np.diagonal(dense).max())
    try:
        pivots = np.diagonal(np.linalg.cholesky(dense)) ** 2
    except np.linalg.LinAlgError:
        raise _not_definite("zero or below") from None
    if pivots.min() <= source.n * np.finfo(np.float64).eps * largest:
        raise _not_definite("zero but for rounding")
    return float(np.log(pivots).sum()) + source.n * exponent * math.log(2)


def _not_definite(eigenvalue: str) -> NumericalError:
    return NumericalError(
        f"the kernel is not positive definite: with the shift, it has an eigenvalue that is {eigenvalue}",
        allowed="kernels whose eigenvalues are positive, with the shift",
        remedy="give a larger shift, as 1e-6 * ub.trace(k).value / len(k), or look at ub.spectrum(k)",
    )
