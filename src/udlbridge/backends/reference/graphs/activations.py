"""Activations: each with its derivative, both elementwise."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from udlbridge.backends.reference import activations as layers
from udlbridge.backends.reference.graphs.arithmetic import clamp
from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, slope_rule, unbroadcast


def elu(a: Attributes, x: np.ndarray) -> np.ndarray:
    """Where x <= 0, alpha (exp(x / scale) - 1); the larger x are kept away from exp, which they would overflow."""
    return np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0) / a["scale"]))


def d_elu(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(x > 0, 1, a["alpha"] / a["scale"] * np.exp(np.minimum(x, 0) / a["scale"])).astype(x.dtype)


def softplus(a: Attributes, x: np.ndarray) -> np.ndarray:
    """log(1 + exp(beta x)) / beta, and x above the threshold."""
    return np.where(a["beta"] * x > a["threshold"], x, np.logaddexp(0, a["beta"] * x) / a["beta"])


def d_softplus(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(a["beta"] * x > a["threshold"], 1, expit(a["beta"] * x)).astype(x.dtype)


def between(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """1 inside, 0 at the bounds and outside."""
    return ((x > low) & (x < high)).astype(x.dtype)


def hardswish(a: Attributes, x: np.ndarray) -> np.ndarray:  # noqa: D103
    return x * np.minimum(np.maximum(x + 3, 0), 6) / 6


def d_hardswish(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x/3 + 1/2 from -3 to 3; 0 below, 1 above."""
    return np.where(x < -3, 0, np.where(x <= 3, x / 3 + 0.5, 1)).astype(x.dtype)


def prelu_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """The slopes get x where it is not above 0."""
    x, w = xs
    return [np.where(x > 0, dy, w * dy), unbroadcast(np.where(x > 0, 0, x * dy), w.shape)]


RULES: dict[str, Rule] = {
    "relu": slope_rule(lambda a, x: np.maximum(x, 0), lambda a, x, y: (x > 0).astype(x.dtype)),
    "leaky_relu": slope_rule(
        lambda a, x: np.where(x > 0, x, a["slope"] * x),
        lambda a, x, y: np.where(x > 0, 1, a["slope"]).astype(x.dtype),
    ),
    "prelu": Rule(
        lambda a, n, xs: np.where(xs[0] > 0, xs[0], xs[1] * xs[0]),
        prelu_backward,
        lambda a, xs, y, dxs: np.where(xs[0] > 0, dxs[0], xs[1] * dxs[0] + xs[0] * dxs[1]),
    ),
    "elu": slope_rule(elu, d_elu),
    "selu": slope_rule(lambda a, x: layers.selu(x), lambda a, x, y: layers.d_selu(x)),
    "gelu": slope_rule(
        lambda a, x: layers.gelu_erf(x) if a["form"] == "erf" else layers.gelu_tanh(x),
        lambda a, x, y: layers.d_gelu_erf(x) if a["form"] == "erf" else layers.d_gelu_tanh(x),
    ),
    "sigmoid": slope_rule(lambda a, x: layers.sigmoid(x), lambda a, x, y: layers.d_sigmoid(x)),
    "logsigmoid": slope_rule(lambda a, x: -np.logaddexp(0, -x), lambda a, x, y: np.asarray(expit(-x))),
    "tanh": slope_rule(lambda a, x: np.tanh(x), lambda a, x, y: 1 - y**2),
    "silu": slope_rule(lambda a, x: x * expit(x), lambda a, x, y: np.asarray(expit(x) + x * expit(x) * expit(-x))),
    "mish": slope_rule(lambda a, x: layers.mish(x), lambda a, x, y: layers.d_mish(x)),
    "softplus": slope_rule(softplus, d_softplus),
    "softsign": slope_rule(lambda a, x: x / (1 + np.abs(x)), lambda a, x, y: 1 / (1 + np.abs(x)) ** 2),
    "hardtanh": slope_rule(clamp, lambda a, x, y: between(a["low"], a["high"], x)),
    "hardsigmoid": slope_rule(
        lambda a, x: np.minimum(np.maximum(x + 3, 0), 6) / 6, lambda a, x, y: between(-3, 3, x) / 6
    ),
    "hardswish": slope_rule(hardswish, d_hardswish),
}
"""By operation."""
