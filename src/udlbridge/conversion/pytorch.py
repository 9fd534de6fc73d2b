"""Networks from and to PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from udlbridge import backends
from udlbridge.networks.inputs import check_model
from udlbridge.networks.model import Model
from udlbridge.options import checked_flag

if TYPE_CHECKING:
    from torch import nn


def from_torch(module: nn.Module | Any, *, inference: bool = False) -> Model:
    """A `Model` with the layers and copies of the weights of a PyTorch module.

    Understood: `nn.Sequential`, nested to any depth; Linear, Conv1d, Conv2d, the max and average pools, adaptive pools
    to size 1, LayerNorm, GroupNorm, BatchNorm1d and 2d, Dropout (1d, 2d and Alpha too), Flatten, Embedding, Identity,
    the activations, Softmax and LogSoftmax over the last axis (dim=-1, or dim=1 behind a Flatten); and whatever
    `to_torch` makes. The layers are numbered in order of evaluation. Softplus becomes the exact function, which
    torch leaves above its threshold (at least 20) by up to 2e-9. For other modules there is `ub.ntk(module, x)`, which
    needs no translation.

    Args:
        module: the network.
        inference: take a network in training mode as it is in inference.

    Raises:
        ConversionError: a module that has no translation, or does not fit behind the others, by its path inside
            `module`; shared or frozen parameters; weights that are neither float32 nor float64, of several dtypes,
            without numbers (on the meta device) or not finite; a network in training mode whose outputs differ there
            from inference.
        OptionError: `inference` is not a truth value.
        TorchUnavailable: PyTorch is not installed.
    """
    backends.require_torch()
    from udlbridge.conversion import torch_import

    return torch_import.from_torch(module, inference=checked_flag("inference", inference))


def to_torch(model: Model) -> nn.Sequential:
    """The network as a `torch.nn.Sequential` in inference mode, with copies of parameters and buffers.

    Raises:
        OptionError: `model` is not a `Model`.
        TorchUnavailable: PyTorch is not installed.
    """
    check_model(model)
    backends.require_torch()
    from udlbridge.conversion import torch_export

    return torch_export.to_torch(model)
