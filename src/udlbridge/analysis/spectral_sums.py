"""The trace and the Frobenius norm of a kernel: exact from its entries, or estimated from its products."""

from __future__ import annotations

import math

import numpy as np

from udlbridge.analysis.estimates import Estimate, error_bar
from udlbridge.analysis.inputs import first_not_finite
from udlbridge.analysis.sources import Source, source_of
from udlbridge.analysis.sums import statistics
from udlbridge.analysis.traces import LEAST, PROBES, in_kernel_units, trace_estimate, traces_of
from udlbridge.errors import InputError, NumericalError
from udlbridge.options import checked_count, checked_seed


def trace(kernel: object, *, probes: int = PROBES, seed: int | None = None) -> Estimate:
    """The trace of a kernel, the sum of its eigenvalues.

    Exact where entries can be read: of an array, a store, a lazy kernel, from the diagonal alone. Of an operator it is
    estimated by XTrace, from 2 `probes` products; what the largest eigenvalues add has no error.

    Args:
        kernel: symmetric, (n, n): an array, a memory map, a kernel store, a lazy kernel, anything with `shape`, `dtype`
            and slices, or a scipy LinearOperator, as `ntk_operator` makes.
        probes: random vectors, at least 3. With n / 2 of them or more, n products give the exact trace.
        seed: for the probes; None draws it anew. The result holds it.

    Returns:
        An estimate: `.value` (or `float` of it), and `.error`, within which the truth lies for 95 of 100 seeds.

    Raises:
        ShapeError: not square.
        InputError: empty, not finite, not real, or an operator that is not symmetric.
        OptionError: fewer than 3 probes, or an invalid seed.

    Source: Epperly, Tropp, Webber (2024).

    Examples:
        >>> ub.trace(np.diag([3.0, 4.0])).value
        7.0
    """
    probes, seed = checked_count("probes", probes, LEAST), checked_seed(seed)
    source = source_of(kernel, check=False)
    if source.entries is not None:
        return Estimate(exact_trace(source))
    unit = source.unit()
    found, products = traces_of(source, unit, probes, seed)
    return in_kernel_units(trace_estimate(found, source, products, seed), unit)


def frobenius_norm(kernel: object, *, probes: int = PROBES, seed: int | None = None) -> Estimate:
    """The Frobenius norm of a kernel, the root of the sum of the squares of its entries, or of its eigenvalues.

    Exact where entries can be read, in one pass. Of an operator it is estimated from the same products as `trace`.

    Arguments, result and errors are those of `trace`; an array that is not symmetric is an error here.

    Examples:
        >>> ub.frobenius_norm(np.diag([3.0, 4.0])).value
        5.0
    """
    probes, seed = checked_count("probes", probes, LEAST), checked_seed(seed)
    source = source_of(kernel, check=False)
    if source.entries is not None:
        return Estimate(exact_norm(source))
    unit = source.unit()
    found, products = traces_of(source, unit, probes, seed)
    norm = math.sqrt(found.square)
    error = error_bar(np.sqrt(found.other_squares)) + 10 * source.eps * norm
    return in_kernel_units(Estimate(norm, error, products, seed), unit)


def exact_trace(source: Source) -> float:
    """The sum over the diagonal of a kernel whose entries can be read.

    Raises:
        InputError: it is not finite.
        NumericalError: the sum is too large for float64.
    """
    try:
        return math.fsum(source.diagonal())
    except OverflowError:
        raise NumericalError(
            "a trace beyond the range of float64", allowed="up to 1.8e308", remedy="divide the kernel by a power of two"
        ) from None


def exact_norm(source: Source) -> float:
    """The root of the sum of squares of a kernel whose entries can be read, in one pass.

    Raises:
        InputError: it is not finite, or not symmetric.
        NumericalError: it is too large for float64.
    """
    sums = statistics([source.kernel], symmetric=True)
    with np.errstate(invalid="ignore", over="ignore"):
        square = float(sums.products(centred=False)[0, 0])
    if not math.isfinite(square):
        raise InputError(
            first_not_finite(source.kernel, "the kernel"),
            allowed="finite numbers",
            remedy="find the origin of that entry",
        )
    if sums.skew[0] > 1:
        raise InputError(
            "the kernel is not symmetric",
            allowed="a symmetric kernel",
            remedy="np.linalg.norm takes a cross kernel (x2=)",
        )
    norm = float(np.ldexp(math.sqrt(square), int(sums.exponents[0])))
    if not math.isfinite(norm):
        raise NumericalError(
            "a norm beyond the range of float64", allowed="up to 1.8e308", remedy="divide the kernel by a power of two"
        )
    return norm
