"""Translations of what reads or writes images at computed places: samples by a grid, pooled maxima put back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from udlbridge.conversion.graphs.builder import Call, Places, Unfit, Value
from udlbridge.conversion.graphs.elementwise import as_float
from udlbridge.conversion.graphs.layers import per_axis
from udlbridge.conversion.graphs.movement import piece
from udlbridge.networks.graphs.values import Extent

BILINEAR, NEAREST = 0, 1
"""Ways to interpolate, as torch numbers them."""

ZEROS, BORDER = 0, 1
"""What is beyond the image, as torch numbers it."""

SPACE = "xyz"


def sampled(c: Call) -> Value:
    """(n, channels, *space) at the places (n, *out, dims): sums over each axis with the weights that its entries have.

    Raises:
        Unfit: it interpolates by cubes, or reflects what is beyond.
    """
    x, grid = as_float(c, c["input"]), as_float(c, c["grid"])
    n, channels, *space = c.shape(x)
    dims, count = len(space), math.prod(c.size(grid, axis) for axis in range(1, c.ndim(grid) - 1))
    result, letters = c.value(x), SPACE[:dims]
    shape: list[Extent] = [n, channels, *space]
    for back in range(dims):  # the first coordinate is that of the last axis
        size = c.size(x, -1 - back)
        coordinate = c.reshape(piece(c, grid, c.ndim(grid) - 1, back, 1), (n, count, 1))
        weights = weights_of(c, coordinate, (n, count, size), plane=dims == 2)
        at = letters[dims - 1 - back]
        own, left = "nc" + "p" * (back > 0) + letters[: dims - back], "ncp" + letters[: dims - 1 - back]
        shape = [n, channels, count, *space[: dims - 1 - back]]
        result = c.add("einsum", result, weights, shape=shape, equation=f"{own},np{at}->{left}")
    return c.reshape(result)


def weights_of(c: Call, coordinate: Value, shape: tuple[Extent, int, int], plane: bool) -> Value:
    """The weight that each entry of an axis has for a coordinate from -1 to 1: (n, places, 1) -> (n, places, entries).

    At an entry itself the slope is that to the next one, as torch has it.

    Raises:
        Unfit: it interpolates by cubes, or reflects what is beyond.
    """
    size, lead = shape[-1], (*shape[:-1], 1)
    position = c.add("add", coordinate, 1.0, shape=lead)
    if c["align_corners"]:
        position = c.add("multiply", position, (size - 1) / 2, shape=lead)
    elif plane:  # in the order of torch's own kernels, so that both round to the same side of an entry
        position = c.add("subtract", c.add("multiply", position, size / 2, shape=lead), 0.5, shape=lead)
    else:
        position = c.add("subtract", c.add("multiply", position, float(size), shape=lead), 1.0, shape=lead)
        position = c.add("multiply", position, 0.5, shape=lead)
    if c["padding_mode"] == BORDER:
        position = c.add("hardtanh", position, shape=lead, low=0.0, high=float(size - 1))
    elif c["padding_mode"] != ZEROS:
        raise Unfit("it reflects what is beyond the image")
    entries = torch.arange(size, dtype=torch.float64)
    apart = c.add("subtract", position, entries.to(c.builder.dtype), shape=shape)

    def holds(relation: str, of: Value, bound: float) -> Value:
        return c.add("compare", of, bound, shape=shape, relation=relation)

    def both(function: str, one: Any, other: Any) -> Value:
        return c.add("logical", one, other, shape=shape, function=function)

    if c["interpolation_mode"] == BILINEAR:
        near = both("and", holds("greater_equal", apart, -1.0), holds("less", apart, 1.0))
        below = c.add("add", apart, 1.0, shape=shape)
        above = c.add("subtract", 1.0, apart, shape=shape)
        slopes = c.add("where", holds("less", apart, 0.0), below, above, shape=shape)
        return c.add("where", near, slopes, 0.0, shape=shape)
    if c["interpolation_mode"] == NEAREST:
        size_apart = c.add("absolute", apart, shape=shape)
        tie = both("and", holds("equal", size_apart, 0.5), entries % 2 == 0)  # a half goes to the even one
        return c.add("cast", both("or", holds("less", size_apart, 0.5), tie), shape=shape)
    raise Unfit("it interpolates by cubes")


def affine_grid(c: Call) -> Value:
    """Places (n, *out, dims) of the maps theta (n, dims, dims + 1), of a plain grid."""
    theta = as_float(c, c["theta"])
    n, dims, _ = c.shape(theta)
    out = [size for size in c.shape()[1:-1] if isinstance(size, int)]
    assert isinstance(dims, int)
    plain = torch.eye(dims, dims + 1, dtype=torch.float64)[None]
    places = functional.affine_grid(plain, [1, 1, *out], align_corners=bool(c["align_corners"])).reshape(-1, dims)
    places = torch.cat([places, torch.ones(len(places), 1, dtype=places.dtype)], 1).to(c.builder.dtype)
    turned = c.add("permute", theta, shape=(n, dims + 1, dims), axes=(0, 2, 1))
    return c.reshape(c.add("matmul", places, turned, shape=(n, len(places), dims)))


def unpooled(c: Call) -> Value:
    """Values (n, channels, *windows) where the maxima of the windows were, and 0 elsewhere.

    Raises:
        Unfit: windows that overlap or are padded, another size than that before the pool, or places from elsewhere.
    """
    places = c["indices"]
    if not isinstance(places, Places):
        raise Unfit("its places are not those of a pool")
    y, settings = as_float(c, c["self"]), places.settings
    kernel = settings["kernel"]
    dims = len(kernel)
    plain = settings["stride"] == kernel and not any(settings["padding"]) and set(settings["dilation"]) == {1}
    if not plain or settings["ceil_mode"]:
        raise Unfit("its windows overlap, or reach beyond the image")
    n, channels, *space = c.shape(places.of)
    if tuple(per_axis(c["output_size"], dims)) != tuple(space):
        raise Unfit("the size is another one than before the pool")
    windows = [c.size(y, axis) for axis in range(2, 2 + dims)]
    x: Any = places.of
    for axis, (k, size) in enumerate(zip(kernel, windows, strict=True), start=2):
        x = piece(c, x, axis, 0, k * size) if k * size != c.size(x, axis) else x
    every = math.prod(kernel)
    parted = tuple(size for pair in zip(windows, kernel, strict=True) for size in pair)
    gathered, order = (*windows, *kernel), (*range(0, 2 * dims, 2), *range(1, 2 * dims, 2))
    axes = (0, 1, *(2 + axis for axis in order))
    shape = (n, channels, *windows, every)
    entries = c.add("permute", c.reshape(x, (n, channels, *parted)), shape=(n, channels, *gathered), axes=axes)
    mask = first_of_largest(c, c.reshape(entries, shape), shape)
    spread = c.reshape(c.add("where", mask, c.reshape(y, (*shape[:-1], 1)), 0.0, shape=shape), (n, channels, *gathered))
    back = (0, 1, *(2 + order.index(axis) for axis in range(2 * dims)))
    whole = tuple(k * size for k, size in zip(kernel, windows, strict=True))
    image = c.reshape(c.add("permute", spread, shape=(n, channels, *parted), axes=back), (n, channels, *whole))
    if whole == tuple(space):
        return image
    pads = ((0, 0), (0, 0), *((0, c.size(places.of, axis) - size) for axis, size in enumerate(whole, start=2)))
    return c.add("pad", image, pads=pads, mode="constant", value=0.0)


def first_of_largest(c: Call, x: Value, shape: tuple[Extent, ...]) -> Value:
    """Where along the last axis the largest stands, the first of several: where only one of them was seen so far."""
    axis, letters = len(shape) - 1, "abcdefgh"[: len(shape)]
    largest = c.add("max", x, shape=(*shape[:-1], 1), axes=(axis,), keep=True, ties="first")
    here = c.add("compare", x, largest, shape=shape, relation="equal")
    count = c.size(x, axis)
    ones = torch.ones(count, count, dtype=c.builder.dtype).tril()
    seen = c.add(
        "einsum", c.add("cast", here, shape=shape), ones, shape=shape,
        equation=f"{letters},z{letters[-1]}->{letters[:-1]}z",
    )  # fmt: skip
    first = c.add("compare", seen, 1.5, shape=shape, relation="less")
    return c.add("logical", here, first, shape=shape, function="and")


TRANSLATIONS = {
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), sampled),
    "affine_grid_generator": affine_grid,
    "max_unpool2d": unpooled,
    "max_unpool3d": unpooled,
}
"""By the name of torch's operation."""
