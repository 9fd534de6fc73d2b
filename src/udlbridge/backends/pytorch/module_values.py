"""The numbers that a module holds, and what kind of module it is: looked at before it is believed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from udlbridge.errors import ConversionError


def own(value: Tensor, device: str | torch.device) -> Tensor:
    """The same numbers, not those of the caller's, and normal ones: some were made in inference mode."""
    with torch.inference_mode(False):
        return value.detach().to(device, copy=True)


def converted(value: Tensor, like: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Real numbers in `dtype`, or where that is None in the dtype of `like`; anything else as it is."""
    return value.to(dtype or like.dtype) if like.is_floating_point() else value


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside what compiles or distributes it.

    Raises:
        ConversionError: a scripted module.
    """
    inner = getattr(module, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return unwrapped(inner)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ConversionError(
            "a scripted module, into which nothing can look",
            allowed="modules that run in Python",
            remedy="give the module that was scripted",
        )
    return module


def check_values(module: nn.Module) -> None:
    """Refuse parameters and buffers without real numbers.

    Raises:
        ConversionError: naming the first.
    """
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(value, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise ConversionError(
                f"{name} has no shape yet", allowed="a module that has seen data", remedy="call module(x) once"
            )
        if value.is_meta:
            raise ConversionError(
                f"{name} is on the meta device, where there are no numbers",
                allowed="weights on a real device",
                remedy="load them first: module.load_state_dict(state, assign=True)",
            )
        if value.is_complex() and value.requires_grad:
            raise ConversionError(
                f"{name} has complex numbers", allowed="real parameters", remedy="keep real and imaginary part apart"
            )
