"""The arrays of a graph: taken from any containers, of one dtype, under names that cannot be mistaken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from udlbridge.arrays import has_dtype
from udlbridge.errors import GraphError, ParameterError
from udlbridge.networks.init import FLOATS
from udlbridge.networks.parameters import as_parameter, checked_dtype
from udlbridge.words import DtypeWord, FloatWord

INPUT = "x"
"""The name of the value that the samples are, where there is one input; of several, see `entries.value_name`."""


def taken_arrays(given: Mapping[str, Any], dtype: str) -> dict[str, np.ndarray]:
    """Read-only copies of the arrays in any containers."""
    found = {name: as_parameter(name, value, dtype) for name, value in given.items() if has_dtype(value)}
    wanted = next((value.dtype for value in found.values() if value.dtype.kind == "f"), np.dtype(dtype))
    rest = {name: as_parameter(name, value, wanted) for name, value in given.items() if name not in found}
    every = {**found, **rest}
    return {name: _frozen(every[name]) for name in given}


def common_dtype(params: Mapping[str, np.ndarray], buffers: Mapping[str, np.ndarray], dtype: DtypeWord) -> FloatWord:
    """The dtype of all numbers, or `dtype` where there are none.

    Raises:
        ParameterError: several dtypes, another one, or parameters that are not finite.
    """
    found: dict[str, str] = {}
    for name, value in {**params, **buffers}.items():
        kind = value.dtype.name
        if name in buffers and kind in ("int64", "bool"):
            continue
        if kind not in FLOATS:
            raise ParameterError(
                f"{name} has dtype {kind}",
                allowed="float32 or float64, the same for all; buffers also int64 and bool",
                remedy="convert it with .astype",
            )
        if name in params and not np.isfinite(value).all():
            raise ParameterError(
                f"parameter {name} is not finite", allowed="finite numbers", remedy="clean the weights"
            )
        found[kind] = name
    if len(found) > 1:
        raise ParameterError(
            "; ".join(f"{name} has dtype {kind}" for kind, name in found.items()),
            allowed="one dtype for all",
            remedy="convert them with .astype",
        )
    return checked_dtype(next(iter(found), dtype))


def check_names(
    inputs: Iterable[str],
    params: Mapping[str, np.ndarray],
    buffers: Mapping[str, np.ndarray],
    aliases: Mapping[str, str],
) -> None:
    """Raise `GraphError` where a name stands for two values, or for what cannot be, or an alias for no parameter."""
    values, names = list(inputs), [*params, *buffers, *aliases]
    every = [*values, *names]
    twice = sorted({name for name in every if every.count(name) > 1}) if len(set(every)) < len(every) else []
    if twice:
        raise GraphError(f"the name {twice[0]!r} stands for two values", allowed="a name for each", remedy="rename one")
    paths = {name[:dot] for name in names for dot, letter in enumerate(name) if letter == "."}
    odd = [name for name in names if name in paths or not all(name.split("."))]
    if odd:
        raise GraphError(
            f"the name {odd[0]!r} of an array",
            allowed="words with dots between them, as modules name their parameters, and no path of another name",
            remedy="rename it",
        )
    unknown = [name for name in aliases.values() if name not in params]
    if unknown:
        raise GraphError(
            f"an alias of {unknown[0]!r}, which is not a parameter", allowed="parameters", remedy="correct aliases"
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    result = np.array(array, order="C")  # a copy: the graph must not change when the caller's array does
    result.flags.writeable = False
    return result
