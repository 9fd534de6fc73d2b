"""The samples of a module as one array, whatever it takes: one input, several by position, or several by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from udlbridge.arrays import as_array, has_dtype, is_tensor
from udlbridge.errors import DTypeError, InputError
from udlbridge.networks.inputs import check_extent
from udlbridge.networks.several import fields_of, joined, named, parts_of

HALVES = {torch.float16, torch.bfloat16}

Inputs = dict[str, Tensor]
"""Tensors with the samples first, by name; "" is the only input, and numbers are positions."""


@dataclass(frozen=True)
class Dtypes:
    """The floating dtypes of a module's parameters and buffers."""

    found: frozenset[torch.dtype]

    @property
    def kernel(self) -> torch.dtype:
        """The dtype of kernels: half precision is added up in float32."""
        result = torch.float32
        for dtype in self.found:
            result = torch.promote_types(result, dtype)
        return result

    @property
    def half(self) -> torch.dtype | None:
        """The one half precision in which the module computes, and to which its samples are rounded."""
        return next(iter(self.found)) if len(self.found) == 1 and self.found <= HALVES else None

    @property
    def names(self) -> list[str]:
        """As torch writes them."""
        return sorted(str(dtype).removeprefix("torch.") for dtype in self.found)


def packed(x: Any, name: str, dtypes: Dtypes) -> np.ndarray:
    """The samples as one array: (n, *D), or (n,) with a field for each of several inputs.

    Raises:
        InputError, ShapeError, DTypeError: no array, or numbers that the module does not take.
    """
    parts = parts_of(x, name)
    if parts is None:
        return _checked(x, name, dtypes, axes=2)
    return joined({field: _checked(value, named(name, field), dtypes, axes=1) for field, value in parts.items()}, name)


def unpacked(x: np.ndarray, dtypes: Dtypes, device: str) -> Inputs:
    """Tensors of the samples, by name."""
    result = {}
    for field, part in fields_of(x).items():
        # A copy: forward may write to what it gets.
        tensor = torch.from_numpy(np.array(part, order="C")).to(device)
        result[field] = tensor.to(dtypes.half) if dtypes.half is not None and tensor.is_floating_point() else tensor
    return result


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """How forward is called with them."""
    by_name = {field: value for field, value in inputs.items() if field and not field.isdigit()}
    positions = sorted((field for field in inputs if field not in by_name), key=lambda field: int(field or 0))
    return tuple(inputs[field] for field in positions), by_name


def takes_numbers(x: np.ndarray) -> bool:
    """Whether there is one input, of real numbers: then there are derivatives by it."""
    return x.dtype.names is None and x.dtype.kind == "f"


def _checked(value: Any, name: str, dtypes: Dtypes, axes: int) -> np.ndarray:
    if isinstance(value, Collection) and len(value) == 0 and not hasattr(value, "shape"):
        raise InputError(f"{name} is empty", allowed="at least one sample", remedy="check the selection")
    if is_tensor(value) and value.dtype in HALVES:
        value = value.detach().float()  # exact, and NumPy has no bfloat16
    array = as_array(value, name)
    if array.dtype == np.float64 and not has_dtype(value):
        array = array.astype(_numpy(dtypes.kernel))  # Python's numbers have no dtype, and take the module's
    check_extent(array, name, axes)
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise DTypeError(f"{name} has dtype {array.dtype}", allowed="floats, or integer tokens", remedy="convert it")
    if not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} is {array[bad]} at {bad}", allowed="finite numbers", remedy="clean the data")
    allowed = set(dtypes.names) | ({"float32"} if dtypes.half is not None else set())
    if array.dtype.name not in allowed:
        raise DTypeError(
            f"{name} has dtype {array.dtype}, the module has {', '.join(dtypes.names)}",
            allowed="one dtype for both: it is never changed silently",
            remedy=f"convert {name}" + (f", or module.to(torch.{array.dtype})" if array.itemsize <= 8 else ""),
        )
    return array


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))
