"""Traces of a kernel that is known by its products alone, of its square, and of functions of it, with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from udlbridge.analysis.estimates import Estimate, error_bar
from udlbridge.analysis.quadrature import FunctionOf
from udlbridge.analysis.scaling import UnitProduct
from udlbridge.analysis.sources import Source
from udlbridge.analysis.xtrace import Traces, check_symmetric, xtrace

PROBES = 16
"""Random vectors, unless told otherwise."""

LEAST = 3
"""Random vectors that leave an error to be estimated when one of them is left out."""

STEPS = 100
"""Products for each vector that a function of the kernel takes at most, unless told otherwise."""


def traces_of(source: Source, unit: UnitProduct, probes: int, seed: int) -> tuple[Traces, int]:
    """Estimates of the traces of a kernel and of its square, in its unit, and how many products they took.

    With so many probes that n products cost no more, these give both exactly.
    """
    if 2 * probes < source.n:
        return xtrace(unit, source.n, probes, np.random.default_rng(seed), source.eps), 2 * probes
    identity = np.eye(source.n)
    dense = unit @ identity
    check_symmetric(identity, dense, source.eps)
    trace, square = float(np.trace(dense)), float((dense**2).sum())
    return Traces(trace, square, np.full(2, trace), np.full(2, square)), source.n


@dataclass(frozen=True)
class FunctionTrace:
    """The trace of a function of a kernel, and the smallest and largest Ritz value that were seen on the way."""

    estimate: Estimate
    lowest: float
    highest: float


def trace_of_function(
    source: Source,
    unit: UnitProduct,
    function: Callable[[np.ndarray], np.ndarray],
    *,
    probes: int,
    steps: int,
    seed: int,
) -> FunctionTrace:
    """The trace of f(K) by XTrace, whose products with f(K) are taken by Lanczos in the unit of the kernel.

    Raises:
        InputError: an operator that is not symmetric.
    """
    generator = np.random.default_rng(seed)
    if source.entries is None:
        two = generator.standard_normal((source.n, 2))
        check_symmetric(two, unit @ two, source.eps)
    of = FunctionOf(unit, function, steps)
    if 2 * probes < source.n:
        found = xtrace(of, source.n, probes, generator, np.inf)
        value, error = found.trace, error_bar(found.other_traces)
    else:
        identity = np.eye(source.n)
        parts = [identity[:, start : start + probes] for start in range(0, source.n, probes)]
        value, error = sum(float((part * (of @ part)).sum()) for part in parts), 0.0
    # Every direction may be off by what the last steps still changed.
    return FunctionTrace(Estimate(value, error + source.n * of.change, of.products, seed), of.lowest, of.highest)


def trace_estimate(found: Traces, source: Source, products: int, seed: int) -> Estimate:
    """The trace, whose error is not below the rounding of products."""
    rounding = 10 * source.eps * math.sqrt(found.square)
    return Estimate(found.trace, error_bar(found.other_traces) + rounding, products, seed)


def in_kernel_units(estimate: Estimate, unit: UnitProduct) -> Estimate:
    """From the unit of the products back to that of the kernel."""
    value, error = np.ldexp([estimate.value, estimate.error], unit.exponent or 0).tolist()
    return Estimate(value, error, estimate.products, estimate.seed)


def find_unit(source: Source, unit: UnitProduct, seed: int) -> float:
    """Let a first product decide the unit; returns how much the kernel makes a vector longer, on average."""
    vector = np.random.default_rng(seed).standard_normal(source.n)
    return float(np.linalg.norm(unit @ vector) / np.linalg.norm(vector))
