"""Small networks with every layer, and random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge.networks.layers import ACTIVATIONS, Layer, shape_after

# Asymmetric kernels, strides and paddings throughout: a swapped axis must not go unseen.
EVERY_LAYER: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "activation": ([ub.Dense(3, 4), ub.Activation("mish"), ub.Dense(4, 2)], (3,)),
    "logsoftmax": ([ub.Dense(3, 4, "tanh"), ub.LogSoftmax()], (3,)),
    "dense on tokens": ([ub.Dense(3, 4, "tanh"), ub.Flatten(), ub.Dense(12, 2)], (3, 3)),
    "conv1d": ([ub.Conv1d(2, 4, 3, "tanh", stride=2, padding=1, dilation=2), ub.Flatten(), ub.Dense(16, 2)], (2, 10)),
    "conv1d groups": ([ub.Conv1d(4, 6, 3, "tanh", groups=2, bias=False), ub.Flatten(), ub.Dense(18, 2)], (4, 5)),
    "conv2d": (
        [
            ub.Conv2d(2, 3, (3, 2), "tanh", stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
            ub.Flatten(),
            ub.Dense(27, 2),
        ],
        (2, 6, 5),
    ),
    "conv2d same": ([ub.Conv2d(2, 3, (3, 1), "swish", padding="same"), ub.Flatten(), ub.Dense(36, 2)], (2, 3, 4)),
    "conv2d one side": (
        [ub.Conv2d(2, 3, 3, "swish", stride=2, padding=((0, 1), (2, 1))), ub.Flatten(), ub.Dense(18, 2)],
        (2, 4, 4),
    ),
    "conv2d depthwise": ([ub.Conv2d(3, 6, (2, 3), "elu", groups=3), ub.Flatten(), ub.Dense(36, 2)], (3, 4, 4)),
    "conv2d wide": ([ub.Conv2d(12, 16, 2, "tanh", stride=2), ub.Flatten(), ub.Dense(64, 2)], (12, 4, 4)),
    "dense wide tokens": ([ub.Dense(16, 24, "tanh"), ub.Flatten(), ub.Dense(48, 2)], (2, 16)),
    "conv2d output alone": ([ub.Conv2d(2, 3, (4, 3)), ub.Flatten()], (2, 4, 3)),
    "maxpool1d": ([ub.MaxPool(3, stride=2, padding=1, dims=1), ub.Flatten(), ub.Dense(8, 2)], (2, 8)),
    "maxpool2d": (
        [ub.Conv2d(1, 2, 2), ub.MaxPool((3, 2), stride=(2, 1), padding=(1, 0)), ub.Flatten(), ub.Dense(24, 2)],
        (1, 6, 6),
    ),
    "meanpool1d": ([ub.MeanPool(2, stride=1, padding=1, dims=1), ub.Flatten(), ub.Dense(12, 2)], (2, 5)),
    "meanpool2d": (
        [ub.Conv2d(1, 2, 2), ub.MeanPool((2, 3), stride=(1, 2), padding=(0, 1)), ub.Flatten(), ub.Dense(8, 2)],
        (1, 4, 5),
    ),
    "globalmeanpool1d": ([ub.Conv1d(2, 3, 2, "tanh"), ub.GlobalMeanPool(), ub.Flatten()], (2, 5)),
    "globalmeanpool2d": ([ub.Conv2d(2, 3, 2, "tanh"), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(3, 2)], (2, 3, 4)),
    "layernorm": ([ub.Dense(3, 4), ub.LayerNorm(4, eps=0.1), ub.Dense(4, 2)], (3,)),
    "layernorm tokens": ([ub.Dense(3, 4), ub.LayerNorm(4), ub.Flatten(), ub.Dense(20, 2)], (5, 3)),
    "layernorm two axes": ([ub.LayerNorm((3, 4)), ub.Flatten(), ub.Dense(24, 2)], (2, 3, 4)),
    "layernorm plain": ([ub.Dense(3, 4), ub.LayerNorm(4, affine=False), ub.Dense(4, 2)], (3,)),
    "groupnorm": ([ub.Conv2d(1, 4, 2), ub.GroupNorm(2, 4, eps=0.01), ub.Flatten(), ub.Dense(24, 2)], (1, 3, 4)),
    "groupnorm 1d plain": ([ub.GroupNorm(1, 4, affine=False), ub.Flatten(), ub.Dense(12, 2)], (4, 3)),
    "batchnorm": (
        [ub.Conv2d(1, 4, 2), ub.BatchNorm(4), ub.Activation("relu"), ub.Flatten(), ub.Dense(24, 2)],
        (1, 3, 4),
    ),
    "batchnorm of vectors": ([ub.Dense(3, 4), ub.BatchNorm(4, eps=0.1), ub.Dense(4, 2)], (3,)),
    "batchnorm plain": ([ub.BatchNorm(2, affine=False), ub.Conv1d(2, 3, 2), ub.Flatten()], (2, 3)),
    "dropout": ([ub.Dense(3, 4, "tanh"), ub.Dropout(0.3), ub.Dense(4, 2)], (3,)),
    "residual": ([ub.Residual([ub.Dense(3, 4, "tanh"), ub.Dense(4, 3)]), ub.Dense(3, 2)], (3,)),
    "residual with shortcut": (
        [
            ub.Residual(
                [ub.Conv2d(1, 2, 3, stride=2, padding=1), ub.BatchNorm(2)],
                [ub.Conv2d(1, 2, 1, stride=2), ub.BatchNorm(2)],
            ),
            ub.Residual([ub.Residual([ub.Conv2d(2, 2, 1, "tanh")])]),
            ub.Flatten(),
        ],
        (1, 4, 3),
    ),
    "positions": ([ub.SinusoidalPositions(), ub.Dense(5, 3, "tanh"), ub.Flatten(), ub.Dense(12, 2)], (4, 5)),
    "learned positions": ([ub.LearnedPositions(6, 3), ub.Dense(3, 3, "tanh"), ub.Take(-2)], (4, 3)),
    "attention": ([ub.SelfAttention(4, 2), ub.Flatten(), ub.Dense(12, 2)], (3, 4)),
    "causal attention": ([ub.SelfAttention(6, 3, causal=True, bias=False), ub.Take(-1), ub.Dense(6, 2)], (4, 6)),
}

TOKENS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "embedding": ([ub.Embedding(7, 3), ub.Dense(3, 2, "tanh"), ub.Flatten()], (4,)),
    "embedding of few tokens": ([ub.Embedding(2, 3), ub.Dense(3, 2, "tanh"), ub.Flatten()], (5,)),
    "transformer": (
        [
            ub.Embedding(7, 4),
            ub.LearnedPositions(5, 4),
            ub.Residual([ub.LayerNorm(4), ub.SelfAttention(4, 2, causal=True)]),
            ub.Residual([ub.LayerNorm(4), ub.Dense(4, 6, "gelu_tanh"), ub.Dense(6, 4)]),
            ub.Take(-1),
            ub.Dense(4, 3),
        ],
        (5,),
    ),
}


def shaken(layers: list[Layer], seed: int = 0, dtype: str = "float64") -> ub.Model:
    """A model in which nothing is zero or one: biases, scales and statistics are random too."""
    model = ub.Model(layers, seed=seed, dtype=dtype)
    generator = np.random.default_rng(seed + 1)
    arrays = {name: value + 0.3 * generator.standard_normal(value.shape) for name, value in model.arrays.items()}
    arrays = {name: np.abs(value) + 0.1 if name.endswith("_var") else value for name, value in arrays.items()}
    return model.with_params({name: value.astype(dtype) for name, value in arrays.items()})


def batch(model: ub.Model, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Random samples of a shape, or random tokens."""
    generator = np.random.default_rng(seed)
    if model.takes_tokens:
        return generator.integers(0, model.params["0.weight"].shape[0], size=(n, *shape))
    return generator.standard_normal((n, *shape)).astype(model.dtype)


def _dilation(draw: st.DrawFn, kernel: tuple[int, ...], space: tuple[int, ...]) -> tuple[int, ...]:
    """1 or 2 along every axis, as far as the kernel still fits."""
    return tuple(draw(st.integers(1, 2 if 2 * (k - 1) < size else 1)) for k, size in zip(kernel, space, strict=True))


@st.composite
def wide_networks(draw: st.DrawFn) -> tuple[ub.Model, tuple[int, ...]]:
    """Convolutions of at least 8 channels with at least 8 x 8 windows.

    There torch convolves whole batches at once, where windows have several places.
    """
    channels, size = draw(st.integers(8, 12)), draw(st.integers(20, 22))
    settings = {
        "stride": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "bias": draw(st.booleans()),
    }
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    layers: list[Layer] = [
        ub.Conv2d(channels, draw(st.integers(1, 9)), kernel, draw(st.sampled_from(["tanh", "relu"])), **settings),
        ub.GlobalMeanPool(),
        ub.Flatten(),
    ]
    if draw(st.booleans()):
        layers.insert(0, ub.Conv2d(channels, channels, 3, "tanh", padding=1))
    (width,) = shape_after(layers, (channels, size, size))
    layers.append(ub.Dense(width, 2, "tanh"))
    return shaken(layers, seed=draw(st.integers(0, 2**16))), (channels, size, size)


@st.composite
def _image_layer(draw: st.DrawFn, shape: tuple[int, ...]) -> Layer:
    channels, dims = shape[0], len(shape) - 1
    small = st.tuples(*(st.integers(1, min(3, size)) for size in shape[1:]))
    kind = draw(st.sampled_from(["conv", "conv", "conv", "max", "mean", "group", "batch", "activation", "residual"]))
    if kind == "conv":
        kernel = draw(small)
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        out = groups * draw(st.integers(1, 3))
        conv: Any = ub.Conv1d if dims == 1 else ub.Conv2d
        settings = {
            "stride": draw(st.tuples(*[st.integers(1, 2)] * dims)),
            "padding": draw(st.tuples(*[st.integers(0, 1)] * dims)),
            "dilation": _dilation(draw, kernel, shape[1:]),
            "groups": groups,
            "bias": draw(st.booleans()),
        }
        return conv(channels, out, kernel, draw(st.sampled_from(list(ACTIVATIONS))), **settings)
    if kind in ("max", "mean"):
        return (ub.MaxPool if kind == "max" else ub.MeanPool)(draw(small), stride=draw(st.integers(1, 2)))
    if kind == "group":
        return ub.GroupNorm(draw(st.sampled_from([1, channels])), channels, eps=0.1, affine=draw(st.booleans()))
    if kind == "batch":
        return ub.BatchNorm(channels, affine=draw(st.booleans()))
    if kind == "residual":
        one: Any = ub.Conv1d if dims == 1 else ub.Conv2d
        return ub.Residual([one(channels, channels, 3, "tanh", padding=1), ub.BatchNorm(channels)])
    return ub.Activation(draw(st.sampled_from(list(ACTIVATIONS))))


@st.composite
def image_networks(draw: st.DrawFn) -> tuple[ub.Model, tuple[int, ...]]:
    """Random chains of convolutions, pools, norms and residual blocks, with a Dense readout, in float64."""
    dims = draw(st.integers(1, 2))
    start = (draw(st.integers(1, 3)), *(draw(st.integers(2, 5)) for _ in range(dims)))
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 4))):
        layers.append(draw(_image_layer(shape_after(layers, start))))
    layers.append(ub.Flatten())
    (width,) = shape_after(layers, start)
    layers.append(ub.Dense(width, draw(st.integers(1, 3))))
    return shaken(layers, seed=draw(st.integers(0, 2**16))), start


@st.composite
def sequence_networks(draw: st.DrawFn) -> tuple[ub.Model, tuple[int, ...]]:
    """Random transformers on tokens or on vectors, in float64."""
    heads = draw(st.integers(1, 2))
    width, tokens = heads * draw(st.integers(1, 3)), draw(st.integers(1, 4))
    with_tokens = draw(st.booleans())
    layers: list[Layer] = (
        [ub.Embedding(draw(st.sampled_from([2, 5, 40])), width)] if with_tokens else [ub.Dense(2, width)]
    )
    layers.append(draw(st.sampled_from([ub.SinusoidalPositions(), ub.LearnedPositions(4, width)])))
    for _ in range(draw(st.integers(1, 2))):
        attention = ub.SelfAttention(width, heads, causal=draw(st.booleans()), bias=draw(st.booleans()))
        layers.append(ub.Residual([ub.LayerNorm(width, eps=0.1), attention]))
        layers.append(ub.Residual([ub.Dense(width, 3, "gelu_erf"), ub.Dense(3, width)]))
    layers += draw(st.sampled_from([[ub.Take(-1)], [ub.Flatten()]]))
    shape = (tokens,) if with_tokens else (tokens, 2)
    return shaken(layers, seed=draw(st.integers(0, 2**16))), shape
