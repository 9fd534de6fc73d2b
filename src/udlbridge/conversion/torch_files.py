"""Weights in PyTorch's own files: state dicts, read without executing what is in them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import torch

from udlbridge.conversion.checkpoints import unwrapped
from udlbridge.conversion.torch_export import to_torch
from udlbridge.errors import ModelFileError
from udlbridge.networks.archives import check_archive
from udlbridge.networks.model import Model
from udlbridge.regular import check_readable

HALVES = (torch.float16, torch.bfloat16)

SHARED = 16
"""How often the same numbers may stand in a state dict, under the names of layers that share them."""


def read_state(path: Path, dtype: str | None = None) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of a state dict by name, by itself or in a checkpoint, and whether Lightning wrote it.

    `dtype`: in which half precision comes; without it, float16 stays and bfloat16 is refused.

    Raises:
        ValueError: the file holds something else.
        ModelFileError: more than arrays; numbers of a dtype that NumPy does not have.
    """
    size = check_readable(path, links=True)
    check_archive(path, ModelFileError, 1, 0)  # PyTorch packs nothing, and its reader would unpack all the same
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        if kind is None:
            raise
        raise ModelFileError(
            f"{path} holds a {kind[1]}, as torch.save(module, path) writes it, and not arrays alone: it could execute "
            "code",
            allowed="a state dict, or a checkpoint that has one",
            remedy="where the module can be loaded, save its arrays: torch.save(module.state_dict(), path)",
        ) from error
    state, lightning = unwrapped(found)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it is not a state dict")
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > SHARED * size:  # a view of one number may say that it is a billion
        raise ValueError(f"its arrays would take {claimed:,} bytes, and it has {size:,}")
    arrays = {}
    for name, value in state.items():
        if dtype is not None and value.dtype in HALVES:
            value = value.to(getattr(torch, dtype))  # exact
        try:
            arrays[str(name)] = value.detach().numpy()
        except TypeError:
            raise ModelFileError(
                f"{path}: {name} has dtype {str(value.dtype).removeprefix('torch.')}, which NumPy does not have",
                allowed="float32, float64; half precision with dtype=",
                remedy='say dtype="float32", or convert it before it is saved: module.float()',
            ) from None
    return arrays, lightning


def write_state(model: Model, path: Path) -> None:
    """Write the state dict of `ub.to_torch(model)`."""
    with path.open("wb") as file:
        torch.save(to_torch(model).state_dict(), file)
