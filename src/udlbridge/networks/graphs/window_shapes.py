"""Rules of shapes for what slides windows over the axes after the channels: convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

from udlbridge.networks.graphs.shapes import Attributes, floats, need
from udlbridge.networks.graphs.values import Shape, Value


def windows(x: Shape, a: Attributes, kernel: Shape) -> Shape:
    """How many windows there are along each axis after the channels."""
    dims = len(kernel)
    need(len(x) == dims + 2, f"a kernel {kernel} on {x}")
    ones = (1,) * dims
    lists = [a.get(name, ones) for name in ("stride", "padding", "dilation")]
    need(all(len(one) == dims for one in lists), "one stride, padding and dilation for each axis")
    counts = []
    for size, k, stride, padding, dilation in zip(x[2:], kernel, *lists, strict=True):
        room = size + 2 * padding - dilation * (k - 1) - 1
        need(room >= 0, f"a kernel {kernel} is larger than {x[2:]}")
        count = room // stride + 1
        if a.get("ceil_mode", False):
            count = -(-room // stride) + 1
            count -= (count - 1) * stride >= size + padding  # a window has to begin inside
        counts.append(count)
    return tuple(counts)


def conv(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(n, in, *space), (out, in/groups, *kernel), (out) -> (n, out, *windows)."""
    floats(values)
    x, weight = values[0].shape, values[1].shape
    need(3 <= len(weight) <= 5 and len(x) == len(weight), f"a kernel {weight} on {x}")
    groups = a["groups"]
    need(x[1] == weight[1] * groups and weight[0] % groups == 0, f"{groups} groups, a kernel {weight} on {x}")
    need(len(values) < 3 or values[2].shape == weight[:1], "the bias does not have one number for each channel")
    return Value((x[0], weight[0], *windows(x, a, weight[2:])), "float")


def conv_transpose(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(n, in, *space), (in, out/groups, *kernel), (out) -> (n, out, *space')."""
    floats(values)
    x, weight = values[0].shape, values[1].shape
    need(3 <= len(weight) <= 5 and len(x) == len(weight), f"a kernel {weight} on {x}")
    groups, out = a["groups"], weight[1] * a["groups"]
    need(x[1] == weight[0] and x[1] % groups == 0, f"{groups} groups, a kernel {weight} on {x}")
    need(len(values) < 3 or values[2].shape == (out,), "the bias does not have one number for each channel")
    lists = [a[name] for name in ("stride", "padding", "output_padding", "dilation")]
    need(all(len(one) == len(weight) - 2 for one in lists), "one stride, padding and dilation for each axis")
    space = []
    for size, k, stride, padding, extra, dilation in zip(x[2:], weight[2:], *lists, strict=True):
        space.append((size - 1) * stride - 2 * padding + dilation * (k - 1) + extra + 1)
    need(min(space) >= 1, "the padding takes all of it away")
    return Value((x[0], out, *space), "float")


def pool(a: Attributes, values: Sequence[Value], n: int) -> Value:
    """(n, channels, *space) -> (n, channels, *windows)."""
    floats(values)
    x, kernel = values[0].shape, a["kernel"]
    found = windows(x, a, kernel)
    need(all(2 * p <= k for p, k in zip(a["padding"], kernel, strict=True)), "a padding above half the kernel")
    return Value((*x[:2], *found), "float")
