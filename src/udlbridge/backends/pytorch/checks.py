"""What is asked of a PyTorch module before it is translated, or before its kernel is computed as it is."""

from __future__ import annotations

import torch
from torch import nn

from udlbridge.errors import ConversionError
from udlbridge.networks.init import FLOATS

TRANSLATED = "; or pass inference=True to from_torch"
"""What those who translate a module may do besides about its mode."""


def check_inference(module: nn.Module, besides: str = "") -> None:
    """Refuse a module whose samples touch each other, or whose outputs are random, in its present mode.

    Args:
        module: that of the caller.
        besides: what the caller may do but call `.eval()`, as the end of a sentence.

    Raises:
        ConversionError: BatchNorm without inference statistics, or something that is random; it names them by path.
    """
    for path, part in module.named_modules():
        remedy = f"call .eval() on the module first, where it is made{besides}"
        norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if norm and part.running_mean is None:
            reason = "has no running statistics and takes those of the batch, so a sample has no gradient of its own"
            remedy = "build it with track_running_stats=True and train it so, or use a GroupNorm"
        elif norm and part.training:
            reason = "takes its statistics from the batch, so a sample has no gradient of its own"
        elif part.training and _draws(part):
            reason = "is active, so the outputs are random"
        else:
            continue
        raise ConversionError(
            f"{path or 'the module'} ({type(part).__name__}) {reason}",
            allowed="networks in inference mode",
            remedy=remedy,
        )


def _draws(part: nn.Module) -> bool:
    """Whether a module of torch draws random numbers in training mode."""
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    if isinstance(part, nn.MultiheadAttention):
        return part.dropout > 0
    if isinstance(part, nn.RNNBase):
        return part.dropout > 0 and part.num_layers > 1
    return isinstance(part, nn.RReLU)


def check_parameters(module: nn.Module) -> None:
    """Refuse parameters that are shared, or frozen.

    Raises:
        ConversionError: naming them by path.
    """
    seen: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            raise ConversionError(
                f"{name} and {seen[id(parameter)]} are one shared parameter",
                allowed="a parameter of its own for every layer: copies would have another kernel than the shared one",
                remedy="use ub.ntk(module, x, backend='torch'), which keeps it shared",
            )
        seen[id(parameter)] = name
        if not parameter.requires_grad:
            raise ConversionError(
                f"{name} is frozen (requires_grad=False)",
                allowed="trainable parameters: a model's kernel is about all of them",
                remedy="call module.requires_grad_(True), and restrict the kernel by params=",
            )


def check_numbers(module: nn.Module) -> None:
    """Refuse weights and statistics that no model can have.

    Raises:
        ConversionError: naming the first that has another dtype, no numbers, or some that are not finite.
    """
    first: tuple[str, torch.dtype] | None = None
    statistics = [item for item in module.named_buffers() if item[1].is_floating_point()]  # the others are counters
    for name, value in [*module.named_parameters(), *statistics]:
        if value.is_meta:
            raise ConversionError(
                f"{name} is on the meta device, where there are no numbers",
                allowed="weights on a real device",
                remedy="load them first: module.load_state_dict(state, assign=True)",
            )
        first = first or (name, value.dtype)
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in FLOATS:
            raise ConversionError(
                f"{name} has dtype {dtype}",
                allowed=f"{', '.join(FLOATS)}, the same for all",
                remedy="convert the module with module.float(), or module.double()",
            )
        if value.dtype != first[1]:
            raise ConversionError(
                f"{name} has dtype {dtype}, {first[0]} {str(first[1]).removeprefix('torch.')}",
                allowed="one dtype for all",
                remedy="convert the module with module.float(), or module.double()",
            )
        if not torch.isfinite(value).all():
            raise ConversionError(f"{name} is not finite", allowed="finite numbers", remedy="clean the weights")


def check_call(module: nn.Module, where: str) -> None:
    """Refuse what changes a module's outputs from outside its class; `where` is its path.

    Raises:
        ConversionError: hooks, or a forward of the instance.
    """
    if "forward" in vars(module):
        reason = "a forward of its own, set on the instance, which replaces that of its class"
    elif module._forward_hooks or module._forward_pre_hooks:
        reason = "forward hooks, which change what it computes"
    else:
        return
    raise ConversionError(
        f"{where} ({type(module).__name__}) has {reason}",
        allowed="modules that compute what their class does",
        remedy="remove it, or use ub.ntk(module, x, backend='torch')",
    )
