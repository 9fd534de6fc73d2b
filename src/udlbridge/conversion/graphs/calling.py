"""How a module is called while it is captured: what goes in by position, one tensor comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch.module_inputs import arguments
from udlbridge.backends.pytorch.module_outputs import Choice, requested
from udlbridge.errors import ConversionError
from udlbridge.networks.graphs.graph import KINDS
from udlbridge.networks.several import fields_of, named


@contextmanager
def called_plainly(module: nn.Module, fields: Sequence[str], output: Choice, name: str) -> Iterator[None]:
    """Within it, forward takes several inputs by position, in their order, and gives the output that counts alone."""
    if list(fields) == [""] and output is None:
        yield
        return
    whole, own = module.forward, vars(module).get("forward")

    def of_several(*inputs: Tensor) -> Any:
        args, words = arguments(dict(zip(fields, inputs, strict=True)))
        return requested(whole(*args, **words), output, name)

    def of_one(x: Tensor) -> Any:
        return of_several(x)

    module.forward = of_one if len(fields) == 1 else of_several
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def checked_fields(batch: np.ndarray, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The inputs by name.

    Raises:
        ConversionError: one of several has numbers of another dtype than the module.
    """
    fields, numbers = fields_of(batch), str(dtype).removeprefix("torch.")
    for field, part in fields.items():
        if field and part.dtype.kind == "f" and part.dtype.name != numbers:
            raise ConversionError(
                f"{named('x', field)} has dtype {part.dtype}, the module {numbers}",
                allowed="one dtype for all numbers",
                remedy=f"give {named('x', field)} in {numbers}",
            )
    return fields


def settings_of(fields: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a graph has to know of its inputs."""
    if "" in fields:
        return {"sample_shape": fields[""].shape[1:], "tokens": fields[""].dtype.kind in "iu"}
    return {"inputs": {field: (part.shape[1:], KINDS[part.dtype.kind]) for field, part in fields.items()}}
