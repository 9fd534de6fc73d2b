"""The arrays of a model as they are given, checked: names, shapes, dtypes and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from udlbridge.arrays import as_array, has_dtype
from udlbridge.errors import DTypeError, InputError, ParameterError
from udlbridge.networks.init import FLOATS
from udlbridge.networks.layers import Shape
from udlbridge.options import brief
from udlbridge.texts import kind_of
from udlbridge.words import FloatWord


def checked_dtype(dtype: object) -> FloatWord:
    """The name of a dtype that a model may have.

    Raises:
        DTypeError: another one.
    """
    try:
        name = np.dtype(dtype).name  # type: ignore[call-overload]
    except Exception:  # NumPy reads words as Python's own text, and raises whatever that does
        name = dtype[:80] if isinstance(dtype, str) else brief(dtype)
    if name not in FLOATS:
        raise DTypeError(
            f"a model of dtype {name}",
            allowed="float32 (for scale), float64 (for checking)",
            remedy='say dtype="float32" or dtype="float64"',
        )
    return cast(FloatWord, str(name))


def as_parameter(name: str, value: object, wanted: np.dtype[Any] | str) -> np.ndarray:
    """The array in any container.

    Raises:
        ParameterError: the door for numbers refuses it.
    """
    try:
        return as_array(value, f"parameter {name}", wanted=np.dtype(wanted))
    except InputError as error:
        raise ParameterError(error.given, allowed=error.allowed, remedy=error.remedy) from None


def checked_arrays(
    params: Mapping[str, np.ndarray], trained: Mapping[str, Shape], buffers: Mapping[str, Shape], dtype: str
) -> tuple[dict[str, np.ndarray], FloatWord]:
    """Checked copies of the parameters and of the buffers that are among them, and the dtype of all.

    `trained` and `buffers` are the shapes that the layers ask for; `dtype` is that of lists of Python's numbers, which
    have none, where no other array has one.

    Raises:
        ParameterError: a name is missing or unknown, or an array is misshapen, not finite, or of another dtype.
    """
    if not isinstance(params, Mapping):
        raise ParameterError(
            f"{kind_of(params)} in the place of the parameters",
            allowed="arrays by name, in a dict",
            remedy='as params={"0.weight": weight, "0.bias": bias}',
        )
    expected = {**trained, **{name: shape for name, shape in buffers.items() if name in params}}
    listing = "; ".join(f"{name} {shape}" for name, shape in expected.items()) or "no parameters at all"
    _check_names(params, expected, listing)
    typed = {name: as_parameter(name, params[name], dtype) for name in expected if has_dtype(params[name])}
    wanted = next((value.dtype for value in typed.values()), np.dtype(dtype))
    values: dict[str, np.ndarray] = {}
    for name, shape in expected.items():
        found = typed[name] if name in typed else as_parameter(name, params[name], wanted)
        values[name] = np.array(found, order="C")  # a copy: the model must not change when the caller's array does
        _check_array(name, values[name], shape, listing)
    dtypes = {value.dtype.name for value in values.values()}
    if len(dtypes) > 1:
        raise ParameterError(
            f"the parameters have several dtypes: {', '.join(sorted(dtypes))}",
            allowed="one dtype for all",
            remedy="convert them with .astype",
        )
    for name in expected:
        if name.endswith("running_var") and name in buffers and (values[name] < 0).any():
            raise ParameterError(
                f"{name} has a negative entry", allowed="variances of at least 0", remedy="check the order of names"
            )
    return values, checked_dtype(dtypes.pop() if dtypes else dtype)


def _check_names(params: Mapping[str, np.ndarray], expected: Mapping[str, Shape], listing: str) -> None:
    missing = [name for name in expected if name not in params]
    unknown = [name for name in params if name not in expected]
    if missing or unknown:
        words = [f"missing: {', '.join(missing)}"] if missing else []
        words += [f"unknown: {', '.join(map(repr, unknown))}"] if unknown else []
        raise ParameterError(
            f"the names of the parameters do not fit the layers ({'; '.join(words)})",
            allowed=listing,
            remedy="give exactly these names",
        )


def _check_array(name: str, value: np.ndarray, shape: Shape, listing: str) -> None:
    if value.shape != shape:
        hint = ""
        if len(shape) == 2 and value.shape == shape[::-1]:
            hint = " (it looks transposed: the layout is (out, in))"
        elif len(shape) > 2 and sorted(value.shape) == sorted(shape):
            hint = " (its axes are in another order: the layout is (out, in/groups, *kernel), as in PyTorch)"
        raise ParameterError(
            f"parameter {name} has shape {value.shape}{hint}", allowed=listing, remedy=f"reshape it to {shape}"
        )
    if value.dtype.name not in FLOATS:
        raise ParameterError(
            f"parameter {name} has dtype {value.dtype}",
            allowed="float32 or float64, the same for all",
            remedy="convert it with .astype",
        )
    if not np.isfinite(value).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise ParameterError(
            f"parameter {name} is {value[bad]} at {bad}", allowed="finite numbers", remedy="clean the weights"
        )
