"""The kernel of any PyTorch module, without translation: per-sample Jacobians by torch.func, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch_products import errors_product
from udlbridge.errors import ConversionError, DTypeError, InputError, ShapeError
from udlbridge.reduction import Outputs, Reduction, reduction
from udlbridge.selection import Selection, selected_names

MEMORY = 2**30
"""Bytes of per-sample Jacobians that are held at a time, about."""


def check_inference(module: nn.Module) -> None:
    """Refuse a module whose samples touch each other, or whose outputs are random, in its present mode.

    Raises:
        ConversionError: BatchNorm without inference statistics, or active Dropout; it names them by path.
    """
    for path, part in module.named_modules():
        batch = isinstance(part, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm)
        if batch and (part.training or part.running_mean is None) and _mixes(part):
            reason = "takes its statistics from the batch, so a sample has no gradient of its own"
        elif isinstance(part, nn.modules.dropout._DropoutNd) and part.training and part.p > 0:
            reason = "is active, so the outputs are random"
        else:
            continue
        raise ConversionError(
            f"{path or 'the module'} ({type(part).__name__}) {reason}",
            allowed="networks in inference mode",
            remedy="call module.eval() first, or pass inference=True to from_torch",
        )


def _mixes(part: nn.Module) -> bool:
    # InstanceNorm with batch statistics stays inside each sample.
    return isinstance(part, nn.modules.batchnorm._BatchNorm)


def module_kernel(
    module: nn.Module, x: np.ndarray, x2: np.ndarray | None, outputs: Outputs, selection: Selection, device: str
) -> np.ndarray:
    """The empirical kernel of a module over its trainable parameters, by the plain method: (n, m, *trailing).

    Shared parameters count once, with the sum of their derivatives; frozen ones (requires_grad=False) do not count.

    Raises:
        ConversionError: as `check_inference`; no trainable parameters.
        DTypeError, ShapeError, InputError, OutputsError: what is wrong with the rest.
    """
    check_inference(module)
    trainable = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    if not trainable:
        raise ConversionError(
            "the module has no trainable parameters", allowed="at least one", remedy="call requires_grad_(True)"
        )
    params = {name: trainable[name] for name in selected_names(list(trainable), selection)}
    rest = {name: value.detach() for name, value in module.named_parameters() if name not in params}
    rest |= dict(module.named_buffers())
    left = _checked(params, x, "x", device)
    right = left if x2 is None else _checked(params, x2, "x2", device)
    module, params, rest = module.to(device), _moved(params, device), _moved(rest, device)

    def run(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(module, {**rest, **values}, (sample[None],))[0]
        return y

    with torch.no_grad():
        first = run(params, left[0])
    if first.ndim != 1:
        raise ShapeError(
            f"the module gives outputs of shape {tuple(first.shape)} for each sample",
            allowed="one vector per sample, (O,)",
            remedy="end the module with nn.Flatten()",
        )
    chosen = reduction(outputs, len(first))

    def pulled(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        y = run(values, sample)
        if chosen.name == "sum":
            return y.sum(0, keepdim=True)
        return y[chosen.index : chosen.index + 1] if chosen.name == "one" else y

    def jacobian(samples: Tensor) -> Tensor:
        blocks = torch.func.vmap(torch.func.jacrev(pulled), in_dims=(None, 0))(params, samples)
        return torch.cat([block.detach().flatten(2) for block in blocks.values()], dim=2)

    size = sum(value.numel() for value in params.values()) * chosen.n_cotangents * first.element_size()
    return _blockwise(jacobian, chosen, left, right, max(1, MEMORY // (2 * size))).cpu().numpy()


def _blockwise(
    jacobian: Callable[[Tensor], Tensor], chosen: Reduction, left: Tensor, right: Tensor, step: int
) -> Tensor:
    same = left is right
    result: Tensor | None = None
    for i in range(0, len(left), step):
        rows = jacobian(left[i : i + step])
        for j in range(0, len(right), step):
            columns = rows if same and i == j else jacobian(right[j : j + step])
            if result is None:
                result = rows.new_zeros((len(left), len(right), *chosen.trailing))
            errors_product(chosen, rows, columns, result[i : i + step, j : j + step], False)
    assert result is not None
    return result.mul_(chosen.scale)


def _moved(tensors: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}


def _checked(params: dict[str, Tensor], x: np.ndarray, name: str, device: str) -> Tensor:
    dtypes = {value.dtype for value in params.values()}
    array = np.asarray(x)
    if array.ndim < 2 or array.size == 0:
        raise ShapeError(
            f"{name} has shape {array.shape}", allowed="samples along the first axis", remedy=f"{name}[None]"
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{name} has NaN or infinite entries", allowed="finite numbers", remedy="clean the data")
        own = torch.from_numpy(np.empty(0, array.dtype)).dtype
        if dtypes != {own}:
            words = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            raise DTypeError(
                f"{name} has dtype {array.dtype}, the module has {words}",
                allowed="one dtype for both: it is never changed silently",
                remedy=f"module.to(torch.{array.dtype}), or convert {name}",
            )
    elif array.dtype.kind not in "iu":
        raise DTypeError(f"{name} has dtype {array.dtype}", allowed="floats, or integer tokens", remedy="convert it")
    return torch.tensor(array, device=device)
