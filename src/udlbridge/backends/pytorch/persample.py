"""Gradients of a module sample by sample: by `vmap` where torch can, else one sample after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.tensors import differentiating

LARGEST_STEP = 64
"""Samples that are differentiated at a time at most: more are no faster, and their activations take memory too."""

Run = Callable[[Mapping[str, Tensor], Inputs], Tensor]
"""Parameters and inputs of one sample, (1, *D) each, to the K numbers (K,) that are differentiated."""


def blocks(run: Run, params: Mapping[str, Tensor], inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    """Per-sample gradients (n, K, *parameter shape) by name."""
    n = len(next(iter(inputs.values())))
    if not params:
        return {}
    parts: list[dict[str, Tensor]] = []
    batched = True
    for start in range(0, n, LARGEST_STEP):
        step = {name: value[start : start + LARGEST_STEP] for name, value in inputs.items()}
        if batched:
            try:
                parts.append(_by_vmap(run, params, step, dtype))
                continue
            except Exception:  # the module itself takes samples: it is vmap that cannot, for any reason
                batched = False
        parts += [_of_one(run, params, one, dtype) for one in _samples(step)]
    return {name: torch.cat([part[name] for part in parts]) for name in params}


def _samples(inputs: Inputs) -> Iterator[Inputs]:
    for i in range(len(next(iter(inputs.values())))):
        yield {name: value[i : i + 1] for name, value in inputs.items()}


def _by_vmap(run: Run, params: Mapping[str, Tensor], inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    def one(values: dict[str, Tensor], sample: Inputs) -> Tensor:
        return run(values, {name: value[None] for name, value in sample.items()})

    _silence_vmap()
    found = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(dict(params), inputs)
    if any(block.is_sparse for block in found.values()):
        raise NotImplementedError("vmap of sparse gradients")
    return {name: block.detach().to(dtype) for name, block in found.items()}


def _silence_vmap() -> None:
    """Turn off torch's report of functions that it takes sample by sample, which is a matter for its developers."""
    setting: Any = getattr(torch._C._functorch, "_set_vmap_fallback_warning_enabled", None)
    if setting is not None:
        setting(False)


def _of_one(run: Run, params: Mapping[str, Tensor], sample: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    values = {name: value.detach().requires_grad_() for name, value in params.items()}
    with differentiating():
        y = run(values, sample)
        leaves = list(values.values())
        rows = [
            torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in y
        ]
    # Tables may have sparse gradients.
    dense = [[value.to_dense() if value.is_sparse else value for value in row] for row in rows]
    return {name: torch.stack([row[index] for row in dense])[None].to(dtype) for index, name in enumerate(values)}
