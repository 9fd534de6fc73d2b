"""Several inputs of a network as one array: fields of a structured array (n,), so that samples are cut like any others.

They come by name, in a mapping, or by position, in a tuple of arrays; the names of positions are their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from udlbridge.errors import InputError, ShapeError


def parts_of(x: Any, name: str) -> dict[str, Any] | None:
    """The inputs by name, in any containers, that `x` means; None where it means one.

    Raises:
        InputError: a mapping or a tuple of none.
    """
    if isinstance(x, np.ndarray):
        return None if x.dtype.names is None else {field: x[field] for field in x.dtype.names}
    if isinstance(x, Mapping):
        parts = {str(field): value for field, value in x.items()}
    elif isinstance(x, tuple) and all(hasattr(value, "ndim") for value in x) and any(value.ndim for value in x):
        parts = {str(position): value for position, value in enumerate(x)}
    else:
        return None
    if not parts:
        raise InputError(f"{name} has no inputs", allowed="arrays by name or position", remedy="give them")
    return parts


def check_single(x: Any, name: str, owner: str) -> None:
    """Raise `InputError` for several inputs by name in the place of the one that the network, `owner`, takes."""
    parts = None if isinstance(x, tuple) else parts_of(x, name)
    if parts is not None:
        raise InputError(
            f"{name} has the inputs {', '.join(map(repr, parts))}, {owner} takes one input",
            allowed="one array",
            remedy="give the one that is meant",
        )


def named(name: str, field: str) -> str:
    """What an error calls an input, as code: x[0], x['mask']; of the only one, "", the name of the samples."""
    if field == "":
        return name
    return f"{name}[{field if field.isdigit() else repr(field)}]"


def joined(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The inputs (n, *shape) by name as the fields of one array (n,).

    Raises:
        ShapeError: they have different numbers of samples.
    """
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


def fields_of(x: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs by name, each in C order as an array of its own; the only one, "", as it is."""
    return {"": x} if x.dtype.names is None else {field: np.array(x[field], order="C") for field in x.dtype.names}


def in_dtype(x: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Samples with their real numbers in another dtype, those of several inputs too; tokens and masks as they are."""

    def converted(own: np.dtype[Any]) -> np.dtype[Any]:
        return dtype if own.kind == "f" else own

    if x.dtype.names is None:
        return x.astype(converted(x.dtype))
    return x.astype([(field, converted(x.dtype[field].base), x.dtype[field].shape) for field in x.dtype.names])
