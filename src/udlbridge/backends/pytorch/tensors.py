"""Networks and arrays in torch: tensors of a model, and its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from udlbridge.backends.pytorch.layers import run_chain
from udlbridge.backends.pytorch.sites import Observer, Scope
from udlbridge.errors import ConversionError, UDLBridgeError
from udlbridge.networks.model import Model

Params = Mapping[str, Tensor]


def gradients(
    y: Tensor, by: Sequence[Tensor] | Sequence[GradientEdge], cotangents: Tensor | None = None, *, keep: bool = False
) -> tuple[Tensor | None, ...]:
    """By each tensor the gradient of y, or of <cotangents, y>; None where y does not depend on it.

    `keep`: another backward pass of y follows.

    Raises:
        ConversionError: a backward pass fails, which may be the caller's own, or lack what forward wrote over.
    """
    with differentiating():
        return torch.autograd.grad(y, by, cotangents, retain_graph=keep, allow_unused=True)


@contextmanager
def differentiating() -> Iterator[None]:
    """What goes wrong on the way back, as an error of ours: a backward pass may be the caller's, and raise anything.

    Raises:
        ConversionError: something did.
    """
    try:
        yield
    except (UDLBridgeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        words = str(error).strip().partition(" Hint: ")[0]
        raise ConversionError(
            f"a backward pass of the network fails ({type(error).__name__}: {words})",
            allowed="networks that autograd can follow back from the outputs, as module(x).sum().backward() does",
            remedy="look for what writes over a tensor inside it, as x += 1 or x[:, 0] = 0, and at backward passes of "
            "your own",
        ) from error


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
