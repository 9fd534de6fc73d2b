"""The whole numbers about a number, all from the nearest one."""

from __future__ import annotations

from typing import Any

from udlbridge.conversion.graphs.builder import Call, Value


def nearest(c: Call, x: Any) -> Value:
    """The nearest whole number, of two the even one."""
    shape = c.shape(x)
    return whole(c, c.add("cast", c.add("whole", x, shape=shape), shape=shape))


def whole(c: Call, found: Value) -> Value:
    """The value, known to be of whole numbers."""
    c.builder.whole.add(found)
    return found


def moved(c: Call, x: Any, relation: str, step: float) -> Value:
    """The nearest whole number, or one `step` from it where it lies on the other side of x."""
    near, shape = nearest(c, x), c.shape(x)
    beyond = c.add("compare", near, x, shape=shape, relation=relation)
    return whole(c, c.add("where", beyond, c.add("add", near, step, shape=shape), near, shape=shape))


def below(c: Call, x: Any) -> Value:
    """The largest whole number that is at most x."""
    return moved(c, x, "greater", -1.0)


def above(c: Call, x: Any) -> Value:
    """The smallest whole number that is at least x."""
    return moved(c, x, "less", 1.0)


def toward_zero(c: Call, x: Any) -> Value:
    """x without what stands behind the point."""
    negative = c.add("compare", x, 0.0, shape=c.shape(x), relation="less")
    return whole(c, c.add("where", negative, above(c, x), below(c, x), shape=c.shape(x)))
