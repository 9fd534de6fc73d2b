"""Translations of orders: sorted entries, the largest few, one in the middle, and where they stood.

Each entry is compared with each, which says how many stand before it; then entries are taken as by computed places.
"""

from __future__ import annotations

from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, as_float
from udlbridge.conversion.graphs.nearest import whole
from udlbridge.conversion.graphs.places import counting, noted

MOST_RANKED = 512
"""As many entries are brought into an order, by comparing each with each."""


def ranks(c: Call, x: Any, axis: int, descending: bool) -> Value:
    """How many entries of an axis stand before each one in their order; what is equal keeps its order.

    Raises:
        Unfit: there are more than `MOST_RANKED`.
    """
    size, shape = c.size(x, axis), c.shape(x)
    if size > MOST_RANKED:
        raise Unfit(f"it orders {size} numbers, and at most {MOST_RANKED} are compared with each other")
    before, behind = shape[:axis], shape[axis + 1 :]
    wide, ndim = (*before, size, size, *behind), len(shape) + 1
    own = c.reshape(x, (*before, size, 1, *behind))
    other = c.reshape(x, (*before, 1, size, *behind))
    ahead = c.add("compare", other, own, shape=wide, relation="greater" if descending else "less")
    equal = c.add("compare", other, own, shape=wide, relation="equal")
    earlier = counting(c, size, ndim, axis + 1) < counting(c, size, ndim, axis)
    either = c.add("logical", equal, earlier, shape=wide, function="and")
    either = c.add("logical", ahead, either, shape=wide, function="or")
    numbers = c.add("cast", either, shape=wide)
    return c.add("sum", numbers, shape=shape, axes=(axis + 1,), keep=False)


def placed(c: Call, own: Value, part: Any, axis: int, first: int, count: int) -> Value:
    """`count` entries of a part, by their ranks along an axis, from rank `first` on."""
    shape, size = c.shape(own), c.size(own, axis)
    before, behind = shape[:axis], shape[axis + 1 :]
    wide = (*before, count, size, *behind)
    wanted = first + counting(c, count, len(wide), axis)
    here = c.add("compare", c.reshape(own, (*before, 1, size, *behind)), wanted, shape=wide, relation="equal")
    alone = c.add("where", here, part, 0.0, shape=wide)
    return c.add("sum", alone, shape=(*before, count, *behind), axes=(axis + 1,), keep=False)


def stood(c: Call, own: Value, axis: int, first: int, count: int) -> Value:
    """Where entries stood before they were ordered."""
    places = counting(c, c.size(own, axis), c.ndim(own) + 1, axis + 1)
    return whole(c, placed(c, own, places, axis, first, count))


def ordered(c: Call, x: Any, axis: int, descending: bool, first: int, count: int) -> tuple[Value, Value | None]:
    """`count` entries of an axis in their order, from place `first` on, and where they stood if that is asked for."""
    x = as_float(c, x)
    shape = c.shape(x)
    own = ranks(c, x, axis, descending)
    lines = c.reshape(x, (*shape[:axis], 1, *shape[axis:]))
    values = noted(c, c["self"], placed(c, own, lines, axis, first, count))
    return values, stood(c, own, axis, first, count) if c.asked(1) else None


def topk(c: Call) -> tuple[Value, Value | None]:
    """The largest or smallest, in their order."""
    x = c["self"]
    return ordered(c, x, c.axis(x, c["dim"]), bool(c["largest"]), 0, c["k"])


def sort(c: Call) -> tuple[Value, Value | None]:
    """All entries of an axis in their order."""
    x = c["self"]
    axis = c.axis(x, c["dim"])
    return ordered(c, x, axis, bool(c["descending"]), 0, c.size(x, axis))


def argsort(c: Call) -> Value:
    """Where the entries of an axis stood before they were ordered."""
    x = c["self"]
    axis = c.axis(x, c["dim"])
    return stood(c, ranks(c, as_float(c, x), axis, bool(c["descending"])), axis, 0, c.size(x, axis))


def one_in_order(place: Any) -> Translation:
    """One entry of an axis in its order, as the median, the lower of two in the middle."""

    def translate(c: Call) -> Any:
        x = c["self"]
        if "dim" not in c.arguments:
            raise Unfit("it orders all samples together")
        axis = c.axis(x, c["dim"])
        values, places = ordered(c, x, axis, False, place(c, c.size(x, axis)), 1)
        return noted(c, x, c.reshape(values)), None if places is None else whole(c, c.reshape(places))

    return translate


TRANSLATIONS: dict[str, Translation] = {
    "topk": topk,
    "sort": sort,
    "argsort": argsort,
    "median": one_in_order(lambda c, size: (size - 1) // 2),
    "kthvalue": one_in_order(lambda c, size: c["k"] - 1),
}
"""By the name of torch's operation."""
