"""Activations and their derivatives, written out by hand for the NumPy engine.

Each entry is a pair (f, f'), both elementwise and dtype-preserving. Formulas: `udlbridge.networks.layers.ACTIVATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf, expit

Function = Callable[[np.ndarray], np.ndarray]

# Klambauer et al. (2017), equation 14: the constants that keep mean 0 and variance 1.
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717
LEAK = 0.01
# Hendrycks and Gimpel (2016): the tanh approximation of x Phi(x).
GELU_SLOPE = float(np.sqrt(2.0 / np.pi))
GELU_CUBIC = 0.044715


def identity(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return z


def d_identity(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.ones_like(z)


def relu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.maximum(z, 0)


def d_relu(z: np.ndarray) -> np.ndarray:
    """1 where z > 0, else 0: the slope at 0 is 0, as in Flux and PyTorch."""
    return (z > 0).astype(z.dtype)


def sigmoid(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.asarray(expit(z))


def d_sigmoid(z: np.ndarray) -> np.ndarray:
    """s (1 - s), with 1 - s taken as sigmoid(-z) so that it keeps its digits for large z."""
    return np.asarray(expit(z) * expit(-z))


def tanh(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.tanh(z)


def d_tanh(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return 1 - np.tanh(z) ** 2


def gelu_tanh(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return z / 2 * (1 + np.tanh(GELU_SLOPE * (z + GELU_CUBIC * z**3)))


def d_gelu_tanh(z: np.ndarray) -> np.ndarray:  # noqa: D103
    t = np.tanh(GELU_SLOPE * (z + GELU_CUBIC * z**3))
    return (1 + t) / 2 + z / 2 * (1 - t**2) * GELU_SLOPE * (1 + 3 * GELU_CUBIC * z**2)


def gelu_erf(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.asarray(z / 2 * (1 + erf(z / np.sqrt(2).astype(z.dtype))))


def d_gelu_erf(z: np.ndarray) -> np.ndarray:
    """Phi(z) + z phi(z), with the normal distribution function and density."""
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi).astype(z.dtype)
    return np.asarray((1 + erf(z / np.sqrt(2).astype(z.dtype))) / 2 + z * density)


def softplus(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.logaddexp(z, np.zeros_like(z))


def swish(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return z * sigmoid(z)


def d_swish(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return sigmoid(z) + z * d_sigmoid(z)


def elu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def d_elu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(z > 0, np.ones_like(z), np.exp(np.minimum(z, 0)))


def leakyrelu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(z > 0, z, LEAK * z)


def d_leakyrelu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.where(z > 0, np.ones_like(z), np.full_like(z, LEAK))


def selu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0)))


def d_selu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return SELU_SCALE * np.where(z > 0, np.ones_like(z), SELU_ALPHA * np.exp(np.minimum(z, 0)))


def mish(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return z * np.tanh(softplus(z))


def d_mish(z: np.ndarray) -> np.ndarray:  # noqa: D103
    t = np.tanh(softplus(z))
    return t + z * (1 - t**2) * sigmoid(z)


def d_abs(z: np.ndarray) -> np.ndarray:
    """The sign of z: the slope at 0 is 0, as in Flux and PyTorch."""
    return np.sign(z)


def d_erf(z: np.ndarray) -> np.ndarray:
    """2 / sqrt(pi) exp(-z^2)."""
    return 2 / np.sqrt(np.pi).astype(z.dtype) * np.exp(-(z**2))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "identity": (identity, d_identity),
    "relu": (relu, d_relu),
    "sigmoid": (sigmoid, d_sigmoid),
    "tanh": (tanh, d_tanh),
    "gelu_tanh": (gelu_tanh, d_gelu_tanh),
    "gelu_erf": (gelu_erf, d_gelu_erf),
    "softplus": (softplus, sigmoid),
    "swish": (swish, d_swish),
    "elu": (elu, d_elu),
    "leakyrelu": (leakyrelu, d_leakyrelu),
    "selu": (selu, d_selu),
    "mish": (mish, d_mish),
    "abs": (np.abs, d_abs),
    "erf": (erf, d_erf),
    "sin": (np.sin, np.cos),
}
"""Name of every activation, the function and its derivative."""
