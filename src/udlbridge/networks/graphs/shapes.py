"""Rules of shapes: from the shapes and kinds of what goes into an operation to those of what comes out.

A rule raises `ShapeFault` with the reason where something does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from udlbridge.networks.graphs.values import Shape, Value, concrete

Attributes = Mapping[str, Any]
Rule = Callable[[Attributes, Sequence[Value], int], Value]
"""Attributes, the values that go in, and the number of samples, to the value that comes out."""


class ShapeFault(Exception):  # noqa: N818 - it becomes a GraphError where the node is known
    """Why the inputs of an operation do not fit."""


def need(holds: bool, reason: str) -> None:
    """Raise the reason unless it holds."""
    if not holds:
        raise ShapeFault(reason)


def floats(values: Sequence[Value]) -> None:
    """All are numbers of the graph's dtype."""
    for value in values:
        need(value.kind == "float", f"it takes numbers, not {value.kind}")


def broadcast(*shapes: Shape) -> Shape:
    """As NumPy broadcasts."""
    result: list[int] = []
    for shape in shapes:
        longer = max(len(result), len(shape))
        left, right = (1,) * (longer - len(result)) + tuple(result), (1,) * (longer - len(shape)) + shape
        for a, b in zip(left, right, strict=True):
            need(a == b or 1 in (a, b), f"shapes {shapes} do not broadcast")
        result = [b if a == 1 else a for a, b in zip(left, right, strict=True)]
    return tuple(result)


def elementwise(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Numbers, broadcast."""
    floats(values)
    return Value(broadcast(*(value.shape for value in values)), "float")


def same(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The shape of the first, of numbers."""
    floats(values)
    return values[0]


def untouched(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Shape and kind of the first, whatever kind."""
    return values[0]


def compared(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Truth values, broadcast."""
    need(values[0].kind == values[1].kind, "the two are of different kinds")
    return Value(broadcast(values[0].shape, values[1].shape), "bool")


def where(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Truth values choose between numbers."""
    condition, one, other = values
    need(condition.kind == "bool", "the first has to be truth values")
    floats((one, other))
    return Value(broadcast(condition.shape, one.shape, other.shape), "float")


def cast(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Truth values or whole numbers as numbers."""
    need(values[0].kind != "float", "it takes truth values or whole numbers")
    return Value(values[0].shape, "float")


def whole(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Numbers as whole numbers."""
    floats(values)
    return Value(values[0].shape, "int")


def filled(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The shape of the attribute."""
    return Value(concrete(a["shape"], n), "float")


def linear(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(..., in), (out, in), (out) -> (..., out)."""
    floats(values)
    x, weight = values[0].shape, values[1].shape
    need(len(weight) == 2 and len(x) >= 1 and x[-1] == weight[1], f"a map of {weight} on {x}")
    need(len(values) < 3 or values[2].shape == weight[:1], "the bias does not have one number for each output")
    return Value((*x[:-1], weight[0]), "float")


def matmul(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(..., p, q), (..., q, r) -> (..., p, r)."""
    floats(values)
    left, right = values[0].shape, values[1].shape
    need(len(left) >= 2 and len(right) >= 2 and left[-1] == right[-2], f"a product of {left} and {right}")
    return Value((*broadcast(left[:-2], right[:-2]), left[-2], right[-1]), "float")


def einsum(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """As the equation says."""
    floats(values)
    terms, output = a["equation"].split("->")
    sizes: dict[str, int] = {}
    for letters, value in zip(terms.split(","), values, strict=True):
        need(len(letters) == len(value.shape), f"{letters!r} for a value of shape {value.shape}")
        for letter, size in zip(letters, value.shape, strict=True):
            need(sizes.setdefault(letter, size) == size, f"two extents for {letter!r}")
    return Value(tuple(sizes[letter] for letter in output), "float")


def reduction(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The axes go, or stay with extent 1."""
    floats(values)
    x, axes = values[0].shape, a["axes"]
    need(all(axis < len(x) for axis in axes) and len(set(axes)) == len(axes), f"axes {axes} of {x}")
    need(prod(x[axis] for axis in axes) > 0, "there is nothing to reduce")
    if a["keep"]:
        return Value(tuple(1 if axis in axes else size for axis, size in enumerate(x)), "float")
    return Value(tuple(size for axis, size in enumerate(x) if axis not in axes), "float")


def variance(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """As a reduction, of more numbers than the correction."""
    result = reduction(a, values, n)
    need(prod(values[0].shape[axis] for axis in a["axes"]) > a["correction"], "too few numbers for the correction")
    return result


def along(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """An axis that exists."""
    floats(values)
    need(a["axis"] < len(values[0].shape), f"axis {a['axis']} of {values[0].shape}")
    return values[0]


def last_axes(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Scale and shift have the shape of the last axes."""
    floats(values)
    x = values[0].shape
    need(a["axes"] <= len(x), f"{a['axes']} axes of {x}")
    own = x[len(x) - a["axes"] :]
    need(all(value.shape == own for value in values[1:]), f"scale and shift of another shape than {own}")
    return values[0]


def channels(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """What comes besides has one number for each channel."""
    floats(values)
    x = values[0].shape
    need(len(x) >= 2, f"{x} has no channels")
    need(x[1] % a.get("groups", 1) == 0, f"{a.get('groups')} groups of {x[1]} channels")
    need(all(value.shape == (x[1],) for value in values[1:]), "not one number for each channel")
    return values[0]


def prelu(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """The slopes broadcast to the shape of the numbers."""
    floats(values)
    need(broadcast(values[0].shape, values[1].shape) == values[0].shape, "the slopes do not broadcast")
    return values[0]


def embedding(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(rows, q), (*tokens) -> (*tokens, q)."""
    table, tokens = values
    need(table.kind == "float" and len(table.shape) == 2, "the first is a table of numbers")
    need(tokens.kind == "int", "the second are whole numbers")
    need(-1 <= a["padding"] < table.shape[0], f"row {a['padding']} of {table.shape[0]}")
    return Value((*tokens.shape, table.shape[1]), "float")


def attention(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(..., q, d), (..., k, d), (..., k, v), mask (..., q, k) -> (..., q, v)."""
    query, key, value = (one.shape for one in values[:3])
    floats(values[:3])
    need(min(len(query), len(key), len(value)) >= 2, "queries, keys and values have two axes at least")
    need(query[-1] == key[-1] and key[-2] == value[-2], f"queries {query}, keys {key}, values {value}")
    outer = broadcast(query[:-2], key[:-2], value[:-2])
    if len(values) > 3:
        need(not a["causal"], "causal, and a mask besides")
        scores = (*outer, query[-2], key[-2])
        need(values[3].kind != "int" and broadcast(values[3].shape, scores) == scores, "the mask does not fit")
    return Value((*outer, query[-2], value[-1]), "float")


def truth(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """Truth values, broadcast."""
    need(all(value.kind == "bool" for value in values), "it takes truth values")
    return Value(broadcast(*(value.shape for value in values)), "bool")
