"""What goes into a graph: one input, or several by name, and how samples of them are checked and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, get_args

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.errors import DTypeError, GraphError, InputError, OptionError, ShapeError
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.node import MOST_NUMBERS
from udlbridge.networks.graphs.values import Kind, Shape, Value
from udlbridge.networks.inputs import check_dtype, check_extent, check_finite, check_known, check_whole
from udlbridge.networks.several import check_single, joined, named, parts_of
from udlbridge.options import brief, checked_flag, checked_mapping, checked_shape

KINDS: tuple[Kind, ...] = get_args(Kind)

Bounds = Callable[[str], np.ndarray]
"""By an input's name, how many tokens there are at each place of a sample of it, 0 where none is looked up."""


def value_name(field: str) -> str:
    """The name that an input has among the values of a graph: "x", or of several "x[a]" for the one called "a"."""
    return INPUT if field == "" else f"{INPUT}[{field}]"


def checked_entries(
    sample_shape: Sequence[int] | None, tokens: bool, inputs: Mapping[str, tuple[Sequence[int], Kind]] | None
) -> dict[str, Value]:
    """Shape of one sample and kind of every input by name; "" is the only one.

    Raises:
        OptionError: both ways to say it at once, or neither; shapes that are none.
        GraphError: names or kinds that cannot be.
    """
    flag = checked_flag("tokens", tokens)
    if inputs is None:
        return {"": Value(checked_shape("sample_shape", sample_shape), "int" if flag else "float")}
    if sample_shape is not None or flag:
        raise OptionError(
            "inputs= together with " + ("tokens=" if sample_shape is None else "sample_shape="),
            allowed="sample_shape= and tokens= for one input, inputs= for several",
            remedy="leave one of them out",
        )
    found = {}
    for field, value in checked_mapping("inputs", inputs).items():
        shape, kind = value if isinstance(value, tuple | list) and len(value) == 2 else (None, value)
        if field == "" or kind not in KINDS:
            raise GraphError(
                f"an input called {field!r} that is {brief(value)}",
                allowed=f"a name, and the shape of one sample with a kind: {', '.join(KINDS)}",
                remedy='correct inputs, as inputs={"tokens": ((5,), "int")}',
            )
        found[field] = Value(checked_shape(f"the shape of input {field!r}", shape), kind)
        if prod(found[field].shape) > MOST_NUMBERS:
            raise GraphError(
                f"an input of shape {found[field].shape}", allowed=f"at most {MOST_NUMBERS:,} numbers", remedy="cut it"
            )
    if not found:
        raise GraphError("a graph without inputs", allowed="at least one", remedy="name them, or give sample_shape=")
    return found


def settings_of(inputs: Mapping[str, Value]) -> dict[str, Any]:
    """What makes a graph of these inputs."""
    if "" not in inputs:
        return {"inputs": inputs}
    return {"sample_shape": inputs[""].shape, "tokens": inputs[""].kind == "int"}


def checked_samples(
    x: Any, name: str, entries: Mapping[str, Value], dtype: np.dtype[Any], bounds: Bounds
) -> np.ndarray:
    """Samples (n, *D) of the graph's dtype, or whole numbers as int64; of several inputs (n,), fields in its order.

    Raises:
        InputError: other inputs than those, or what is wrong with the numbers.
        ShapeError, DTypeError: what is wrong with one of them.
    """
    if "" in entries:
        check_single(x, name, "the graph")
        return _checked(x, name, entries[""], dtype, partial(bounds, ""), axes=2)
    parts = parts_of(x, name)
    if parts is None or set(parts) != set(entries):
        given = "one input" if parts is None else f"the inputs {', '.join(map(repr, parts))}"
        by_position = all(field.isdigit() for field in entries)
        remedy = f"give them in a tuple, as {name}=(a, b)" if by_position else f"give them by name: {_example(entries)}"
        raise InputError(
            f"{name} has {given}, the graph takes {', '.join(map(repr, entries))}",
            allowed="the inputs of the example that it was captured with",
            remedy=remedy,
        )
    return joined(
        {
            field: _checked(parts[field], named(name, field), entry, dtype, partial(bounds, field), axes=1)
            for field, entry in entries.items()
        },
        name,
    )


def _example(entries: Mapping[str, Value]) -> str:
    return "{" + ", ".join(f"{field!r}: ..." for field in entries) + "}"


def _checked(
    value: Any, name: str, entry: Value, dtype: np.dtype[Any], bounds: Callable[[], np.ndarray], axes: int
) -> np.ndarray:
    array = as_array(value, name, wanted=dtype if entry.kind == "float" else None)
    if entry.kind == "float":
        check_dtype(array, name, dtype, "the graph", 'graph.astype("{}")')
    elif entry.kind == "int":
        check_whole(array, name, "the graph takes " + ("tokens" if axes == 2 else "whole numbers there"))
    elif array.dtype.kind != "b":
        raise DTypeError(
            f"{name} has dtype {array.dtype}, and the graph takes truth values there",
            allowed="truth values",
            remedy=f"{name}.astype(bool), or compare it with a number",
        )
    check_extent(array, name, axes)
    check_sample_shape(array.shape[1:], entry.shape, name)
    if entry.kind == "float":
        check_finite(array, name)
    elif entry.kind == "int":
        check_known(array, name, bounds())
    return np.ascontiguousarray(array, dtype=np.int64 if entry.kind == "int" else array.dtype)


def check_sample_shape(given: Shape, wanted: Shape, name: str) -> None:
    """Raise `ShapeError` for samples of another shape than the graph's."""
    if given != wanted:
        raise ShapeError(
            f"{name} has samples of shape {given}, the graph takes {wanted}",
            allowed=f"{wanted}: a graph has the shapes of the example that it was captured with",
            remedy="make the graph for samples of that shape",
        )


def random_samples(
    n: int, entries: Mapping[str, Value], dtype: np.dtype[Any], bounds: Bounds, seed: int = 0
) -> np.ndarray:
    """Random samples: normal numbers, and tokens.

    Of what no table is asked for, beside other inputs: counts and masks, which are 1 and 0, true and false by turns. A
    mask of nothing but one of them may leave nothing to look at.
    """
    generator = np.random.default_rng(seed)
    found = {}
    for field, (shape, kind) in entries.items():
        turns = np.broadcast_to((np.arange(prod(shape)) % 2 == 0).reshape(shape), (n, *shape))
        if kind == "float":
            found[field] = generator.standard_normal((n, *shape)).astype(dtype)
        elif kind == "bool":
            found[field] = turns
        else:
            rows = bounds(field)
            drawn = generator.integers(0, np.maximum(rows, 1), size=(n, *shape))
            found[field] = drawn if field == "" else np.where(rows > 0, drawn, turns)
    return found[""] if "" in found else joined(found, INPUT)
