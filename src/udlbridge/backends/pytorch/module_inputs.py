"""What a module's kernel is computed from: its parameters, its samples, and an output that has a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.arrays import as_array, has_dtype
from udlbridge.errors import ConversionError, DTypeError, InputError, ShapeError, UDLBridgeError
from udlbridge.networks.selection import Selection, selected_names


def split_parameters(
    module: nn.Module, selection: Selection, device: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The parameters that the kernel is about, the other parameters, and the buffers, on the device."""
    for name, value in module.named_parameters():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise ConversionError(
                f"{name} has no shape yet", allowed="a module that has seen data", remedy="call module(x) once"
            )
        if value.is_meta:
            raise ConversionError(
                f"{name} is on the meta device, where there are no numbers",
                allowed="weights on a real device",
                remedy="load them first: module.load_state_dict(state, assign=True)",
            )
    trainable = [name for name, value in module.named_parameters() if value.requires_grad]
    if not trainable:
        raise ConversionError(
            "the module has no trainable parameters", allowed="at least one", remedy="call requires_grad_(True)"
        )
    counted = selected_names(trainable, selection)
    every = {name: value.detach().to(device) for name, value in module.named_parameters()}
    params = {name: every.pop(name) for name in counted}
    return params, every, {name: value.detach().to(device) for name, value in module.named_buffers()}


def first_output(module: nn.Module, run: Callable[[], Any], samples: Tensor) -> Tensor:
    """The outputs (O,) for the first sample, if they are such that they have a kernel."""
    name = type(module).__name__
    before = _random_states(samples.device)
    try:
        with torch.no_grad():
            y = run()
    except UDLBridgeError:
        raise
    except Exception as error:  # the module is the caller's: it may raise anything
        raise InputError(
            f"{name} cannot take a sample of shape {tuple(samples.shape[1:])} ({type(error).__name__}: {error})",
            allowed="samples x that module(x[:1]) takes",
            remedy="correct x; take a module that is scripted, or in DataParallel, out of its wrapping",
        ) from error
    if not all(torch.equal(*pair) for pair in zip(before, _random_states(samples.device), strict=True)):
        raise ConversionError(
            f"{name} draws random numbers, so its outputs are random",
            allowed="networks in inference mode",
            remedy="call module.eval() first, and give functional.dropout training=self.training",
        )
    if not isinstance(y, Tensor):
        raise ConversionError(
            f"{name} gives a {type(y).__name__}",
            allowed="one tensor (n, O)",
            remedy="wrap it in a module whose forward returns the tensor, as y['logits'] or y[0]",
        )
    if y.ndim == 0 or len(y) != 1:
        raise ShapeError(
            f"{name} gives a tensor of shape {tuple(y.shape)} for one sample, x[:1]",
            allowed="(1, O): samples along the first axis",
            remedy="keep that axis in the module's forward",
        )
    if y.ndim != 2:
        raise ShapeError(
            f"the module gives outputs of shape {tuple(y.shape[1:])} for each sample",
            allowed="one vector per sample, (O,)",
            remedy="end the module with nn.Flatten()",
        )
    if not y.is_floating_point():
        raise DTypeError(
            f"{name} gives outputs of dtype {str(y.dtype).removeprefix('torch.')}",
            allowed="real numbers that depend on the parameters",
            remedy="return the logits",
        )
    return y[0]


def _random_states(device: torch.device) -> list[Tensor]:
    """The states of the generators that a module on the device may draw from."""
    own = {"cuda": torch.cuda.get_rng_state, "mps": torch.mps.get_rng_state}
    return [torch.get_rng_state(), *(state() for kind, state in own.items() if kind == device.type)]


def checked_samples(params: dict[str, Tensor], x: np.ndarray, name: str, device: str) -> Tensor:
    """The samples as a tensor: of the parameters' dtype, or integers."""
    dtypes = {str(value.dtype).removeprefix("torch.") for value in params.values()}
    if "bfloat16" in dtypes:
        raise DTypeError(
            "the module has parameters of bfloat16, which NumPy does not have, and so no kernel can have",
            allowed="float16, float32, float64",
            remedy="module.float(), and samples of float32",
        )
    array = as_array(x, name)
    if array.dtype == np.float64 and dtypes == {"float32"} and not has_dtype(x):
        array = array.astype(np.float32)  # Python's numbers have no dtype, and take the module's
    if array.ndim < 2 or array.size == 0:
        raise ShapeError(
            f"{name} has shape {array.shape}", allowed="samples along the first axis", remedy=f"{name}[None]"
        )
    if array.dtype.kind in "iu":
        return torch.tensor(array.astype(np.int64), device=device)
    if array.dtype.kind != "f":
        raise DTypeError(f"{name} has dtype {array.dtype}", allowed="floats, or integer tokens", remedy="convert it")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has NaN or infinite entries", allowed="finite numbers", remedy="clean the data")
    if dtypes != {array.dtype.name}:
        raise DTypeError(
            f"{name} has dtype {array.dtype}, the module has {', '.join(sorted(dtypes))}",
            allowed="one dtype for both: it is never changed silently",
            remedy=f"convert {name}" + (f", or module.to(torch.{array.dtype})" if array.itemsize <= 8 else ""),
        )
    return torch.tensor(array, device=device)
