"""The networks that an engine is tried on: small ones, which together have every layer and every activation."""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np

from udlbridge.networks.layers import (
    ACTIVATIONS,
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
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model
from udlbridge.words import DtypeWord

# Kernels, strides and paddings differ between axes: a swapped axis must not go unseen.
LAYERS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "dense": ([Dense(3, 4, "tanh"), Dropout(0.3), Dense(4, 3, "sigmoid")], (3,)),
    "dense on tokens": ([Dense(3, 4, "swish", bias=False), LayerNorm(4), Flatten(), Dense(8, 2)], (2, 3)),
    "softmax": (
        [Dense(3, 4), LayerNorm(4, eps=0.1, affine=False), Activation("mish"), Softmax(), Dense(4, 2), LogSoftmax()],
        (3,),
    ),
    "conv1d": (
        [
            Conv1d(2, 4, 3, "tanh", stride=2, padding=((2, 0),), dilation=2),
            MeanPool(2, 1, 1, dims=1),
            Flatten(),
            Dense(20, 2),
        ],
        (2, 9),
    ),
    "conv1d in groups": (
        [Conv1d(4, 6, 3, "elu", groups=2, bias=False), MaxPool(3, 2, 1, dims=1), GlobalMeanPool(), Flatten()],
        (4, 7),
    ),
    "conv2d": (
        [
            Conv2d(2, 3, (3, 2), "softplus", stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
            BatchNorm(3),
            MeanPool((2, 1), (1, 2), (1, 0)),
            Flatten(),
            Dense(24, 2),
        ],
        (2, 6, 5),
    ),
    "conv2d of every window": (
        [Conv2d(1, 4, (2, 3), "gelu_tanh"), GroupNorm(2, 4, eps=0.01), MaxPool((2, 1), padding=(1, 0)), Flatten()],
        (1, 4, 4),
    ),
    "conv2d in groups": (
        [GroupNorm(1, 2, affine=False), Conv2d(2, 4, (1, 3), "gelu_erf", padding=(1, 1), groups=2), Flatten()],
        (2, 2, 2),
    ),
    "residual": (
        [
            Residual([Conv2d(1, 2, 3, stride=2, padding=1), BatchNorm(2, affine=False)], [Conv2d(1, 2, 1, stride=2)]),
            Residual([Residual([Conv2d(2, 2, 1, "tanh")])]),
            Flatten(),
            Dense(8, 2),
        ],
        (1, 4, 3),
    ),
    "attention": ([SinusoidalPositions(), SelfAttention(4, 2), Flatten(), Dense(12, 2)], (3, 4)),
    "transformer": (
        [
            Embedding(5, 4),
            LearnedPositions(5, 4),
            Residual([LayerNorm(4), SelfAttention(4, 2, causal=True, bias=False)]),
            Residual([LayerNorm(4), Dense(4, 5, "selu"), Dense(5, 4)]),
            Take(-1),
            Dense(4, 3),
        ],
        (4,),
    ),
    "few tokens": ([Embedding(2, 3), Dense(3, 2, "leakyrelu"), Flatten()], (5,)),
}
"""Layers and the shape of one sample, by a name."""

TWICE = ("dense", "residual")
"""Those whose second derivatives are asked for: smooth everywhere, of layers that every engine differentiates twice."""

SMALL = "dense"
"""The one for everything that does not depend on the layers."""


@cache
def network(name: str, dtype: DtypeWord = "float64") -> Model:
    """A network in which nothing is zero or one: biases, scales and statistics are random too."""
    generator = np.random.default_rng(3)
    model = Model(LAYERS[name][0], seed=2, dtype="float64")
    arrays = {key: array + 0.3 * generator.standard_normal(array.shape) for key, array in model.arrays.items()}
    arrays = {key: np.abs(array) + 0.1 if key.endswith("_var") else array for key, array in arrays.items()}
    return model.with_params(arrays).astype(dtype)


def batch(name: str, n: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    """Random samples for that network: normal numbers, or tokens."""
    layers, shape = LAYERS[name]
    generator = np.random.default_rng(seed)
    if isinstance(layers[0], Embedding):
        return generator.integers(0, layers[0].num_embeddings, size=(n, *shape))
    return generator.standard_normal((n, *shape)).astype(dtype)


def activations() -> dict[str, Model]:
    """A network for every activation, by its name."""
    layers: dict[str, list[Layer]] = {
        name: [Dense(3, 4, cast(ActivationWord, name)), Dense(4, 2)] for name in ACTIVATIONS
    }
    return {name: Model(chain, seed=4, dtype="float64") for name, chain in layers.items()}
