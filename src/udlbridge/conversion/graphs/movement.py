"""Translations of what moves entries and computes nothing."""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Nothing, Rows, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float, first
from udlbridge.networks.graphs.values import PerSample


def slices(c: Call) -> Any:
    """A part of an axis.

    Raises:
        Unfit: it takes a part of the samples.
    """
    x = c["self"]
    axis = c.axis(x, c["dim"])
    before, after = c.shape(x)[axis], c.shape()[axis]
    if before == after:
        return x
    size = c.size(x, axis)
    start = 0 if c["start"] is None else c["start"]
    stop = size if c["end"] is None else c["end"]
    if not isinstance(start, int) or not isinstance(stop, int):
        raise Unfit("it counts along the samples")
    stop = min(stop, size)
    start, stop = (max(index + size, 0) if index < 0 else index for index in (start, stop))
    if start >= stop:
        return Nothing(c.shape())
    return c.add("slice", x, axis=axis, start=start, stop=stop, step=c["step"])


def piece(c: Call, x: Any, axis: int, start: int, count: int) -> Value:
    """Some places of an axis, one after the other."""
    shape = list(c.shape(x))
    shape[axis] = count
    return c.add("slice", x, shape=shape, axis=axis, start=start, stop=start + count, step=1)


def select(c: Call) -> Value:
    """One place of an axis.

    Raises:
        Unfit: its index is computed.
    """
    x, index = c["self"], c["index"]
    axis = c.axis(x, c["dim"])
    size = c.size(x, axis)
    if not isinstance(index, int):
        raise Unfit("its place is computed")
    return c.reshape(piece(c, x, axis, index % size, 1))


def narrow(c: Call) -> Value:
    """Some places of an axis."""
    x = c["self"]
    return piece(c, x, c.axis(x, c["dim"]), c["start"] % c.size(x, c["dim"]), c["length"])


def pieces(c: Call) -> list[Value]:
    """An axis in several parts, as many as come out.

    Raises:
        Unfit: it splits the samples.
    """
    x = first(c)
    axis, start, found = c.axis(x, c.get("dim", 0)), 0, []
    if isinstance(c.shape(x)[axis], PerSample):
        raise Unfit("it parts the samples")
    for one in c.node.meta["seen"]:
        found.append(piece(c, x, axis, start, one.shape[axis]))
        start += one.shape[axis]
    return found


def unbind(c: Call) -> list[Value]:
    """The places of an axis, one by one."""
    x = c["self"]
    axis = c.axis(x, c.get("dim", 0))
    shape = c.shape(x)
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [c.reshape(piece(c, x, axis, index, 1), rest) for index in range(c.size(x, axis))]


def concatenate(c: Call) -> Value:
    """Along an axis; what is empty is left out."""
    parts = [one for one in c["tensors"] if not isinstance(one, Nothing) and c.shape(one) != (0,)]
    if len({c.builder.kinds.get(one, "float") for one in parts if isinstance(one, Value)}) > 1:
        parts = [as_float(c, one) for one in parts]  # whole numbers of both kinds
    return c.add("concatenate", *parts, axis=c.get("dim", 0) % len(c.shape()))


def stack(c: Call) -> Value:
    """Along a new axis."""
    axis = c.get("dim", 0) % len(c.shape())
    shape = (*c.shape()[:axis], 1, *c.shape()[axis + 1 :])
    return c.add("concatenate", *(c.reshape(one, shape) for one in c["tensors"]), axis=axis)


def take(c: Call, x: Any, axis: int, indices: Tensor) -> Value:
    """Entries of an axis, of constant indices."""
    shape = list(c.shape(x))
    shape[axis] = len(indices)
    return c.add("take", x, indices.to(torch.int64), shape=shape, axis=axis)


def diagonal_of(c: Call, x: Any, a: int, b: int, offset: int = 0) -> Value:
    """The diagonal of two axes, as the last one."""
    shape, rows, columns = c.shape(x), c.size(x, a), c.size(x, b)
    rest = [axis for axis in range(len(shape)) if axis not in (a, b)]
    kept = tuple(shape[axis] for axis in rest)
    moved = c.add("permute", x, shape=(*kept, rows, columns), axes=(*rest, a, b))
    places = [i * columns + i + offset for i in range(rows) if 0 <= i + offset < columns]
    flat = c.reshape(moved, (*kept, rows * columns))
    return take(c, flat, len(kept), torch.tensor(places, dtype=torch.int64))


def diagonal(c: Call) -> Value:
    """Of two axes."""
    x = c["self"]
    return diagonal_of(c, x, c.axis(x, c["dim1"]), c.axis(x, c["dim2"]), c["offset"])


def flip(c: Call) -> Value:
    """Axes backwards."""
    result = c.value(c["self"])
    for axis in c.axes(c["self"], c["dims"]):
        result = take(c, result, axis, torch.arange(c.size(result, axis)).flip(0))
    return result


def roll(c: Call) -> Value:
    """Along axes, what leaves at one end comes in at the other.

    Raises:
        Unfit: it rolls over all axes at once.
    """
    x = c["self"]
    if not c["dims"]:
        raise Unfit("it rolls over all axes at once")
    result = c.value(x)
    for shift, axis in zip(c["shifts"], c.axes(x, c["dims"]), strict=True):
        size = c.size(result, axis)
        cut = -shift % size
        if cut:
            parts = (piece(c, result, axis, cut, size - cut), piece(c, result, axis, 0, cut))
            result = c.add("concatenate", *parts, axis=axis)
    return result


def index(c: Call) -> Value:
    """x[..., places, ...] along one axis or several that follow each other, with places that are constants.

    With the numbers of the samples along the first axis it is the same of every sample.

    Raises:
        Unfit: indices that are computed, of axes that are apart, or a mask over several axes.
    """
    x, given = c["self"], c["indices"]
    axes = [axis for axis, one in enumerate(given) if one is not None]
    rows = given[0] if isinstance(given[0], Rows) else None
    if rows is not None and c.shape(x)[0] == PerSample(1):
        axes = axes[1:]
    places = [given[axis] for axis in axes]
    if not all(isinstance(one, Tensor) for one in places):
        raise Unfit("its places are computed")
    if axes and axes != list(range(axes[0], axes[-1] + 1)):
        raise Unfit("it takes places of axes that are apart")
    if any(one.dtype == torch.bool and one.ndim != 1 for one in places):
        raise Unfit("a mask over several axes")
    flat = torch.zeros((), dtype=torch.int64)
    for axis, one in zip(axes, places, strict=True):
        numbers = one.nonzero().flatten() if one.dtype == torch.bool else one
        flat = flat * c.size(x, axis) + numbers % c.size(x, axis)
    if rows is not None:
        _check_rows(rows, axes, flat)
    if not axes:
        return c.reshape(x)
    shape, sizes = c.shape(x), [c.size(x, axis) for axis in axes]
    merged = c.reshape(x, (*shape[: axes[0]], math.prod(sizes), *shape[axes[-1] + 1 :]))
    return c.reshape(take(c, merged, axes[0], flat.flatten()))


def _check_rows(rows: Rows, axes: list[int], flat: Tensor) -> None:
    """Raise `Unfit` where samples do not come first among the places that are taken."""
    behind = flat.ndim < len(rows.shape) or (flat.ndim == len(rows.shape) and flat.shape[0] == 1)
    if rows.shape[0] != PerSample(1) or axes[:1] not in ([], [1]) or not behind:
        raise Unfit("it takes places of samples in an order of its own")


def unfold(c: Call) -> Value:
    """Windows of an axis, each along a new last axis."""
    x = c["self"]
    axis = c.axis(x, c["dimension"])
    count = (c.size(x, axis) - c["size"]) // c["step"] + 1
    indices = (torch.arange(count)[:, None] * c["step"] + torch.arange(c["size"])).flatten()
    shape = c.shape(x)
    split = c.reshape(take(c, x, axis, indices), (*shape[:axis], count, c["size"], *shape[axis + 1 :]))
    order = [one for one in range(len(shape) + 1) if one != axis + 1]
    return c.add("permute", split, axes=(*order, axis + 1))


def scattered(c: Call) -> Value:
    """A part of an axis replaced by what was written there.

    Raises:
        Unfit: it writes to every other entry.
    """
    x, source = c["self"], c["src"]
    if len({c.builder.kinds.get(one, "float") for one in (x, source) if isinstance(one, Value)}) > 1:
        x, source = as_float(c, x), as_float(c, source)  # whole numbers of both kinds
    axis = c.axis(x, c["dim"])
    if "index" not in c.arguments and c.shape(source) == c.shape(x):
        return c.value(source)  # all of it
    size = c.size(x, axis)
    if "index" in c.arguments:
        start, stop = c["index"] % size, c["index"] % size + 1
        shape = c.shape(x)
        source = c.reshape(source, (*shape[:axis], 1, *shape[axis + 1 :]))
    else:
        if c["step"] != 1:
            raise Unfit("it writes to every other place")
        start = 0 if c["start"] is None else c["start"]
        stop = size if c["end"] is None else min(c["end"], size)
        start, stop = (index + size if index < 0 else index for index in (start, stop))
    parts = [source]
    if start > 0:
        parts.insert(0, piece(c, x, axis, 0, start))
    if stop < size:
        parts.append(piece(c, x, axis, stop, size - stop))
    return c.add("concatenate", *parts, axis=axis)


def copied(c: Call) -> Value:
    """What is written over all of a tensor."""
    source = c["src"]
    if c.builder.kinds.get(c["self"], "float") == "float":
        source = as_float(c, source)  # counts are kept as numbers
    return c.value(source) if c.shape(source) == c.shape() else c.add("expand", source, **{"shape_": c.shape()})


def gated(c: Call) -> Value:
    """The first half times the sigmoid of the second."""
    x = c["self"]
    axis = c.axis(x, c["dim"])
    half = c.size(x, axis) // 2
    return c.add("multiply", piece(c, x, axis, 0, half), c.add("sigmoid", piece(c, x, axis, half, half)))


def outer(c: Call) -> Value:
    """All products of two vectors."""
    column, row = c["self"], c["vec2"]
    return c.add("multiply", c.reshape(column, (*c.shape(column), 1)), c.reshape(row, (1, *c.shape(row))))


def cumulated(c: Call) -> Value:
    """Sums along an axis: a product with a triangle of ones."""
    x = as_float(c, c["self"])
    axis, letters = c.axis(x, c["dim"]), string.ascii_lowercase[: c.ndim(x)]
    ones = torch.ones(c.size(x, axis), c.size(x, axis), dtype=torch.float64).tril()
    changed = letters[:axis] + "z" + letters[axis + 1 :]
    return c.add("einsum", x, ones, equation=f"{letters},z{letters[axis]}->{changed}")


def shuffled_channels(c: Call) -> Value:
    """Channels of all groups in turn."""
    x, groups = c["self"], c["groups"]
    n, _, *space = c.shape(x)
    split = c.reshape(x, (n, groups, c.size(x, 1) // groups, *space))
    axes = (0, 2, 1, *range(3, 3 + len(space)))
    return c.reshape(c.add("permute", split, shape=(n, c.size(x, 1) // groups, groups, *space), axes=axes))


def pad(mode: str | None = None) -> Translation:
    """At the ends of the last axes."""

    def translate(c: Call) -> Value:
        x = first(c)
        flat = c["pad"] if "pad" in c.arguments else c["padding"]
        pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
        own = mode or c.get("mode") or "constant"
        value = c.get("value") or 0.0
        shape = list(c.shape(x))
        for back, (before, after) in enumerate(pairs):
            axis = len(shape) - 1 - back
            if before < 0 or after < 0:
                shape[axis] = c.size(x, axis) + min(before, 0) + min(after, 0)
                start = max(-before, 0)
                x = c.add("slice", x, shape=shape, axis=axis, start=start, stop=start + shape[axis], step=1)
        pads = [(0, 0)] * (len(shape) - len(pairs)) + [(max(a, 0), max(b, 0)) for a, b in reversed(pairs)]
        return c.add("pad", x, pads=pads, mode=own, value=float(value))

    return translate


TRANSLATIONS: dict[str, Translation] = {
    "slice": slices,
    "select": select,
    "narrow": narrow,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), pieces),
    "unbind": unbind,
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    "stack": stack,
    "diagonal": diagonal,
    "flip": flip,
    "roll": roll,
    "unfold": unfold,
    "copy": copied,
    "glu": gated,
    "outer": outer,
    "cumsum": cumulated,
    "channel_shuffle": shuffled_channels,
    "pad": pad(),
    "constant_pad_nd": pad("constant"),
    **{f"reflection_pad{dims}d": pad("reflect") for dims in (1, 2, 3)},
    **{f"replication_pad{dims}d": pad("replicate") for dims in (1, 2, 3)},
}
"""By the name of torch's operation."""
