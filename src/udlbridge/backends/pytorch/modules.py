"""The kernel of any PyTorch module, without translation: per-sample Jacobians by torch.func, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends.jobs import ModuleJob
from udlbridge.backends.pytorch.checks import check_inference
from udlbridge.backends.pytorch.devices import blas_threads, checked_device
from udlbridge.backends.pytorch.module_inputs import checked_samples, first_output, split_parameters
from udlbridge.backends.pytorch.products import errors_product
from udlbridge.backends.reduction import Reduction, checked_reduction
from udlbridge.backends.symmetry import symmetrise
from udlbridge.errors import ConversionError, OptionError, ShapeError
from udlbridge.options import show_bytes

COPIES = 3
"""Copies of a block's gradients that exist while they are computed: torch's own, by parameter, and the result."""

LARGEST_STEP = 256
"""Samples that are differentiated at a time at most: more are no faster, and their activations take memory too."""

Jacobian = Callable[[Tensor], Tensor]
"""Samples (r, *D) to their gradients (r, K, P), for K outputs and P parameters."""


@dataclass(frozen=True)
class Steps:
    """How many samples' gradients are held as rows of the kernel, and computed at a time."""

    rows: int
    columns: int


def module_kernel(job: ModuleJob, x: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
    """The empirical kernel of a module over its trainable parameters, by the plain method: (n, m, *trailing).

    Shared parameters count once, with the sum of their derivatives; frozen ones (requires_grad=False) do not count. The
    module itself is neither moved nor changed.

    Raises:
        ConversionError: as `check_inference`; no trainable parameters; outputs that are random or no tensor.
        DTypeError, ShapeError, InputError, OutputsError, ParameterError, OptionError: what is wrong with the rest.
    """
    module: nn.Module = job.module
    check_inference(module)
    device = checked_device(job.device)
    # Tensors made in inference mode have no gradients, and it may be the caller's mode.
    with torch.inference_mode(False), blas_threads(job.threads):
        params, frozen, buffers = split_parameters(module, job.params, device)
        left = checked_samples(params, x, "x", device)
        right = left if x2 is None else checked_samples(params, x2, "x2", device)
        if right.shape[1:] != left.shape[1:]:
            raise ShapeError(
                f"the samples of x2 have shape {tuple(right.shape[1:])}, those of x {tuple(left.shape[1:])}",
                allowed="the same shape",
                remedy="prepare both in the same way",
            )

        def run(values: dict[str, Tensor], sample: Tensor) -> Any:
            # Buffers are copied: a module that overwrites its own starts from the same ones each time.
            own = {name: value.clone() for name, value in buffers.items()}
            return torch.func.functional_call(module, {**frozen, **own, **values}, (sample[None],))

        first = first_output(module, lambda: run(params, left[0]), left)
        reduction = checked_reduction(job.outputs, len(first))
        size = sum(value.numel() for value in params.values()) * reduction.n_cotangents * first.element_size()
        steps = _steps(job.memory, size, prod(reduction.trailing) * first.element_size(), len(left))
        jacobian = _PerSample(lambda values, sample: _wanted(reduction, run(values, sample)[0]), params)
        dtype = reduce(torch.promote_types, (value.dtype for value in params.values()))
        out = torch.empty((len(left), len(right), *reduction.trailing), dtype=dtype, device=device)
        if x2 is None:
            triangle(jacobian, reduction, left, steps, out)
        else:
            rectangle(jacobian, reduction, left, right, steps, out)
        result = out.mul_(reduction.scale).cpu().numpy()
    if x2 is None:
        symmetrise(result)
    return result


def triangle(jacobian: Jacobian, reduction: Reduction, samples: Tensor, steps: Steps, out: Tensor) -> None:
    """Fill a kernel (n, n, *trailing) below and on its diagonal; a row's gradients are held until it is done."""

    def fill(start: int) -> None:
        rows = _in_parts(jacobian, samples[start : start + steps.rows], steps.columns)
        stop = start + len(rows)
        for i in range(0, start, steps.columns):
            columns = slice(i, min(i + steps.columns, start))
            errors_product(reduction, rows, jacobian(samples[columns]), out[start:stop, columns], True)
        for i in range(0, len(rows), steps.columns):
            own = rows[i : i + steps.columns]
            columns = slice(start + i, start + i + len(own))
            errors_product(reduction, rows[i:], own, out[start + i : stop, columns], True)

    for start in range(0, len(samples), steps.rows):
        fill(start)


def rectangle(jacobian: Jacobian, reduction: Reduction, left: Tensor, right: Tensor, steps: Steps, out: Tensor) -> None:
    """Fill a kernel (n, m, *trailing) of two batches; a row's gradients are held until it is done."""

    def fill(start: int) -> None:
        rows = _in_parts(jacobian, left[start : start + steps.rows], steps.columns)
        for i in range(0, len(right), steps.columns):
            columns = jacobian(right[i : i + steps.columns])
            errors_product(reduction, rows, columns, out[start : start + len(rows), i : i + len(columns)], True)

    for start in range(0, len(left), steps.rows):
        fill(start)


def _in_parts(jacobian: Jacobian, samples: Tensor, step: int) -> Tensor:
    """The gradients of all samples, `step` at a time, since those in work take several times their own memory."""
    result: Tensor | None = None
    for start in range(0, len(samples), step):
        part = jacobian(samples[start : start + step])
        if result is None:
            result = part.new_empty((len(samples), *part.shape[1:]))
        result[start : start + len(part)] = part
    assert result is not None
    return result


class _PerSample:
    """The gradients of a module, sample by sample: by `vmap` where torch can, else in a loop (recurrent layers)."""

    def __init__(self, run: Callable[[dict[str, Tensor], Tensor], Tensor], params: dict[str, Tensor]) -> None:
        self._run, self._params = run, params
        self._batched = True

    def __call__(self, samples: Tensor) -> Tensor:
        """(r, *D) to (r, K, P)."""
        if self._batched:
            try:
                return self._by_vmap(samples)
            except Exception:  # the module itself has taken a sample before: it is vmap that cannot, for any reason
                self._batched = False
        return torch.stack([self._of_one(sample) for sample in samples])

    def _by_vmap(self, samples: Tensor) -> Tensor:
        blocks = torch.func.vmap(torch.func.jacrev(self._run), in_dims=(None, 0))(self._params, samples)
        return torch.cat([block.detach().flatten(2) for block in blocks.values()], dim=2)

    def _of_one(self, sample: Tensor) -> Tensor:
        values = {name: value.detach().requires_grad_() for name, value in self._params.items()}
        leaves = list(values.values())
        try:
            with torch.enable_grad():
                y = self._run(values, sample)
            rows = [torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True) for value in y]
        except RuntimeError as error:
            raise ConversionError(
                f"the module cannot be differentiated by its parameters ({error})",
                allowed="modules whose outputs autograd can follow",
                remedy="look for what detaches or overwrites a tensor inside it",
            ) from error
        return torch.stack([torch.cat([value.flatten() for value in row]) for row in rows])


def _wanted(reduction: Reduction, y: Tensor) -> Tensor:
    """The K numbers among the outputs (O,), or their sum, that are differentiated."""
    if reduction.name == "sum":
        return y.sum(0, keepdim=True)
    return y[reduction.index : reduction.index + 1] if reduction.name == "one" else y


def _steps(memory: int, size: int, pair: int, n: int) -> Steps:
    """How to stay within `memory` bytes, where a sample's gradients take `size` and an entry of the kernel `pair`."""
    held = memory // max(1, size)
    if held <= COPIES:
        raise OptionError(
            f"memory={show_bytes(memory)} for gradients of {show_bytes(size)} for each sample",
            allowed=f"at least {show_bytes((1 + COPIES) * size)} for this module and reduction",
            remedy="allow more, or ask for one output instead of all",
        )
    columns = max(1, min(held // (2 * COPIES), LARGEST_STEP))
    rows = held - COPIES * columns
    # A product that keeps outputs apart is formed before it is written.
    columns = max(1, min(columns, memory // (4 * min(rows, n) * pair)))
    return Steps(rows, columns)
