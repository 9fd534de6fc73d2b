"""The networks of the source notebooks, and small ones of three kinds, by name.

Each function takes a `seed` and a `dtype` as `Model` does, and raises the same errors for them.

Examples:
    >>> ub.models.three_layer_sigmoid().n_params
    51370
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from udlbridge.errors import OptionError
from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv2d,
    Dense,
    Embedding,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    MaxPool,
    Residual,
    SelfAttention,
    Softmax,
    Take,
)
from udlbridge.networks.model import Model
from udlbridge.options import brief
from udlbridge.texts import completion, nearest
from udlbridge.words import DtypeWord

__all__ = [
    "BY_NAME",
    "NOTEBOOK_POINTS",
    "gpt2",
    "hidden_relu",
    "lenet5",
    "notebook_method1",
    "small_resnet",
    "small_transformer",
    "three_layer_sigmoid",
]
__dir__ = completion(__all__)


if not TYPE_CHECKING:  # type checkers know what there is

    def __getattr__(name: str) -> Any:
        """A network that is not here, with those that are.

        Raises:
            AttributeError: always.
        """
        known = [made for made in __all__ if made.islower()]
        raise AttributeError(f"there is no network called {name!r}; there are {', '.join(known)}{nearest(name, known)}")


NOTEBOOK_POINTS = np.array([[0.5852378, 0.62436277], [0.0976659, 0.55464536]], dtype=np.float32)
"""The two fixed data points of the notebook's first method, (2, 2)."""


def three_layer_sigmoid(seed: int = 0, dtype: DtypeWord = "float32") -> Model:
    """The Flux notebook's `model_3LS`: 784-60-60-10, a sigmoid on every layer, then softmax. P = 51,370."""
    layers = [Dense(784, 60, "sigmoid"), Dense(60, 60, "sigmoid"), Dense(60, 10, "sigmoid"), Softmax()]
    return Model(layers, seed=seed, dtype=dtype)


def notebook_method1(seed: int = 0, dtype: DtypeWord = "float32") -> Model:
    """The Flux notebook's fixed network: 2-2-1, linear, every weight and bias one, whatever the seed. P = 9."""
    model = Model([Dense(2, 2), Dense(2, 1)], seed=seed, dtype=dtype)
    return model.with_params({name: np.ones_like(value) for name, value in model.params.items()})


def hidden_relu(width: int = 2000, n_classes: int = 2, seed: int = 0, dtype: DtypeWord = "float32") -> Model:
    """The alignment notebook's network: 784 - `width` ReLU - `n_classes`, linear readout."""
    return Model([Dense(784, width, "relu"), Dense(width, n_classes)], seed=seed, dtype=dtype)


def lenet5(seed: int = 0, dtype: DtypeWord = "float32") -> Model:
    """LeNet-5 for samples (1, 28, 28), with tanh, max pooling and a linear readout of 10. P = 61,706.

    Source: LeCun, Bottou, Bengio, Haffner (1998), section II.B, in the common form without its partial connections.
    """
    layers: list[Layer] = [
        *(Conv2d(1, 6, 5, "tanh", padding=2), MaxPool(2)),
        *(Conv2d(6, 16, 5, "tanh"), MaxPool(2), Flatten()),
        *(Dense(400, 120, "tanh"), Dense(120, 84, "tanh"), Dense(84, 10)),
    ]
    return Model(layers, seed=seed, dtype=dtype)


def small_resnet(norm: str = "group", blocks: int = 1, seed: int = 0, dtype: DtypeWord = "float32") -> Model:
    """A residual network for samples (3, 32, 32): three stages of 16, 32 and 64 channels, and a readout of 10.

    Args:
        norm: "group" for GroupNorm in groups of 8 channels, "batch" for BatchNorm with inference statistics.
        blocks: residual blocks per stage; 1 gives 8 layers with weights on the main path.
        seed: for the weights.
        dtype: "float32" or "float64".

    Raises:
        OptionError: another norm.

    Source: He, Zhang, Ren, Sun (2016), section 4.2, with projections where the shape changes.
    """
    if norm not in ("group", "batch"):
        raise OptionError(f"norm={brief(norm)}", allowed="group, batch", remedy="choose one")

    def normalised(channels: int) -> Layer:
        return GroupNorm(channels // 8, channels) if norm == "group" else BatchNorm(channels)

    layers: list[Layer] = [Conv2d(3, 16, 3, padding=1, bias=False), normalised(16), Activation("relu")]
    before = 16
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            main = [
                *(Conv2d(before, channels, 3, stride=stride, padding=1, bias=False), normalised(channels)),
                Activation("relu"),
                *(Conv2d(channels, channels, 3, padding=1, bias=False), normalised(channels)),
            ]
            change = [Conv2d(before, channels, 1, stride=stride, bias=False), normalised(channels)]
            layers += [Residual(main, change if before != channels else []), Activation("relu")]
            before = channels
    layers += [GlobalMeanPool(), Flatten(), Dense(64, 10)]
    return Model(layers, seed=seed, dtype=dtype)


def small_transformer(
    vocabulary: int = 50, length: int = 16, width: int = 32, heads: int = 4, seed: int = 0, dtype: DtypeWord = "float32"
) -> Model:
    """A causal transformer of two blocks on tokens (length,), with the logits of the next token as outputs.

    The norms come before attention and before the two Dense layers of each block. Sources: Vaswani et al. (2017);
    Xiong et al. (2020) for the place of the norms.
    """
    layers = _causal_blocks(vocabulary, length, width, heads, blocks=2, inner=4 * width)
    return Model([*layers, Take(-1), Dense(width, vocabulary)], seed=seed, dtype=dtype)


def gpt2(
    vocabulary: int = 50257,
    length: int = 1024,
    width: int = 768,
    heads: int = 12,
    blocks: int = 12,
    inner: int | None = None,
    seed: int = 0,
    dtype: DtypeWord = "float32",
) -> Model:
    """GPT-2 in its small size, on tokens (T,), T at most `length`, with the logits of the next token as outputs.

    Its readout has no bias, and its weights of its own, where GPT-2's are those of the table of tokens. The weights are
    random; `udlbridge.from_gpt2` takes over those of a trained one. `inner`: width inside a block; None: 4 `width`.
    P = 163,037,184, of which 38,597,376 are the readout's.

    Source: Radford et al. (2019), section 2.3 and table 2.
    """
    layers = _causal_blocks(vocabulary, length, width, heads, blocks, 4 * width if inner is None else inner)
    return Model([*layers, Take(-1), Dense(width, vocabulary, bias=False)], seed=seed, dtype=dtype)


def _causal_blocks(vocabulary: int, length: int, width: int, heads: int, blocks: int, inner: int) -> list[Layer]:
    """Tokens with positions, blocks of causal attention and feed-forward layers after norms, and a last norm."""
    layers: list[Layer] = [Embedding(vocabulary, width), LearnedPositions(length, width)]
    for _ in range(blocks):
        layers += [
            Residual([LayerNorm(width), SelfAttention(width, heads, causal=True)]),
            Residual([LayerNorm(width), Dense(width, inner, "gelu_tanh"), Dense(inner, width)]),
        ]
    return [*layers, LayerNorm(width)]


BY_NAME: dict[str, Callable[..., Model]] = {
    "three_layer_sigmoid": three_layer_sigmoid,
    "3ls": three_layer_sigmoid,
    "notebook_method1": notebook_method1,
    "hidden_relu": hidden_relu,
    "lenet5": lenet5,
    "small_resnet": small_resnet,
    "small_transformer": small_transformer,
    "gpt2": gpt2,
}
"""Every network by the name that it has in Python and at the command line; "3ls" is what its notebook calls it."""
