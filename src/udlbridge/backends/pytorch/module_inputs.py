"""The samples of a module as one array, whatever it takes: one input, several by position, or several by name.

Several inputs are the fields of a structured array (n,), so that samples can be counted and cut like any others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from udlbridge.arrays import as_array, has_dtype, is_tensor
from udlbridge.errors import DTypeError, InputError, ShapeError
from udlbridge.networks.inputs import check_extent

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
    if isinstance(x, np.ndarray) and x.dtype.names is not None:
        parts = {field: x[field] for field in x.dtype.names}
    elif isinstance(x, Mapping):
        parts = {str(field): value for field, value in x.items()}
    elif isinstance(x, tuple) and all(hasattr(value, "ndim") for value in x) and any(value.ndim for value in x):
        parts = {str(position): value for position, value in enumerate(x)}
    else:
        return _checked(x, name, dtypes, axes=2)
    if not parts:
        raise InputError(f"{name} has no inputs", allowed="arrays by name or position", remedy="give them")
    arrays = {field: _checked(value, f"{name}[{_key(field)}]", dtypes, axes=1) for field, value in parts.items()}
    counts = {field: len(array) for field, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ShapeError(
            f"the inputs in {name} have different numbers of samples: {counts}",
            allowed="samples along the first axis of each",
            remedy="repeat what is the same for all samples",
        )
    fields = [(field, array.dtype, array.shape[1:]) for field, array in arrays.items()]
    result = np.empty(next(iter(counts.values())), dtype=fields)
    for field, array in arrays.items():
        result[field] = array
    return result


def unpacked(x: np.ndarray, dtypes: Dtypes, device: str) -> Inputs:
    """Tensors of the samples, by name."""
    parts = {"": x} if x.dtype.names is None else {field: x[field] for field in x.dtype.names}
    result = {}
    for field, part in parts.items():
        # A copy: forward may write to what it gets.
        tensor = torch.from_numpy(np.array(part, order="C")).to(device)
        result[field] = tensor.to(dtypes.half) if dtypes.half is not None and tensor.is_floating_point() else tensor
    return result


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """How forward is called with them."""
    by_position = tuple(value for field, value in inputs.items() if field == "" or field.isdigit())
    return by_position, {field: value for field, value in inputs.items() if field and not field.isdigit()}


def takes_numbers(x: np.ndarray) -> bool:
    """Whether there is one input, of real numbers: then there are derivatives by it."""
    return x.dtype.names is None and x.dtype.kind == "f"


def _key(field: str) -> str:
    return field if field.isdigit() else repr(field)


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
