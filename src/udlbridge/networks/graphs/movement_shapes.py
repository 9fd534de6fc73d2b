"""Rules of shapes for what moves entries and computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from udlbridge.networks.graphs.shapes import Attributes, broadcast, floats, need
from udlbridge.networks.graphs.values import Value, concrete


def reshape(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The same numbers in C order."""
    shape = concrete(a["shape"], n)
    need(prod(shape) == prod(values[0].shape), f"{values[0].shape} as {shape}")
    return Value(shape, values[0].kind)


def expand(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Broadcast to a shape."""
    shape = concrete(a["shape"], n)
    need(broadcast(values[0].shape, shape) == shape, f"{values[0].shape} as {shape}")
    return Value(shape, values[0].kind)


def permute(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The axes in another order."""
    x, axes = values[0].shape, a["axes"]
    need(sorted(axes) == list(range(len(x))), f"axes {axes} of {x}")
    return Value(tuple(x[axis] for axis in axes), values[0].kind)


def slices(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """A part of an axis."""
    x, axis = values[0].shape, a["axis"]
    need(axis < len(x), f"axis {axis} of {x}")
    need(a["start"] < a["stop"] <= x[axis], f"{a['start']} to {a['stop']} of {x[axis]}")
    count = -(-(a["stop"] - a["start"]) // a["step"])
    return Value((*x[:axis], count, *x[axis + 1 :]), values[0].kind)


def take(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(..., size, ...), (count) -> (..., count, ...)."""
    x, index, axis = values[0].shape, values[1], a["axis"]
    need(axis < len(x), f"axis {axis} of {x}")
    need(index.kind == "int" and len(index.shape) == 1, "the places are whole numbers along one axis")
    return Value((*x[:axis], index.shape[0], *x[axis + 1 :]), values[0].kind)


def concatenate(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """One after the other along an axis."""
    first, axis = values[0], a["axis"]
    need(axis < len(first.shape), f"axis {axis} of {first.shape}")
    rest = [(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values]
    need(all(one == rest[0] for one in rest), f"shapes {[value.shape for value in values]} along axis {axis}")
    need(all(value.kind == first.kind for value in values), "values of different kinds")
    total = sum(value.shape[axis] for value in values)
    return Value((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.kind)


def pad(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """More at the ends of axes; what is mirrored or repeated has to be there."""
    floats(values)
    x, pads = values[0].shape, a["pads"]
    need(len(pads) == len(x), f"{len(pads)} pairs for {x}")
    most = {"reflect": -1, "circular": 0}.get(a["mode"])
    if most is not None:
        need(all(max(pair) <= size + most for pair, size in zip(pads, x, strict=True)), f"{pads} is too much for {x}")
    return Value(tuple(size + sum(pair) for size, pair in zip(x, pads, strict=True)), "float")
