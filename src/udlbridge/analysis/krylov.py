"""The ends of the spectrum of a symmetric matrix from products with vectors alone: Lanczos, and what it proves.

One sequence of products serves both ends. The largest eigenvalues come first, because a kernel's stand apart. What can
be said about the smallest one, below which nothing may lie, is the harder half; this module gives it as a bound:

- the smallest Ritz value lies above the smallest eigenvalue, always;
- how far above is bounded by the course of the Lanczos process itself, unless the random start vector happens to be
  almost orthogonal to the eigenvector in question, which has a small probability that is known (see `lower_bound`).
  That is a probability of start vectors, for a matrix that was there before: with a seed that is known, a matrix can be
  made with an eigenvector that the start misses. So the start is drawn anew unless a seed is asked for.

Vectors are kept and reorthogonalised in full, without restarts: for n = 60,000 and 100 products they are 48 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Product = Callable[[np.ndarray], np.ndarray]

Watch = Callable[[int, float, float], None]
"""Takes the number of products, and the lower bound of the smallest eigenvalue and the tolerance, as far as known."""

RISK = 1e-6
"""Accepted probability, over the start vector, that the lower bound of the smallest eigenvalue does not hold."""

CONVERGED = 1e-6
"""Residual, relative to its eigenvalue, at which one of the largest eigenvalues counts as found."""


@dataclass(frozen=True)
class Ends:
    """Both ends of a spectrum, from `products` products.

    `values` (ascending) are Rayleigh quotients of orthonormal `vectors` (n, len(values)); the first `n_smallest` of
    them are of the lower end. `lower_bound` lies below every eigenvalue, except with probability `RISK` (-inf: nothing
    is known).
    """

    values: np.ndarray
    vectors: np.ndarray
    n_smallest: int
    lower_bound: float
    products: int


def lanczos(
    product: Product,
    n: int,
    *,
    k: int,
    n_smallest: int,
    eps: float,
    max_products: int,
    seed: int | None = None,
    watch: Watch | None = None,
) -> Ends:
    """The `k` largest and `n_smallest` smallest eigenvalues of a symmetric (n, n) matrix.

    It stops when the largest have converged and the smallest is decided against the tolerance 10 sqrt(n) eps
    lambda_max: known to lie below it, or known to lie above it and either not negative or indistinguishable from zero.

    Args:
        product: maps a float64 vector (n,) to the matrix times it, of a size whose squares can be summed, as
            `scaling.UnitProduct` gives it.
        n: the order of the matrix.
        k: how many of the largest; at most n.
        n_smallest: how many of the smallest; only the first of them decides when to stop.
        eps: the unit of rounding that the tolerance is measured in.
        max_products: where to stop in any case; at least k + n_smallest.
        seed: for the start vector; None draws it anew.
        watch: is told of every product.

    Source: Lanczos (1950); full reorthogonalisation, twice, after Parlett, The Symmetric Eigenvalue Problem (1998),
    section 13.
    """
    from scipy.linalg import eigh_tridiagonal  # a quarter of what a command imports, and most have no use for it

    steps = min(n, max_products)
    generator = np.random.default_rng(seed)
    basis = np.empty((steps, n))  # rows are touched, and so take memory, only when they come
    diagonal, off = np.zeros(steps), np.zeros(steps)
    vector = _unit(generator.standard_normal(n))
    closed, lowest, tolerance = False, float("-inf"), float("nan")
    check_at = min(steps, k + n_smallest)
    for step in range(steps):
        basis[step] = vector
        image = np.asarray(product(vector), dtype=np.float64)
        if watch is not None:
            watch(step + 1, lowest, tolerance)
        diagonal[step] = vector @ image
        count = step + 1
        done = basis[:count]
        for _ in range(2):
            image = image - done.T @ (done @ image)
        off[step] = np.linalg.norm(image)
        scale = float(np.abs(diagonal[:count]).max() + off[:count].max())
        closes = bool(off[step] <= np.sqrt(n) * np.finfo(np.float64).eps * scale)
        if count == steps or count >= check_at or closes:
            values, rotation = eigh_tridiagonal(diagonal[:count], off[:step])
            residuals = np.abs(off[step] * rotation[-1])
            if count == n:
                lowest = float(values[0])
            elif not closed:
                lowest = max(lowest, lower_bound(values, off[:count], n))
            tolerance = float(10 * np.sqrt(n) * eps * abs(values[-1]))
            if count == steps or _decided(values, residuals, lowest, tolerance, k, n_smallest):
                break
            check_at = count + max(1, count // 10)
        if closes:
            # The space is closed under the matrix: it holds a vector of every eigenvalue, and a new start finds copies.
            closed = True
            off[step] = 0.0
            vector = _orthogonal(generator.standard_normal(n), done)
        else:
            vector = image / off[step]
    positions = np.unique(np.r_[0 : min(n_smallest, count), max(0, count - k) : count])
    vectors = done.T @ rotation[:, positions]
    return Ends(values[positions], vectors, min(n_smallest, count), min(lowest, float(values[0])), count)


def lower_bound(values: np.ndarray, off: np.ndarray, n: int) -> float:
    """A number below every eigenvalue, except with probability `RISK` over the start vector.

    The next Lanczos vector is p(A) b / (beta_1 ... beta_m), with p(t) = prod_i (t - theta_i) over the m Ritz values.
    Its component along a unit eigenvector u of lambda, p(lambda) <u, b> / (beta_1 ... beta_m), cannot exceed 1. For the
    eigenvector of the smallest eigenvalue, a fixed vector, |<u, b>| is at least eta = RISK sqrt(pi / (2 n)) except with
    probability RISK. So the smallest eigenvalue lies where sum_i log|lambda - theta_i| <= sum_i log beta_i - log eta,
    and not below the least such lambda. The chance is taken once, with the start: it does not add up over m.

    Rounding in the products is not in the bound; it moves eigenvalues by a few eps lambda_max, far below the tolerance.

    Args:
        values: the Ritz values, ascending (m,).
        off: beta_1 to beta_m (m,), the lengths that the new vectors had before they were scaled.
        n: the order of the matrix.

    Source: van Dorsselaer, Hochstenbach, van der Vorst, Computing probabilistic bounds for extreme eigenvalues of
    symmetric matrices with the Lanczos method (2001).
    """
    tiny = np.finfo(np.float64).tiny
    eta = RISK * np.sqrt(np.pi / (2 * n))
    level = np.log(np.maximum(off, tiny)).sum() - np.log(eta)
    above = values - values[0]

    def excluded(distance: float) -> bool:
        """Whether an eigenvalue so far below the smallest Ritz value is impossible: the sum grows with the distance."""
        return bool(np.log(np.maximum(above + distance, tiny)).sum() > level)

    # Bisection on the logarithm, since the distance can be anything from rounding to the whole spectrum.
    low, high = np.log(tiny), np.log(max(float(np.abs(values).max() + off.max()), tiny))
    while not excluded(np.exp(high)):
        high += 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if excluded(np.exp(middle)) else (middle, high)
    return float(values[0] - np.exp(high))


def _decided(
    values: np.ndarray, residuals: np.ndarray, lowest: float, tolerance: float, k: int, n_smallest: int
) -> bool:
    if len(values) < k + n_smallest:
        return False
    top = np.abs(values[-k:])
    # What is zero for the verdict need not be known to six digits of itself.
    if np.any(residuals[-k:] > np.where(top <= tolerance, tolerance / 10, CONVERGED * top)):
        return False
    smallest = float(values[0])
    if smallest < -tolerance:
        # Shown already; a little further it is also known how far below.
        return bool(residuals[0] <= max(tolerance / 10, 1e-2 * abs(smallest)))
    return lowest >= 0 or (lowest >= -tolerance and smallest <= tolerance)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _orthogonal(vector: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """A unit vector orthogonal to the rows of `basis`; of no meaning if they span everything."""
    for _ in range(2):
        vector = _unit(vector - basis.T @ (basis @ vector))
    return vector
