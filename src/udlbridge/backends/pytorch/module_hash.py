"""What tells a module from others that compute something else, as far as its numbers and settings say it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from udlbridge.backends.pytorch.copies import tensors_inside


def module_hash(module: nn.Module, output: str) -> str:
    """SHA-256 of the classes inside and their settings, of parameters, buffers and other tensors, and of `output`.

    Settings are the public attributes that are numbers, words or truth values, or tuples of these: a stride, a slope,
    an eps. What the code of a forward does is not among it. `output`: says which outputs count.
    """
    digest = hashlib.sha256(f"{output};".encode())
    for path, part in module.named_modules():
        digest.update(f"{path}:{type(part).__qualname__}:{_settings(part)};".encode())
    values = [*module.named_parameters(), *module.named_buffers()]
    known = {id(value) for _, value in values}
    # What an evaluation left in the module is not a setting.
    others = [("", value) for value in tensors_inside(module) if id(value) not in known and value.is_leaf]
    for name, value in [*values, *others]:
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(part: nn.Module) -> dict[str, Any]:
    """What was set of a module that is neither a tensor nor a module; its mode makes no difference here."""
    public = {name: value for name, value in vars(part).items() if not name.startswith("_") and name != "training"}
    return {name: value for name, value in sorted(public.items()) if _is_setting(value)}


def _is_setting(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, str | bool | int | float)
