"""Duals of smooth activations by their Hermite coefficients: E[f(u) f(v)] = sum_j a_j(var u) a_j(var v) rho^j.

The coefficients a_j(d) = E[f(sqrt(d) z) h_j(z)] are integrals over one normal variable, one set a sample and not one a
pair. The trapezoidal rule takes them: for a function without poles near the real line it converges faster than
Gauss-Hermite quadrature of as many points, whose nodes are too far apart for large variances. Terms are added until
they are below `ACCURACY` of the sum.

Source: Mehler (1866) for the series; Daniely, Frostig, Singer (2016), lemma 11, for duals; Trefethen and Weideman
(2014), section 5, for the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float

from udlbridge.backends.reference.activations import ACTIVATIONS, Function
from udlbridge.errors import NumericalError

Dual = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""The variances of u and of v, and their covariance, of shapes that broadcast, to E[f(u) f(v)] and E[f'(u) f'(v)].

Where the covariance equals both variances, u is v: the results are exact there.
"""

ACCURACY = 1e-12
"""What a term may still add, relative to the sum of all."""

REACH = 12.5
"""Where the square root of the normal density is 1e-17: nothing beyond counts."""

STEP = 0.02
"""The distance of nodes: the fastest oscillation, of the last term, has three of them, and poles are ten away."""

FEWEST, MOST = 64, 4096
"""Terms at first, and at most. The poles of tanh, pi / 2 from the real line, ask for (18 sd / pi)^2 of them."""

LARGEST_VARIANCE = 50.0
"""Beyond, the most terms do not reach the accuracy."""


def hermite_dual(name: str) -> Dual:
    """The dual of a smooth activation."""
    f, slope = ACTIVATIONS[name]

    def dual(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.sqrt(d1 * d2)
        correlation = np.clip(np.divide(k, sizes, out=np.zeros_like(k), where=sizes > 0), -1.0, 1.0)

        def expectation(g: Function) -> np.ndarray:
            return _product(coefficients(g, d1, name), coefficients(g, d2, name), correlation)

        return expectation(f), expectation(slope)

    return dual


def coefficients(f: Function, d: Float[np.ndarray, ...], name: str) -> Float[np.ndarray, "terms ..."]:
    """a_j of f for every variance in `d`.

    Raises:
        NumericalError: the variance is so large that the series would need more than `MOST` terms.
    """
    largest = float(d.max(initial=0.0))
    count = FEWEST
    while largest <= LARGEST_VARIANCE and count <= MOST:
        functions, nodes, root = _functions(count)
        values = f(np.sqrt(d).reshape(-1, 1) * nodes) * root * STEP
        found = functions @ values.T
        total = float((values**2).sum(axis=1).max(initial=0.0)) / STEP
        # An odd or even function has every other coefficient zero: the last few decide.
        if float((found[-4:] ** 2).max(initial=0.0)) * count <= ACCURACY * total:
            return found.reshape(count, *d.shape)
        count *= 2
    raise NumericalError(
        f"the series of {name} does not converge for a variance of {largest:.3g}",
        allowed=f"preactivations of variance up to {LARGEST_VARIANCE:g}",
        remedy="scale the samples (an entry of about 1), or take a smaller w_std",
    )


@cache
def _functions(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h_j at the nodes times the root of the density, (count, nodes); the nodes; and that root."""
    nodes = np.arange(-REACH, REACH + STEP / 2, STEP)
    root = np.exp(-(nodes**2) / 4) / (2 * np.pi) ** 0.25
    table = np.empty((count, len(nodes)))
    before, now = np.zeros_like(nodes), root
    for j in range(count):
        table[j] = now
        before, now = now, (nodes * now - np.sqrt(j) * before) / np.sqrt(j + 1)
    return table, nodes, root


def _product(a: np.ndarray, b: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """sum_j a_j b_j rho^j, by Horner's scheme."""
    result = np.zeros(np.broadcast_shapes(a.shape[1:], b.shape[1:], correlation.shape))
    for j in range(min(len(a), len(b)) - 1, -1, -1):
        result *= correlation
        result += a[j] * b[j]
    return result
