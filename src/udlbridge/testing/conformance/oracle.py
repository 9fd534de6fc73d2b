"""What an engine is held against: networks written out from their formulas, and derivatives by the complex step.

Nothing here is fast, and no engine uses it. A function of real numbers that is written in operations which take complex
ones too has the derivative Im f(x + i h) / h, which loses nothing to cancellation: with h = 1e-20 it is exact to
rounding. So the same few lines give values and derivatives, and they can be held against the error budget.

Source: Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy.special import erf

from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    LogSoftmax,
    MaxPool,
    MeanPool,
    Residual,
    SelfAttention,
    SinusoidalPositions,
    Softmax,
    Take,
)
from udlbridge.networks.model import Model
from udlbridge.texts import kind_of

Arrays = Mapping[str, np.ndarray]

STEP = 1e-20
"""Of the complex step: its square vanishes against 1, and it is far from underflow."""


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-z))


def softplus(z: np.ndarray) -> np.ndarray:
    """log(1 + exp(z))."""
    return np.log(1 + np.exp(z))


def above(z: np.ndarray, then: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """`then` where z > 0, else `otherwise`; which branch a number takes is a matter of its real part."""
    return np.where(z.real > 0, then, otherwise)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda z: z,
    "relu": lambda z: above(z, z, 0 * z),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "gelu_tanh": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "gelu_erf": lambda z: z / 2 * (1 + erf(z / np.sqrt(2))),
    "softplus": softplus,
    "swish": lambda z: z * sigmoid(z),
    "elu": lambda z: above(z, z, np.exp(z) - 1),
    "leakyrelu": lambda z: above(z, z, 0.01 * z),
    "selu": lambda z: 1.0507009873554805 * above(z, z, 1.6732632423543772 * (np.exp(z) - 1)),
    "mish": lambda z: z * np.tanh(softplus(z)),
    "abs": lambda z: above(z, z, -z),
    "erf": erf,
    "sin": np.sin,
}


def softmax(z: np.ndarray) -> np.ndarray:
    """exp(z_a) / sum_b exp(z_b) along the last axis."""
    e = np.exp(z - z.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def standardised(z: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """(z - mean) / sqrt(variance + eps) over the axes."""
    gap = z - z.mean(axis=axes, keepdims=True)
    return gap / np.sqrt((gap**2).mean(axis=axes, keepdims=True) + eps)


def scaled(arrays: Arrays, z: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """weight z + bias, where there are these two, spread to `shape`."""
    if "weight" not in arrays:
        return z
    return arrays["weight"].reshape(shape) * z + arrays["bias"].reshape(shape)


def windows(layer: Any, x: np.ndarray, filling: float) -> np.ndarray:
    """x (n, C, *space) as (n, C, *windows, *kernel): entry u of window t is the padded x at s t + d u."""
    space = x.ndim - 2
    dilations = getattr(layer, "dilations", (1,) * space)
    padded = np.pad(x, [(0, 0), (0, 0), *layer.sides], constant_values=filling)
    counts = layer.output_shape(x.shape[1:])[1:]
    result = np.empty((*x.shape[:2], *counts, *layer.kernel), dtype=x.dtype)
    for t in product(*map(range, counts)):
        everywhere: tuple[Any, ...] = (slice(None), slice(None))
        inside = tuple(
            slice(s * a, s * a + d * (k - 1) + 1, d)
            for s, a, d, k in zip(layer.strides, t, dilations, layer.kernel, strict=True)
        )
        result[(*everywhere, *t)] = padded[(*everywhere, *inside)]
    return result


def convolution(layer: Conv1d | Conv2d, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """z[o, t] = b[o] + sum_{c, u} W[o, c, u] x[c, s t + d u - p], in each group of channels for itself."""
    cut = windows(layer, x, 0.0)
    kernel = tuple(range(cut.ndim - len(layer.kernel), cut.ndim))
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    parts = []
    for g in range(layer.groups):
        w = arrays["weight"][g * outputs : (g + 1) * outputs]
        own = cut[:, g * inputs : (g + 1) * inputs]
        parts.append(np.moveaxis(np.tensordot(own, w, axes=((1, *kernel), tuple(range(1, w.ndim)))), -1, 1))
    z = np.concatenate(parts, axis=1)
    return z + arrays["bias"].reshape(-1, *[1] * len(layer.kernel)) if layer.bias else z


def max_pool(layer: MaxPool, x: np.ndarray) -> np.ndarray:
    """The largest of every window, the first of equals."""
    cut = windows(layer, x, -1e300)
    flat = cut.reshape(*cut.shape[: -len(layer.kernel)], -1)
    return np.take_along_axis(flat, flat.real.argmax(axis=-1)[..., None], axis=-1)[..., 0]


def sinusoids(tokens: int, features: int) -> np.ndarray:
    """table[t, 2i] = sin(t / 10000^(2i/E)), and the cosine of the same at 2i + 1."""
    table = np.empty((tokens, features))
    for t, e in product(range(tokens), range(features)):
        angle = t / 10000 ** ((e - e % 2) / features)
        table[t, e] = np.cos(angle) if e % 2 else np.sin(angle)
    return table


def attention(layer: SelfAttention, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """W_o [head_1 ... head_H] + b_o, head_h = softmax(q_h k_h' / sqrt(E/H)) v_h, head by head."""
    e, width = layer.embed_dim, layer.embed_dim // layer.num_heads
    z = x @ arrays["in_proj_weight"].T + (arrays["in_proj_bias"] if layer.bias else 0)
    seen = np.tril(np.ones((x.shape[1], x.shape[1]), dtype=bool)) if layer.causal else True
    heads = []
    for h in range(layer.num_heads):
        q, k, v = (z[..., start + h * width : start + (h + 1) * width] for start in (0, e, 2 * e))
        heads.append(softmax(np.where(seen, q @ k.swapaxes(1, 2) / np.sqrt(width), -1e300)) @ v)
    y = np.concatenate(heads, axis=-1) @ arrays["out_proj.weight"].T
    return y + arrays["out_proj.bias"] if layer.bias else y


def preactivation(layer: Dense | Conv1d | Conv2d, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """z of y = activation(z)."""
    if not isinstance(layer, Dense):
        return convolution(layer, arrays, x)
    return x @ arrays["weight"].T + (arrays["bias"] if layer.bias else 0)


def inside(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with the prefix and a dot, without both."""
    return {name.removeprefix(f"{prefix}."): a for name, a in arrays.items() if name.startswith(f"{prefix}.")}


def channels(x: np.ndarray) -> tuple[int, ...]:
    """The shape that spreads one number a channel over x (n, C, *space)."""
    return (-1, *[1] * (x.ndim - 2))


def apply(layer: Layer, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """One layer, from the formula in its docstring: (n, *in) -> (n, *out).

    Raises:
        TypeError: a layer without a formula.
    """
    match layer:
        case Dense() | Conv1d() | Conv2d():
            return ACTIVATIONS[layer.activation](preactivation(layer, arrays, x))
        case Activation():
            return ACTIVATIONS[layer.activation](x)
        case Softmax():
            return softmax(x)
        case LogSoftmax():
            return np.log(softmax(x))
        case Flatten():
            return x.reshape(len(x), -1)
        case Dropout():
            return x
        case MaxPool():
            return max_pool(layer, x)
        case MeanPool():
            return windows(layer, x, 0.0).mean(axis=tuple(range(-len(layer.kernel), 0)))
        case GlobalMeanPool():
            return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
        case LayerNorm():
            axes = tuple(range(x.ndim - len(layer.shape), x.ndim))
            return scaled(arrays, standardised(x, axes, layer.eps), layer.shape)
        case GroupNorm():
            groups = x.reshape(len(x), layer.num_groups, -1)
            return scaled(arrays, standardised(groups, (2,), layer.eps).reshape(x.shape), channels(x))
        case BatchNorm():
            mean, variance = (arrays[name].reshape(channels(x)) for name in ("running_mean", "running_var"))
            return scaled(arrays, (x - mean) / np.sqrt(variance + layer.eps), channels(x))
        case Embedding():
            return arrays["weight"][x]
        case SinusoidalPositions():
            return x + sinusoids(*x.shape[1:])
        case LearnedPositions():
            return x + arrays["weight"][: x.shape[1]]
        case SelfAttention():
            return attention(layer, arrays, x)
        case Take():
            return x[:, layer.index]
        case Residual():
            return chain(layer.layers, arrays, x) + chain(layer.shortcut, inside(arrays, "shortcut"), x)
    raise TypeError(f"no formula for {kind_of(layer)}")


def chain(layers: Sequence[Layer], arrays: Arrays, x: np.ndarray, start: int = 0) -> np.ndarray:
    """The layers from number `start` on, one after the other."""
    for index, layer in enumerate(layers[start:], start):
        x = apply(layer, inside(arrays, str(index)), x)
    return x


def value(model: Model, x: np.ndarray, params: Arrays | None = None) -> np.ndarray:
    """f(x), (n, *out), with other parameters than the model's if they are given; in float64, or complex."""
    return chain(model.layers, {**model.arrays, **(params or {})}, x)


def derivative(f: Callable[[np.ndarray], Any], at: np.ndarray) -> np.ndarray:
    """d f / d `at`, (*f, *at), one complex step for each entry of `at`."""
    steps = []
    for index in np.ndindex(at.shape):
        moved = at.astype(complex)
        moved[index] += 1j * STEP
        steps.append(np.imag(f(moved)) / STEP)
    return np.stack(steps, axis=-1).reshape(*np.shape(steps[0]), *at.shape)


def jacobian(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """d f_a(x_i) / d parameter, (n, O, *parameter shape) by name."""
    return {
        name: derivative(lambda p, name=name: value(model, x, {name: p}), array)  # type: ignore[misc]
        for name, array in model.params.items()
    }


def by_input(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """d f(x_i) / d x_i for an f that treats samples apart: (n, *out, *D), all samples at once."""
    zero = np.zeros(x.shape[1:])
    return derivative(lambda move: f(x + move), zero)


def hessian(model: Model, x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """d2 f_a(x_i) / d x_i d x_i, (n, O, D, D): a central difference of fourth order over complex steps.

    Its error is about h^4 / 30 times the sixth derivative, and rounding over h: 1e-12 for functions of size 1.
    """
    shape, flat = x.shape[1:], x.reshape(len(x), -1)
    columns = []
    for j in range(flat.shape[1]):
        move = h * np.eye(flat.shape[1])[j]
        at = {k: by_input(lambda z: value(model, z.reshape(-1, *shape)), flat + k * move) for k in (-2, -1, 1, 2)}
        columns.append((8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h))
    return np.stack(columns, axis=-1)
