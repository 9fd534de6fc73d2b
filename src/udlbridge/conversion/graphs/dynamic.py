"""Convolutions whose weights are computed for each sample, with samples folded into channels: one group for each."""

from __future__ import annotations

from typing import Any

import torch

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.movement import take
from udlbridge.networks.graphs.values import Extent, PerSample

Sizes = tuple[int, ...]


def by_own_weights(c: Call, x: Any, *, stride: Sizes, padding: Sizes, dilation: Sizes) -> Value:
    """(1, n in, *space) by (n out, in/groups, *kernel), a group or more for each sample.

    The windows are taken apart, and their entries weighed and summed.

    Raises:
        Unfit: samples are not folded so.
    """
    weight = c["weight"]
    (one, inside, *_), (outside, part, *kernel) = c.shape(x), c.shape(weight)
    if one != 1 or not isinstance(inside, PerSample) or not isinstance(outside, PerSample) or not isinstance(part, int):
        raise Unfit("it mixes samples")
    dims, n = len(kernel), PerSample(1)
    groups = inside.count // part
    shape: list[Extent] = [n, groups, part, *(c.size(x, 2 + axis) for axis in range(dims))]
    result = c.reshape(x, shape)
    for axis, pad in enumerate(padding):
        shape[3 + axis] = c.size(result, 3 + axis) + 2 * pad
    result = c.add(
        "pad",
        result,
        shape=shape,
        pads=((0, 0),) * 3 + tuple((pad, pad) for pad in padding),
        mode="constant",
        value=0.0,
    )
    counts = []
    for axis in range(dims):  # every axis becomes the places in a window, and the windows
        k, size = c.size(weight, 2 + axis), c.size(result, 3 + 2 * axis)
        counts.append((size - dilation[axis] * (k - 1) - 1) // stride[axis] + 1)
        places = torch.arange(k)[:, None] * dilation[axis] + torch.arange(counts[-1]) * stride[axis]
        result = take(c, result, 3 + 2 * axis, places.flatten())
        shape = [*c.shape(result)[: 3 + 2 * axis], k, counts[-1], *c.shape(result)[4 + 2 * axis :]]
        result = c.reshape(result, shape)
    within, over = "uvw"[:dims], "xyz"[:dims]
    images = "ngi" + "".join(pair for both in zip(within, over, strict=True) for pair in both)
    maps = c.reshape(weight, (n, groups, outside.count // groups, part, *kernel))
    found = c.add(
        "einsum", result, maps, shape=(n, groups, outside.count // groups, *counts),
        equation=f"{images},ngoi{within}->ngo{over}",
    )  # fmt: skip
    found = c.reshape(found)
    return found if c["bias"] is None else c.add("add", found, c.reshape(c["bias"], (*c.shape(c["bias"]), *[1] * dims)))
