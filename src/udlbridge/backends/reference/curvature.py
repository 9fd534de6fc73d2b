"""Second derivatives of the outputs with respect to the inputs, carried forward layer by layer, by hand.

Along with the value y of every unit go its first derivatives J = dy/dx and second derivatives H = d2y/dx dx, x being
the input of the network (all its entries in one axis of length D). An affine map acts on J and H as on y, without bias.
A function y_a(z) adds the curvature of its own: H_a = sum_b y_a,b H_b + sum_bc y_a,bc J_b J_c'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np
from scipy.special import expit

from udlbridge.backends.reference.activations import (
    ACTIVATIONS,
    GELU_CUBIC,
    GELU_SLOPE,
    SELU_ALPHA,
    SELU_SCALE,
    Function,
    d_erf,
    softplus,
)
from udlbridge.backends.reference.backpropagation import RULES as PASSES
from udlbridge.backends.reference.backpropagation import own
from udlbridge.errors import LayerError
from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalMeanPool,
    Layer,
    LearnedPositions,
    LogSoftmax,
    MeanPool,
    Residual,
    SinusoidalPositions,
    Softmax,
    Take,
)
from udlbridge.networks.model import Model


def zero(z: np.ndarray) -> np.ndarray:
    """Piecewise linear functions have no curvature, at a kink neither, as `udlbridge.input_hessian` says."""
    return np.zeros_like(z)


def dd_sigmoid(z: np.ndarray) -> np.ndarray:
    """s (1 - s) (1 - 2 s), with 1 - 2 s = -tanh(z / 2)."""
    return np.asarray(-expit(z) * expit(-z) * np.tanh(z / 2))


def dd_tanh(z: np.ndarray) -> np.ndarray:  # noqa: D103
    t = np.tanh(z)
    return -2 * t * (1 - t**2)


def dd_softplus(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return np.asarray(expit(z) * expit(-z))


def dd_swish(z: np.ndarray) -> np.ndarray:
    """2 s' + z s''."""
    return 2 * dd_softplus(z) + z * dd_sigmoid(z)


def dd_gelu_tanh(z: np.ndarray) -> np.ndarray:
    """With u = g (z + c z^3) and t = tanh u: t' + z t'' / 2.

    Here t' = (1 - t^2) u' and t'' = (1 - t^2) (u'' - 2 t u'^2).
    """
    t = np.tanh(GELU_SLOPE * (z + GELU_CUBIC * z**3))
    u1 = GELU_SLOPE * (1 + 3 * GELU_CUBIC * z**2)
    u2 = GELU_SLOPE * 6 * GELU_CUBIC * z
    return (1 - t**2) * (u1 + z / 2 * (u2 - 2 * t * u1**2))


def dd_gelu_erf(z: np.ndarray) -> np.ndarray:
    """(2 - z^2) phi(z), with the normal density."""
    return (2 - z**2) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi).astype(z.dtype)


def dd_elu(z: np.ndarray) -> np.ndarray:
    """Exponential below 0; at the kink 0, as above it."""
    return np.where(z < 0, np.exp(np.minimum(z, 0)), np.zeros_like(z))


def dd_selu(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return SELU_SCALE * SELU_ALPHA * dd_elu(z)


def dd_mish(z: np.ndarray) -> np.ndarray:
    """With t = tanh(softplus z) and s = sigmoid z: 2 t' + z t'', t' = (1 - t^2) s, t'' = (1 - t^2) (s' - 2 t s^2)."""
    t, s = np.tanh(softplus(z)), expit(z)
    return np.asarray((1 - t**2) * (2 * s + z * (dd_softplus(z) - 2 * t * s**2)))


def dd_erf(z: np.ndarray) -> np.ndarray:
    """-2 z times the first derivative."""
    return -2 * z * d_erf(z)


def dd_sin(z: np.ndarray) -> np.ndarray:  # noqa: D103
    return -np.sin(z)


SECOND_DERIVATIVES: dict[str, Function] = {
    "identity": zero,
    "relu": zero,
    "sigmoid": dd_sigmoid,
    "tanh": dd_tanh,
    "gelu_tanh": dd_gelu_tanh,
    "gelu_erf": dd_gelu_erf,
    "softplus": dd_softplus,
    "swish": dd_swish,
    "elu": dd_elu,
    "leakyrelu": zero,
    "selu": dd_selu,
    "mish": dd_mish,
    "abs": zero,
    "erf": dd_erf,
    "sin": dd_sin,
}
"""The second derivative of every activation."""


class Jet(NamedTuple):
    """Values (n, *shape), first derivatives (n, *shape, D) and second ones (n, *shape, D, D)."""

    y: np.ndarray
    j: np.ndarray
    h: np.ndarray


Arrays = Mapping[str, np.ndarray]

OFFSETS = ("bias", "running_mean")
"""Parameters that move the output of an affine layer but not its derivatives."""


def elementwise(activation: str, jet: Jet) -> Jet:
    """J_y = f' J_z and H_y = f' H_z + f'' J_z J_z'."""
    value, slope = ACTIVATIONS[activation]
    first, second = slope(jet.y)[..., None], SECOND_DERIVATIVES[activation](jet.y)[..., None, None]
    return Jet(
        value(jet.y), first * jet.j, first[..., None] * jet.h + second * jet.j[..., :, None] * jet.j[..., None, :]
    )


def affine_jet(layer: Layer, arrays: Arrays, jet: Jet) -> Jet:
    """A layer that is affine but for an activation: J and H pass like a batch of samples, without offsets."""
    activation = getattr(layer, "activation", None)
    changes: dict[str, Any] = {} if activation is None else {"activation": "identity"}
    layer = attrs.evolve(layer, **changes)
    without = {name: np.zeros_like(a) if name in OFFSETS else a for name, a in arrays.items()}

    def run(values: Arrays, x: np.ndarray) -> np.ndarray:
        result, _ = PASSES[type(layer)].forward(layer, dict(values), x)
        return result

    def along(derivatives: np.ndarray, orders: int) -> np.ndarray:
        """The linear part on (n, *shape, D...): the axes of derivatives stand beside the samples for a while."""
        axes = derivatives.shape[derivatives.ndim - orders :]
        moved = np.moveaxis(derivatives, range(-orders, 0), range(1, orders + 1))
        passed = run(without, moved.reshape(-1, *moved.shape[orders + 1 :]))
        passed = passed.reshape(len(derivatives), *axes, *passed.shape[1:])
        return np.moveaxis(passed, range(1, orders + 1), range(-orders, 0))

    z = Jet(run(arrays, jet.y), along(jet.j, 1), along(jet.h, 2))
    return z if activation is None else elementwise(activation, z)


def offset_jet(layer: Layer, arrays: Arrays, jet: Jet) -> Jet:
    """A fixed offset changes the values alone."""
    return jet._replace(y=PASSES[type(layer)].forward(layer, dict(arrays), jet.y)[0])


def logsoftmax_jet(layer: Layer, arrays: Arrays, jet: Jet) -> Jet:
    """With y = softmax(z): J - <y, J> and H - <y, H> - sum_b y_b J_b J_b' + <y, J> <y, J>'."""
    r, y = PASSES[LogSoftmax].forward(LogSoftmax(), {}, jet.y)
    mean_j = np.einsum("n...o,n...od->n...d", y, jet.j)[..., None, :]
    mean_h = np.einsum("n...o,n...ode->n...de", y, jet.h)[..., None, :, :]
    squares = np.einsum("n...o,n...od,n...oe->n...de", y, jet.j, jet.j)[..., None, :, :]
    return Jet(r, jet.j - mean_j, jet.h - mean_h - squares + mean_j[..., :, None] * mean_j[..., None, :])


def softmax_jet(layer: Layer, arrays: Arrays, jet: Jet) -> Jet:
    """y = exp(r) of the logarithm r: J_y = y J_r and H_y = y (H_r + J_r J_r')."""
    r, j, h = logsoftmax_jet(layer, arrays, jet)
    y = np.exp(r)
    return Jet(y, y[..., None] * j, y[..., None, None] * (h + j[..., :, None] * j[..., None, :]))


def residual_jet(layer: Residual, arrays: Arrays, jet: Jet) -> Jet:
    """The sum of both branches."""
    main = chain_jet(layer.layers, arrays, jet, "a residual block's ")
    side = chain_jet(layer.shortcut, own(arrays, "shortcut"), jet, "a shortcut's ")
    return Jet(*(a + b for a, b in zip(main, side, strict=True)))


RULES: dict[type[Layer], Callable[[Any, Arrays, Jet], Jet]] = {
    **dict.fromkeys((Dense, Conv1d, Conv2d, MeanPool, GlobalMeanPool, BatchNorm, Flatten, Dropout, Take), affine_jet),
    SinusoidalPositions: offset_jet,
    LearnedPositions: offset_jet,
    Activation: lambda layer, arrays, jet: elementwise(layer.activation, jet),
    Softmax: softmax_jet,
    LogSoftmax: logsoftmax_jet,
    Residual: residual_jet,
}
"""How second derivatives pass each class of layer."""


def chain_jet(layers: Sequence[Layer], arrays: Arrays, jet: Jet, where: str = "") -> Jet:
    """Through a chain of layers.

    Raises:
        LayerError: a layer without a rule for second derivatives here.
    """
    for index, layer in enumerate(layers):
        rule = RULES.get(type(layer))
        if rule is None:
            raise LayerError(
                f"the reference engine has no second derivatives for {where}layer {index}, {layer.kind}",
                allowed=", ".join(cls.kind for cls in RULES),
                remedy='use backend="torch" or backend="julia"',
            )
        jet = rule(layer, own(arrays, str(index)), jet)
    return jet


def input_hessian(model: Model, x: np.ndarray) -> np.ndarray:
    """d2 f_a(x_i) / d x_i d x_i, (n, O, D, D) with the entries of a sample in one axis. Raises as `chain_jet`."""
    n, size = len(x), x[0].size
    unit = np.eye(size, dtype=x.dtype).reshape(*x.shape[1:], size)
    start = Jet(x, np.broadcast_to(unit, (n, *unit.shape)), np.zeros((*x.shape, size, size), dtype=x.dtype))
    return chain_jet(model.layers, model.arrays, start).h
