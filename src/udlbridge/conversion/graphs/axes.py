"""Translations of what changes axes: their extents, their order, and copies along them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, first
from udlbridge.networks.graphs.values import Extent, PerSample


def reshape(c: Call) -> Value:
    """To the shape that comes out.

    Raises:
        Unfit: it reads the bytes as another dtype.
    """
    if c.get("dtype") is not None:
        raise Unfit("it takes the bytes for another dtype")
    return c.reshape(first(c))


def permute(c: Call) -> Value:
    """Axes in a given order."""
    return c.add("permute", c["self"], axes=c.axes(c["self"], c["dims"]))


def transpose(c: Call) -> Any:
    """Two axes exchanged; by default the last two."""
    x = c["self"]
    ndim = c.ndim(x)
    if ndim < 2:
        return x
    axes = list(range(ndim))
    a, b = (c.axis(x, c.get("dim0", c.get("axis0", -2))), c.axis(x, c.get("dim1", c.get("axis1", -1))))
    axes[a], axes[b] = axes[b], axes[a]
    return c.add("permute", x, axes=axes)


def reversed_axes(c: Call) -> Value:
    """All axes backwards."""
    return c.add("permute", c["self"], axes=tuple(reversed(range(c.ndim(c["self"])))))


def expand(c: Call) -> Value:
    """Broadcast to the shape that comes out."""
    if c.shape(first(c)) == c.shape():
        return c.value(first(c))
    found = c.add("expand", first(c), **{"shape_": c.shape()})
    if isinstance(first(c), Tensor):
        c.builder.spread[found] = first(c)
    return found


def repeat(c: Call) -> Value:
    """Copies of the whole along each axis, one after the other."""
    x, result = c["self"], c.shape()
    own = (*(1,) * (len(result) - c.ndim(x)), *c.shape(x))
    between: list[Extent] = []
    spread: list[Extent] = []
    for size, after in zip(own, result, strict=True):
        count = _quotient(after, size)
        between += [1, size]
        spread += [count, size]
    stretched = c.add("expand", c.reshape(x, between), shape=spread, **{"shape_": tuple(spread)})
    return c.reshape(stretched)


def _quotient(after: Extent, before: Extent) -> Extent:
    if isinstance(after, PerSample):
        if isinstance(before, PerSample):
            return after.count // before.count
        return PerSample(after.count // before)
    if isinstance(before, PerSample):
        raise Unfit("it mixes samples")
    return after // before


def moved(c: Call) -> Value:
    """Axes put elsewhere, the others in their order."""
    x = c["self"]
    sources, targets = c.axes(x, c["source"]), c.axes(x, c["destination"])
    order = [axis for axis in range(c.ndim(x)) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return c.add("permute", x, axes=tuple(order))


TRANSLATIONS: dict[str, Translation] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as"), reshape
    ),
    "permute": permute,
    "numpy_T": reversed_axes,
    **dict.fromkeys(("transpose", "t", "mT", "adjoint", "swapaxes", "swapdims"), transpose),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "movedim": moved,
    "moveaxis": moved,
}
"""By the name of torch's operation."""
