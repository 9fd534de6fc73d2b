"""Translations of what takes entries by places that are computed, and of what computes such places.

A place is compared with all that there are, and what it names is the sum of what is left of the others, which are 0: so
the values are exact, and the derivatives those of taking. Whole numbers are kept as numbers of the graph's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Rows, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float, as_whole
from udlbridge.conversion.graphs.movement import index as index_by_constants
from udlbridge.conversion.graphs.movement import piece, take
from udlbridge.conversion.graphs.nearest import whole
from udlbridge.networks.graphs.values import Extent, PerSample

Extents = tuple[Extent, ...]


def noted(c: Call, of: Any, found: Value) -> Value:
    """Entries of whole numbers are whole numbers."""
    if c.builder.is_whole(of):
        c.builder.whole.add(found)
    return found


def counting(c: Call, count: int, ndim: int, axis: int) -> Tensor:
    """0, 1, 2 and so on along an axis of `ndim`."""
    return torch.arange(count, dtype=c.builder.dtype).reshape([count if one == axis else 1 for one in range(ndim)])


def cut(c: Call, x: Any, shape: Extents, but: int) -> Any:
    """The first entries along all axes but one, as many as a shape has.

    Raises:
        Unfit: it would take a part of the samples.
    """
    for axis, (own, wanted) in enumerate(zip(c.shape(x), shape, strict=True)):
        if axis != but and own != wanted:
            if isinstance(wanted, PerSample) or isinstance(own, PerSample):
                raise Unfit("it takes a part of the samples")
            x = piece(c, x, axis, 0, wanted)
    return x


def gather(c: Call) -> Value:
    """Along an axis, at places of their own everywhere."""
    x, axis, places = as_float(c, c["self"]), c.axis(c["self"], c["dim"]), c["index"]
    x = cut(c, x, c.shape(places), axis)
    constant = c.builder.spread.get(places) if isinstance(places, Value) else places
    if isinstance(constant, Tensor):
        return noted(c, c["self"], gather_constant(c, x, axis, constant))
    count = c.size(places, axis)
    return noted(c, c["self"], chosen(c, x, as_float(c, places), axis, count))


def chosen(c: Call, x: Any, places: Any, axis: int, count: int) -> Value:
    """The entries of an axis that stand at `count` places along it, with the other axes alike."""
    shape = c.shape(x)
    before, behind, size = shape[:axis], shape[axis + 1 :], c.size(x, axis)
    wide = (*before, count, size, *behind)
    rows = c.reshape(places, (*c.shape(places)[:axis], count, 1, *c.shape(places)[axis + 1 :]))
    here = c.add("compare", rows, counting(c, size, len(wide), axis + 1), shape=wide, relation="equal")
    alone = c.add("where", here, c.reshape(x, (*before, 1, size, *behind)), 0.0, shape=wide)
    return c.add("sum", alone, shape=(*before, count, *behind), axes=(axis + 1,), keep=False)


def gather_constant(c: Call, x: Any, axis: int, places: Tensor) -> Value:
    """The same for places that are constants: of the axes along which they differ, all at once."""
    shape, ndim, size = c.shape(x), c.ndim(x), c.size(x, axis)
    places = places.reshape([1] * (ndim - places.ndim) + list(places.shape))
    count = c.size(c["index"], axis)
    differ = [one for one in range(ndim) if one != axis and places.shape[one] > 1]
    rest = [one for one in range(ndim) if one != axis and one not in differ]
    order = (*rest, *differ, axis)
    flat = places.expand([count if one == axis else -1 for one in range(ndim)]).permute(order).reshape(-1, count)
    flat = (torch.arange(len(flat))[:, None] * size + flat).flatten()
    kept, sizes = tuple(shape[one] for one in rest), tuple(c.size(x, one) for one in differ)
    moved = c.add("permute", x, shape=(*kept, *sizes, size), axes=order)
    line = take(c, c.reshape(moved, (*kept, len(flat) // max(count, 1) * size)), len(rest), flat)
    back = c.reshape(line, (*kept, *sizes, count))
    return c.add("permute", back, axes=tuple(order.index(one) for one in range(ndim)))


def index(c: Call) -> Value:
    """x[..., places, ...] of places that are computed: of a table the same for all samples, or of every sample's own.

    Raises:
        Unfit: places along axes that are apart, and what `movement.index` refuses.
    """
    x, given = c["self"], list(c["indices"])
    axes = [axis for axis, one in enumerate(given) if one is not None]
    own = bool(axes) and axes[0] == 0 and c.shape(x)[0] == PerSample(1) and isinstance(given[0], Rows)
    axes = axes[1:] if own else axes
    if not any(isinstance(given[axis], Value) for axis in axes):
        return index_by_constants(c)
    kinds = [c.builder.kinds.get(given[axis], "float") for axis in axes if isinstance(given[axis], Value)]
    if "bool" in kinds or any(isinstance(given[axis], Rows) for axis in axes):
        raise Unfit("its places are computed")
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise Unfit("it takes places of axes that are apart")
    if any(isinstance(size, PerSample) for size in c.shape(x)[1 if own else 0 :]) or (own and axes[0] != 1):
        raise Unfit("its places are computed, along with those of the samples")
    shape, sizes = c.shape(x), [c.size(x, axis) for axis in axes]
    places = flattened(c, [given[axis] for axis in axes], sizes)
    total = torch.Size(sizes).numel()
    merged = c.reshape(as_float(c, x), (*shape[: axes[0]], total, *shape[axes[-1] + 1 :]))
    if not own:
        return noted(c, x, from_table(c, merged, axes[0], places))
    lead, rest = c.shape(places), shape[axes[-1] + 1 :]
    if not lead or lead[0] != PerSample(1):
        raise Unfit("it takes places of samples in an order of its own")
    count = 1
    for size in lead[1:]:
        if isinstance(size, PerSample):
            raise Unfit("it takes places of samples in an order of its own")
        count *= size
    column = c.reshape(places, (lead[0], count, *[1] * len(rest)))
    return noted(c, x, c.reshape(chosen(c, merged, column, 1, count)))


def flattened(c: Call, places: Sequence[Any], sizes: Sequence[int]) -> Value:
    """The places along several axes as those along one; from the end where they are negative."""
    result: Any = None
    for one, size in zip(places, sizes, strict=True):
        number = as_float(c, one)
        own = c.shape(number)
        negative = c.add("compare", number, 0.0, shape=own, relation="less")
        number = c.add("where", negative, c.add("add", number, float(size), shape=own), number, shape=own)
        if result is None:
            result = number
            continue
        shape = broadcast(c.shape(result), own)
        result = c.add("multiply", result, float(size), shape=c.shape(result))
        result = c.add("add", result, number, shape=shape)
    return c.value(result)


def broadcast(one: Extents, other: Extents) -> Extents:
    """The shape of both together."""
    longer = max(len(one), len(other))
    pairs = zip((1,) * (longer - len(one)) + one, (1,) * (longer - len(other)) + other, strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def from_table(c: Call, table: Any, axis: int, places: Value) -> Value:
    """Rows of an array that is the same for all samples."""
    shape, lead = c.shape(table), c.shape(places)
    rest = (*shape[:axis], *shape[axis + 1 :])
    order = (axis, *(one for one in range(len(shape)) if one != axis))
    first = table if axis == 0 else c.add("permute", table, shape=(shape[axis], *rest), axes=order)
    width = torch.Size([int(size) for size in rest if isinstance(size, int)]).numel()
    rows = c.reshape(first, (shape[axis], width))
    found = c.add("embedding", rows, as_whole(c, places), shape=(*lead, width), padding=-1)
    found = c.reshape(found, (*lead, *rest))
    if axis == 0:
        return found
    k = len(lead)
    return c.add("permute", found, axes=(*range(k, k + axis), *range(k), *range(k + axis, k + len(rest))))


def index_select(c: Call) -> Value:
    """Entries of an axis, of a table that is the same for all samples where the places are computed.

    Raises:
        Unfit: the places are computed, and every sample has entries of its own.
    """
    x, places = c["self"], c["index"]
    axis = c.axis(x, c["dim"])
    if isinstance(places, Tensor):
        return take(c, x, axis, places % c.size(x, axis))
    if not isinstance(places, Value) or any(isinstance(size, PerSample) for size in c.shape(x)):
        raise Unfit("its places are computed")
    return noted(c, x, from_table(c, as_float(c, x), axis, as_float(c, places)))


def first_place(c: Call, x: Any, axis: int, op: str) -> Value:
    """Where the largest or smallest number of an axis stands; of several, the first."""
    x, size = as_float(c, x), c.size(x, axis)
    shape = c.shape(x)
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    extreme = c.add(op, x, shape=single, axes=(axis,), keep=True, ties="share")
    here = c.add("compare", x, extreme, shape=shape, relation="equal")
    places = c.add("where", here, counting(c, size, len(shape), axis), float(size - 1), shape=shape)
    found = c.add("min", places, shape=single, axes=(axis,), keep=True, ties="share")
    c.builder.whole.add(found)
    return found


def place_of_extreme(op: str) -> Translation:
    """Along an axis.

    Raises:
        Unfit: along all axes at once.
    """

    def translate(c: Call) -> Value:
        if c["dim"] is None:
            raise Unfit("it is asked for a place among all samples")
        x = c["self"]
        return whole(c, c.reshape(first_place(c, x, c.axis(x, c["dim"]), op)))

    return translate


def extreme(op: str) -> Translation:
    """With an axis torch gives places too, and the slope goes to the first."""

    def translate(c: Call) -> Any:
        x = as_float(c, c["self"])
        if "dim" not in c.arguments:
            if "other" in c.arguments:
                return c.add(f"{op}imum", x, as_float(c, c["other"]))
            return c.add(op, x, axes=c.axes(x, None), keep=False, ties="share")
        axis = c.axis(x, c["dim"])
        found = noted(c, c["self"], c.add(op, x, axes=(axis,), keep=bool(c["keepdim"]), ties="first"))
        return found, whole(c, c.reshape(first_place(c, x, axis, op))) if c.asked(1) else None

    return translate


def one_hot(c: Call) -> Value:
    """1 at the place that a whole number says, and 0 elsewhere.

    Raises:
        Unfit: the number of classes is that of the data.
    """
    places, count = as_float(c, c["self"]), c["num_classes"]
    if count < 0:
        raise Unfit("the number of classes depends on the data: give num_classes")
    shape = c.shape()
    column = c.reshape(places, (*c.shape(places), 1))
    here = c.add("compare", column, counting(c, count, len(shape), len(shape) - 1), relation="equal")
    return whole(c, c.add("cast", here))


def bucketize(c: Call) -> Value:
    """How many of the boundaries are below, or with `right` at most, each number.

    Raises:
        Unfit: the boundaries are computed.
    """
    x, bounds = as_float(c, c.get("self", c.get("input"))), c["boundaries"]
    if not isinstance(bounds, Tensor):
        raise Unfit("its boundaries are computed")
    shape = (*c.shape(x), len(bounds))
    relation = "greater_equal" if c["right"] else "greater"
    above = c.add("compare", c.reshape(x, (*c.shape(x), 1)), as_float(c, bounds), shape=shape, relation=relation)
    numbers = c.add("cast", above, shape=shape)
    return whole(c, c.add("sum", numbers, axes=(len(shape) - 1,), keep=False))


TRANSLATIONS: dict[str, Translation] = {
    "gather": gather,
    "index": index,
    "index_select": index_select,
    "argmax": place_of_extreme("max"),
    "argmin": place_of_extreme("min"),
    "max": extreme("max"),
    "min": extreme("min"),
    "one_hot": one_hot,
    "bucketize": bucketize,
}
"""By the name of torch's operation."""
