"""Networks and arrays in torch: tensors of a model, and its outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from udlbridge.backends.pytorch.layers import run_chain
from udlbridge.backends.pytorch.sites import Observer, Scope
from udlbridge.networks.model import Model

Params = Mapping[str, Tensor]


def evaluate(model: Model, params: Params, x: Tensor, observe: Observer | None = None) -> Tensor:
    """f(x) for a batch (n, *D), with the parameters as torch tensors; the buffers are the model's own."""
    return run_chain(model.layers, Scope({**buffers(model, x.device), **params}, observe=observe), x)


def buffers(model: Model, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The model's arrays that are not trained, as tensors of their own."""
    return {name: torch.tensor(value, device=device) for name, value in model.buffers.items()}


def tensor(numbers: np.ndarray, device: str = "cpu") -> Tensor:
    """A tensor with the same numbers. On the CPU it shares the memory of a writeable array: it is only ever read."""
    if numbers.flags.writeable:
        return torch.from_numpy(numbers).to(device)
    return torch.tensor(numbers, device=device)


def array(result: Tensor) -> np.ndarray:
    """The numbers of a result, each in a place of its own: torch may have spread one number over several entries."""
    return result.detach().cpu().contiguous().numpy()


def torch_dtype(like: np.ndarray) -> torch.dtype:
    """The dtype of a tensor for an array of float64 or float32 numbers."""
    return torch.float64 if like.dtype == np.float64 else torch.float32


def tensors(model: Model, device: str = "cpu") -> dict[str, Tensor]:
    """The model's parameters as tensors of their own."""
    return {name: torch.tensor(value, device=device) for name, value in model.params.items()}
