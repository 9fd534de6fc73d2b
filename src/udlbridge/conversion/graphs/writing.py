"""Translations of what writes into a copy of a tensor: at places, constant or computed, or where a mask holds."""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float
from udlbridge.conversion.graphs.movement import scattered as in_one_piece
from udlbridge.conversion.graphs.movement import take
from udlbridge.conversion.graphs.places import counting, cut
from udlbridge.networks.graphs.values import Extent, PerSample

Extents = tuple[Extent, ...]


class Written:
    """What is written where, entry by entry: (..., size, count, ...), with a copy of an axis for what is written."""

    def __init__(self, c: Call, source: Any) -> None:
        x, places = c["self"], c["index"]
        self.axis = c.axis(x, c["dim"])
        shape = c.shape(x)
        if any(c.shape(x)[one] != c.shape(places)[one] for one in range(len(shape)) if one != self.axis):
            raise Unfit("it writes to a part of the other axes")
        size, count = c.size(x, self.axis), c.size(places, self.axis)
        before, behind = shape[: self.axis], shape[self.axis + 1 :]
        self.wide, self.shape = (*before, size, count, *behind), shape
        rows = c.reshape(as_float(c, places), (*before, 1, count, *behind))
        own = counting(c, size, len(self.wide), self.axis)
        self.here = c.add("compare", rows, own, shape=self.wide, relation="equal")
        if isinstance(source, int | float):
            self.source: Any = float(source)
            return
        source = cut(c, as_float(c, source), c.shape(places), self.axis)
        self.source = c.reshape(source, (*before, 1, count, *behind))

    def reduced(self, c: Call, op: str, source: Any, nothing: float) -> Value:
        """What comes to each entry, by a reduction over what is written."""
        alone = c.add("where", self.here, source, nothing, shape=self.wide)
        more = {} if op == "sum" else {"ties": "share"}
        return c.add(op, alone, shape=self.shape, axes=(self.axis + 1,), keep=False, **more)

    def counts(self, c: Call) -> Value:
        """How many numbers come to each entry."""
        return self.reduced(c, "sum", 1.0, 0.0)

    def any(self, c: Call) -> Value:
        """Whether a number comes to an entry."""
        return c.add("compare", self.counts(c), 0.5, shape=self.shape, relation="greater")


def noted(c: Call, found: Value, *parts: Any) -> Value:
    """Of whole numbers it is whole numbers."""
    if all(map(c.builder.is_whole, parts)):
        c.builder.whole.add(found)
    return found


def scatter(c: Call) -> Value:
    """The numbers in the place of what was there; at a place that is named several times they would be in no order.

    Raises:
        Unfit: a reduction of this old form.
    """
    if c.get("reduce") is not None:
        raise Unfit("its reduction: take scatter_reduce")
    source = c["src"] if "src" in c.arguments else c["value"]
    written = Written(c, source)
    if isinstance(written.source, float):
        return noted(c, c.add("where", written.any(c), written.source, as_float(c, c["self"])), c["self"], source)
    found = written.reduced(c, "sum", written.source, 0.0)
    return noted(c, c.add("where", written.any(c), found, as_float(c, c["self"])), c["self"], source)


def scatter_add(c: Call) -> Value:
    """Added to what was there."""
    written = Written(c, c["src"])
    found = c.add("add", as_float(c, c["self"]), written.reduced(c, "sum", written.source, 0.0))
    return noted(c, found, c["self"], c["src"])


def scatter_reduce(c: Call) -> Value:
    """Sums, means or extremes of what comes to each entry, with what was there or without.

    Raises:
        Unfit: products.
    """
    reduce, written, x, inside = c["reduce"], Written(c, c["src"]), as_float(c, c["self"]), bool(c["include_self"])
    if reduce in ("amax", "amin"):
        op, most = ("max", -math.inf) if reduce == "amax" else ("min", math.inf)
        found = written.reduced(c, op, written.source, most)
        if inside:
            return c.add("maximum" if op == "max" else "minimum", x, found)
        return c.add("where", written.any(c), found, x)
    if reduce not in ("sum", "mean"):
        raise Unfit("it multiplies what comes to one entry")
    found = written.reduced(c, "sum", written.source, 0.0)
    counts: Any = written.counts(c)
    if inside:
        found, counts = c.add("add", x, found), c.add("add", counts, 1.0)
    if reduce == "mean":
        found = c.add("divide", found, c.add("maximum", counts, 1.0))
    return found if inside else c.add("where", written.any(c), found, x)


def index_add(c: Call) -> Value:
    """Rows added at places that are constants: a product with a matrix of zeros and ones.

    Raises:
        Unfit: its places are computed.
    """
    x, source, places = as_float(c, c["self"]), as_float(c, c["source"]), c["index"]
    if not isinstance(places, Tensor):
        raise Unfit("its places are computed")
    axis, letters = c.axis(x, c["dim"]), string.ascii_letters[: c.ndim(x)]
    ones = torch.nn.functional.one_hot(places.long() % c.size(x, axis), c.size(x, axis)).to(c.builder.dtype)
    equation = f"{letters},{letters[axis]}Z->{letters[:axis]}Z{letters[axis + 1 :]}"
    rows = c.add("einsum", source, ones, equation=equation)
    if c.get("alpha", 1) != 1:
        rows = c.add("multiply", rows, c["alpha"])
    return c.add("add", x, rows)


def replaced(c: Call, source: Any, axis: int, places: Tensor) -> Value:
    """Rows of an axis replaced, at places that are constants: the last one where several name the same."""
    x, size = c["self"], c.size(c["self"], axis)
    order = torch.arange(size)
    order[places % size] = size + torch.arange(len(places))
    shape = c.shape(x)
    both = (*shape[:axis], size + len(places), *shape[axis + 1 :])
    return take(c, c.add("concatenate", x, source, shape=both, axis=axis), axis, order)


def scattered(c: Call) -> Value:
    """A part of an axis replaced by what was written there."""
    if c.get("step", 1) in (None, 1) or "index" in c.arguments:
        return in_one_piece(c)
    x = c["self"]
    axis = c.axis(x, c["dim"])
    return replaced(c, c["src"], axis, torch.arange(c.size(x, axis))[c["start"] : c["end"] : c["step"]])


def index_copy(c: Call) -> Value:
    """Rows replaced.

    Raises:
        Unfit: its places are computed.
    """
    if not isinstance(c["index"], Tensor):
        raise Unfit("its places are computed")
    return replaced(c, c["source"], c.axis(c["self"], c["dim"]), c["index"])


def index_fill(c: Call) -> Value:
    """One number at places of an axis that are constants.

    Raises:
        Unfit: its places are computed.
    """
    x, places = c["self"], c["index"]
    if not isinstance(places, Tensor):
        raise Unfit("its places are computed")
    axis = c.axis(x, c["dim"])
    mask = torch.zeros(c.size(x, axis), dtype=torch.bool)
    mask[places] = True
    mask = mask.reshape([-1 if one == axis else 1 for one in range(c.ndim(x))])
    return c.add("where", mask, as_float(c, c["value"]), as_float(c, x))


def index_put(c: Call) -> Value:
    """x[mask] = number, and x[..., places, ...] = numbers along one axis.

    Raises:
        Unfit: as many numbers as the mask holds at; places that are computed, or along several axes.
    """
    x, given, values = c["self"], c["indices"], c["values"]
    axes = [axis for axis, one in enumerate(given) if one is not None]
    places = given[axes[0]]
    if len(axes) != 1:
        raise Unfit("it writes to places along several axes")
    truth = places.dtype == torch.bool if isinstance(places, Tensor) else c.builder.kinds.get(places) == "bool"
    if truth:
        axis, own = axes[0], c.shape(places)
        if c.shape(values) not in ((), (1,)):
            raise Unfit("it writes as many numbers as there are places where a mask holds")
        mask = c.reshape(places, (*[1] * axis, *own, *[1] * (c.ndim(x) - axis - len(own))))
        written = as_float(c, values)
        if c.get("accumulate"):
            written = c.add("add", as_float(c, x), written)
        return noted(c, c.add("where", mask, written, as_float(c, x)), x, values)
    if not isinstance(places, Tensor) or c.get("accumulate") or isinstance(c.shape(x)[axes[0]], PerSample):
        raise Unfit("it writes to places that are computed, or adds to them")
    if places.ndim > 1:
        raise Unfit("it writes to places in several rows")
    axis, flat = axes[0], places.reshape(-1)
    shape = c.shape(x)
    rows = (*shape[:axis], len(flat), *shape[axis + 1 :])
    if places.ndim == 0 and c.ndim(values) == c.ndim(x) - 1:
        own = c.shape(values)
        values = c.reshape(values, (*own[:axis], 1, *own[axis:]))
    values = as_float(c, values)
    source = values if c.shape(values) == rows else c.add("expand", values, shape=rows, **{"shape_": rows})
    return replaced(c, source, axis, flat)


TRANSLATIONS: dict[str, Translation] = {
    "scatter": scatter,
    "scatter_add": scatter_add,
    "scatter_reduce": scatter_reduce,
    "index_add": index_add,
    "index_copy": index_copy,
    "index_fill": index_fill,
    "index_put": index_put,
    "slice_scatter": scattered,
    "select_scatter": scattered,
}
"""By the name of torch's operation."""
