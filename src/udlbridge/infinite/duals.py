"""Duals of activations: E[f(u) f(v)] and E[f'(u) f'(v)] for normal u and v of given variances and covariance.

In closed form where there is one; for smooth activations as a series of Hermite coefficients (`series`).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, owens_t

from udlbridge.infinite.series import Dual, hermite_dual

LEAK = 0.01
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def identity(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u v, and 1."""
    return k, np.ones_like(k)


def piecewise_linear(below: float, above: float) -> Dual:
    """The dual of `below` z for z < 0 and `above` z for z > 0. Source: Cho and Saul (2009), section 2."""

    jump = (below - above) ** 2 / (2 * np.pi)

    def dual(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.sqrt(d1 * d2)
        apart, together = sizes - k, sizes + k
        # Rounding may make a cosine larger than 1.
        np.maximum(apart, 0.0, out=apart)
        np.maximum(together, 0.0, out=together)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = apart / together
        if not sizes.all():  # a sample of zeros has no direction: every angle has the same weight there
            ratio = np.where(sizes == 0, 1.0, ratio)
        # The tangent of half the angle keeps the digits of small ones, and takes less time than arctan2 of both sides.
        slopes = np.arctan(np.sqrt(ratio))
        slopes *= -2 * jump
        slopes += (below**2 + above**2) / 2
        values = np.sqrt(np.multiply(apart, together, out=apart), out=apart)  # sizes times the sine
        values *= jump
        values += slopes * k
        return values, slopes

    return dual


def erf(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source: Williams (1997), equation 11."""
    sizes = (1 + 2 * d1) * (1 + 2 * d2)
    root = np.sqrt(np.maximum(sizes - 4 * k**2, 0.0))
    return 2 / np.pi * np.arctan2(2 * k, root), 4 / np.pi / root


def sin(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sin u sin v = (cos(u - v) - cos(u + v)) / 2, and E[cos z] = exp(-var z / 2)."""
    apart, together = np.exp(-(d1 + d2) / 2 + k), np.exp(-(d1 + d2) / 2 - k)
    return (apart - together) / 2, (apart + together) / 2


def gelu_erf(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u Phi(u) v Phi(v).

    Phi(u) Phi(v) is the probability that u and v exceed normal numbers of their own, so that this is a moment of two
    normal variables of variances 1 + d1 and 1 + d2, cut off below zero. The slopes follow by Price's theorem, as its
    derivative with respect to k. Source: Tsuchida, Pearce, van der Heide, Roosta, Gallagher (2021), proposition 2, for
    the result.
    """
    p1, p2 = 1 + d1, 1 + d2
    area = p1 * p2
    rest = area - k**2
    root = np.sqrt(rest)
    both = 0.25 + np.arctan2(k, root) / (2 * np.pi)
    values = k * both + (d1 * d2 * rest + k**2) / (2 * np.pi * area * root)
    return values, both + k / (2 * np.pi * root) * ((p1 + p2) / area + 1 / rest)


def exponential_linear(scale: float, alpha: float) -> Dual:
    """The dual of `scale` (z for z > 0, `alpha` (exp z - 1) for z < 0): elu and selu.

    exp(v) under a normal law moves the mean of u by k and that of v by d2, so that all parts are moments of normal
    variables that are cut off, and probabilities of quadrants by Owen's function. Source: Owen (1956).
    """

    def dual(d1: np.ndarray, d2: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d1, d2, k = (np.asarray(a, dtype=np.float64) for a in np.broadcast_arrays(d1, d2, k))
        # A variance of zero is the limit of small ones: f(0) = 0, and the slope there is the mean of both sides'.
        d1, d2 = np.maximum(d1, 1e-300), np.maximum(d2, 1e-300)
        s1, s2 = np.sqrt(d1), np.sqrt(d2)
        sizes = s1 * s2
        correlation = np.clip(k / sizes, -1.0, 1.0)
        sine = np.sqrt(np.maximum((sizes - k) * (sizes + k), 0.0)) / sizes
        linear, above = piecewise_linear(0.0, 1.0)(d1, d2, k)

        def tilted(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """E[u+ (exp(v) - 1) 1(v < 0)], and E[1(u > 0) exp(v) 1(v < 0)]; `own` is the scale of u, `other` of v."""
            start, end = -k / own, -other
            beyond = ndtr(end) - _quadrant(start, end, correlation, sine)
            factor = np.exp(other**2 / 2)
            moved = own * _moment(start, end, correlation, sine) + k * beyond
            still = own * _moment(np.zeros_like(k), np.zeros_like(k), correlation, sine)
            return factor * moved - still, factor * beyond

        mixed1, slope1 = tilted(s1, s2)
        mixed2, slope2 = tilted(s2, s1)
        both = np.exp((d1 + d2) / 2 + k) * _quadrant(-(d1 + k) / s1, -(d2 + k) / s2, correlation, sine)
        first = np.exp(d1 / 2) * _quadrant(-s1, -k / s2, correlation, sine)
        second = np.exp(d2 / 2) * _quadrant(-k / s1, -s2, correlation, sine)
        # Both below zero has the probability of both above it, the slopes of relu.
        values = linear + alpha * (mixed1 + mixed2) + alpha**2 * (both - first - second + above)
        slopes = above + alpha * (slope1 + slope2) + alpha**2 * both
        return scale**2 * values, scale**2 * slopes

    return dual


def _quadrant(h: np.ndarray, k: np.ndarray, correlation: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """P(x < h, y < k) of standard normal x and y. Source: Owen (1956), equation 2.1."""
    h, k = h + 0.0, k + 0.0  # no negative zeros: the sign of a slope below is that of the side that it is seen from
    with np.errstate(all="ignore"):
        a, b = (k - correlation * h) / (h * sine), (h - correlation * k) / (k * sine)
        middle = np.sqrt((1 - correlation) / (1 + correlation))
    # 0 / 0: both limits are zero; or x is y, or -y, and both limits are the same point, whose slopes are zero.
    origin = (h == 0) & (k == 0)
    a = np.where(origin, middle, np.where(np.isnan(a), 0.0, a))
    b = np.where(origin, middle, np.where(np.isnan(b), 0.0, b))
    opposite = (h * k < 0) | ((h * k == 0) & (h + k < 0))
    return (ndtr(h) + ndtr(k)) / 2 - owens_t(h, a) - owens_t(k, b) - 0.5 * opposite


def _moment(start: np.ndarray, end: np.ndarray, correlation: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """E[x 1(x > start) 1(y < end)] of standard normal x and y, by Stein's lemma."""
    with np.errstate(all="ignore"):
        below = ndtr(np.nan_to_num((end - correlation * start) / sine, nan=0.0))
        above = ndtr(-np.nan_to_num((start - correlation * end) / sine, nan=0.0))
    return _density(start) * below - correlation * _density(end) * above


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


DUALS: dict[str, Dual] = {
    "identity": identity,
    "relu": piecewise_linear(0.0, 1.0),
    "leakyrelu": piecewise_linear(LEAK, 1.0),
    "abs": piecewise_linear(-1.0, 1.0),
    "erf": erf,
    "sin": sin,
    "gelu_erf": gelu_erf,
    "elu": exponential_linear(1.0, 1.0),
    "selu": exponential_linear(SELU_SCALE, SELU_ALPHA),
    **{name: hermite_dual(name) for name in ("sigmoid", "tanh", "gelu_tanh", "softplus", "swish", "mish")},
}
"""The dual of every activation."""
