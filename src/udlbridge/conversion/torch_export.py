"""PyTorch modules from networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch import layers as pytorch_layers
from udlbridge.backends.pytorch.sites import Scope
from udlbridge.conversion.state_names import activates_after
from udlbridge.errors import ConversionError
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
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model


class LayerModule(nn.Module):
    """A layer for which torch has no module of its own: positions, attention, `Take`, the mean over space."""

    def __init__(self, layer: Layer, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.names = list(arrays)
        for name, value in arrays.items():
            # torch allows no dots in the names of parameters.
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value))

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by the layer's own names."""
        return {name: getattr(self, name.replace(".", "_")) for name in self.names}

    def forward(self, x: Tensor) -> Tensor:
        """As the torch engine evaluates the layer."""
        return pytorch_layers.RULES[type(self.layer)](self.layer, Scope(self.arrays()), x)


class BatchStatistics(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of vectors, series and images alike: torch's own modules insist on the number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Any number of axes will do."""


class ResidualModule(nn.Module):
    """layers(x) + shortcut(x)."""

    def __init__(self, layers: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """An empty shortcut is the identity."""
        return self.layers(x) + self.shortcut(x)


def to_torch(model: Model) -> nn.Sequential:
    """The model as an `nn.Sequential` in inference mode, with copies of the weights.

    An activation inside a layer becomes a module of its own after it, so that numbers may shift.
    """
    tensors = {name: torch.tensor(value) for name, value in model.arrays.items()}
    return _sequential(model.layers, tensors).eval()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu_erf": nn.GELU,
    "softplus": lambda: nn.Softplus(threshold=50.0),
    "swish": nn.SiLU,
    "elu": nn.ELU,
    "leakyrelu": nn.LeakyReLU,
    "selu": nn.SELU,
    "mish": nn.Mish,
}
"""torch's module for every activation that it has one for; the others become a `LayerModule`."""


def _activation(name: str) -> nn.Module:
    return ACTIVATIONS[name]() if name in ACTIVATIONS else LayerModule(Activation(cast(ActivationWord, name)), {})


def _sequential(layers: Any, arrays: dict[str, Tensor]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index, layer in enumerate(layers):
        own = {name.removeprefix(f"{index}."): value for name, value in arrays.items() if name.startswith(f"{index}.")}
        modules.append(_module(layer, own))
        if activates_after(layer):
            modules.append(_activation(layer.activation))
    return nn.Sequential(*modules)


def _module(layer: Layer, arrays: dict[str, Tensor]) -> nn.Module:
    if isinstance(layer, Residual):
        inside = {name: value for name, value in arrays.items() if not name.startswith("shortcut.")}
        beside = {
            name.removeprefix("shortcut."): value for name, value in arrays.items() if name.startswith("shortcut.")
        }
        return ResidualModule(_sequential(layer.layers, inside), _sequential(layer.shortcut, beside))
    if isinstance(layer, Conv1d | Conv2d) and layer.paddings is None:
        # torch's module pads both sides of an axis alike. The activation becomes a module of its own, as after others.
        return LayerModule(attrs.evolve(layer, activation="identity"), arrays)
    if isinstance(layer, GlobalMeanPool | SinusoidalPositions | LearnedPositions | SelfAttention | Take):
        return LayerModule(layer, arrays)
    module = _plain_module(layer)
    if arrays:
        module = module.to(next(iter(arrays.values())).dtype)
        module.load_state_dict(arrays, strict=False)
    return module


def _plain_module(layer: Layer) -> nn.Module:
    match layer:
        case Dense():
            return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        case Conv1d() | Conv2d():
            make: Any = nn.Conv1d if isinstance(layer, Conv1d) else nn.Conv2d
            settings = (layer.strides, layer.paddings, layer.dilations, layer.groups, layer.bias)
            return make(layer.in_channels, layer.out_channels, layer.kernel, *settings)
        case MaxPool():
            pool: Any = nn.MaxPool1d if len(layer.kernel) == 1 else nn.MaxPool2d
            return pool(layer.kernel, layer.strides, layer.paddings)
        case MeanPool():
            pool = nn.AvgPool1d if len(layer.kernel) == 1 else nn.AvgPool2d
            return pool(layer.kernel, layer.strides, layer.paddings)
        case LayerNorm():
            return nn.LayerNorm(layer.shape, layer.eps, layer.affine)
        case GroupNorm():
            return nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, layer.affine)
        case BatchNorm():
            return BatchStatistics(layer.num_features, layer.eps, affine=layer.affine)
        case Embedding():
            return nn.Embedding(layer.num_embeddings, layer.embedding_dim)
        case Activation():
            return _activation(layer.activation)
        case Dropout():
            return nn.Dropout(layer.p)
        case Softmax():
            return nn.Softmax(dim=-1)
        case LogSoftmax():
            return nn.LogSoftmax(dim=-1)
        case Flatten():
            return nn.Flatten()
    raise ConversionError(f"{layer.kind} has no module", allowed="the layers of udlbridge", remedy="report this")
