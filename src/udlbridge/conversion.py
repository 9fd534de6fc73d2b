"""Networks that come from elsewhere: PyTorch's modules, and Flux models from files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from udlbridge import backends
from udlbridge.errors import TorchUnavailable
from udlbridge.model import Model

if TYPE_CHECKING:
    from torch import nn


def from_torch(module: nn.Module | Any, *, inference: bool = False) -> Model:
    """A `Model` with the layers and copies of the weights of a PyTorch module.

    Understood: `nn.Sequential`, nested to any depth; Linear, Conv1d, Conv2d, the max and average pools, adaptive pools
    to size 1, LayerNorm, GroupNorm, BatchNorm1d and 2d, Dropout, Flatten, Embedding, Identity, the activations,
    Softmax and LogSoftmax over the last axis; and whatever `Model.to_torch` makes. The layers are numbered in order of
    evaluation. For other modules there is `ub.ntk(module, x)`, which needs no translation.

    Args:
        module: the network.
        inference: take a network in training mode as it is in inference.

    Raises:
        ConversionError: a module that has no translation, by its path inside `module`; shared or frozen parameters; a
            network in training mode whose outputs differ there from inference.
        ParameterError: weights of a dtype that is neither float32 nor float64.
        TorchUnavailable: PyTorch is not installed.
    """
    state = backends.availability("torch")
    if not state.ok:
        raise TorchUnavailable(state.reason, remedy=state.remedy)
    from udlbridge.backends import pytorch_convert

    return pytorch_convert.from_torch(module, inference=inference)


def from_flux(path: str | os.PathLike[str]) -> Model:
    """The network of a Flux chain that `UDLBridge.save(chain, path)` wrote in Julia, with equal outputs.

    The file is a model file as `Model.save` writes it; Julia itself is not needed to read it.

    Raises:
        ModelFileError: as `Model.load`.
    """
    return Model.load(path)
