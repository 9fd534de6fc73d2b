"""Translations of what makes images smaller or larger: pools, upsampling, shuffled pixels."""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from udlbridge.conversion.graphs.builder import Call, Places, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation
from udlbridge.conversion.graphs.layers import per_axis
from udlbridge.conversion.graphs.movement import take
from udlbridge.networks.graphs.values import Extent, PerSample


def pool(maximum: bool) -> Translation:
    """Over 1 to 3 axes."""

    def translate(c: Call) -> Value:
        x = c["self"]
        dims = len(c["kernel_size"]) if len(c["kernel_size"]) > 1 else c.ndim(x) - 2
        kernel = per_axis(c["kernel_size"], dims)
        settings: dict[str, Any] = {
            "kernel": kernel,
            "stride": per_axis(c["stride"], dims) if c["stride"] else kernel,
            "padding": per_axis(c["padding"], dims),
            "ceil_mode": bool(c["ceil_mode"]),
        }
        if maximum:
            return c.add("max_pool", x, **settings, dilation=per_axis(c["dilation"], dims))
        divisor = c.get("divisor_override")
        if divisor is None:
            return c.add("mean_pool", x, **settings, count_padding=bool(c["count_include_pad"]))
        if c["ceil_mode"]:
            raise Unfit("its divisor is given, and windows may be larger than what is left")
        mean = c.add("mean_pool", x, **settings, count_padding=True)
        return c.add("multiply", mean, math.prod(kernel) / divisor)

    return translate


def with_places(translation: Translation) -> Translation:
    """What comes besides is known by what was pooled."""

    def translate(c: Call) -> tuple[Value, Places]:
        pooled = translation(c)
        return pooled, Places(c.value(c["self"]), c.builder.nodes[-1].attributes)

    return translate


def first_of_two(translation: Translation) -> Translation:
    """Nobody may ask for what comes besides, the places."""
    return lambda c: (translation(c), None)


def adaptive_pool(maximum: bool) -> Translation:
    """To a size: windows of one size where they divide; else, for means, weights for each axis."""

    def translate(c: Call) -> Any:
        x, sizes = c["self"], c["output_size"]
        dims = len(sizes)
        space = [c.size(x, axis - dims) for axis in range(dims)]
        if all(before % after == 0 for before, after in zip(space, sizes, strict=True)):
            kernel = tuple(before // after for before, after in zip(space, sizes, strict=True))
            settings = {"kernel": kernel, "stride": kernel, "padding": (0,) * dims, "ceil_mode": False}
            shape = (*c.shape(x)[: c.ndim(x) - dims], *sizes)
            if maximum:
                return c.add("max_pool", x, shape=shape, **settings, dilation=(1,) * dims)
            return c.add("mean_pool", x, shape=shape, **settings, count_padding=True)
        if maximum:
            return uneven_maxima(c, x, list(zip(space, sizes, strict=True)))
        return along_axes(c, x, [_averages(before, after) for before, after in zip(space, sizes, strict=True)])

    return translate


def uneven_maxima(c: Call, x: Any, sizes: list[tuple[int, int]]) -> Value:
    """Maxima of windows of several sizes, along one axis after the other: the short ones have their last place twice.

    The last axis first: then the slope goes to the first of several in the order of rows, as torch has it.
    """
    result, shape = c.value(x), list(c.shape(x))
    for back, (before, after) in enumerate(reversed(sizes), start=1):
        axis = len(shape) - back
        ends = [(i * before // after, -(-(i + 1) * before // after)) for i in range(after)]
        longest = max(stop - start for start, stop in ends)
        places = [min(start + step, stop - 1) for start, stop in ends for step in range(longest)]
        windows = c.reshape(
            take(c, result, axis, torch.tensor(places)), (*shape[:axis], after, longest, *shape[axis + 1 :])
        )
        shape[axis] = after
        result = c.add("max", windows, shape=shape, axes=(axis + 1,), keep=False, ties="first")
    return result


def _averages(before: int, after: int) -> Tensor:
    """The weights of adaptive means along an axis, (after, before)."""
    return functional.adaptive_avg_pool1d(torch.eye(before, dtype=torch.float64)[:, None], after)[:, 0].T


def along_axes(c: Call, x: Any, weights: list[Tensor]) -> Value:
    """Linear maps along the last axes, one after the other; (after, before) for each."""
    result, shape = c.value(x), list(c.shape(x))
    dims = len(weights)
    for index, weight in enumerate(weights):
        axis = len(shape) - dims + index
        letters = string.ascii_lowercase[: len(shape)]
        replaced = letters[:axis] + "z" + letters[axis + 1 :]
        shape[axis] = len(weight)
        equation = f"{letters},z{letters[axis]}->{replaced}"
        result = c.add("einsum", result, weight.contiguous(), shape=shape, equation=equation)
    return result


def upsample(mode: str, **more: bool) -> Translation:
    """Along each axis for itself: places for "nearest", and else weights, which are those of a unit matrix."""

    def translate(c: Call) -> Value:
        x, sizes = c["input" if "input" in c.arguments else "self"], c.shape()[2:]
        result, shape, weights = c.value(x), list(c.shape(x)), []
        factors = factors_of(c, len(sizes))
        for index, after in enumerate(sizes):
            before = c.size(x, index + 2)
            # The factor counts, where it is given, and not the quotient of the sizes.
            own: dict[str, Any] = {"size": after} if factors[index] is None else {"scale_factor": factors[index]}
            if mode in ("nearest", "nearest-exact"):
                every = torch.arange(before, dtype=torch.float64)[None, None]
                indices = functional.interpolate(every, **own, mode=mode)
                shape[index + 2] = after
                result = c.add("take", result, indices[0, 0].long(), shape=shape, axis=index + 2)
            elif mode == "linear" and not more:
                unit = torch.eye(before, dtype=torch.float64)[:, None]
                corners = {"align_corners": bool(c["align_corners"]), "recompute_scale_factor": False}
                weights.append(functional.interpolate(unit, **own, mode=mode, **corners)[:, 0].T)
            else:
                # As wide as high: torch's antialiased kernels take an image of width 1 for another layout.
                unit = torch.eye(before, dtype=torch.float64)[None, None]
                both: dict[str, Any] = (
                    {"size": (after, before)} if "size" in own else {"scale_factor": (own["scale_factor"], 1)}
                )
                corners = {"align_corners": bool(c["align_corners"]), **more}
                found = functional.interpolate(unit, **both, mode="bilinear" if mode == "linear" else mode, **corners)
                weights.append(found[0, 0])
        return along_axes(c, x, weights) if weights else result

    return translate


def factors_of(c: Call, dims: int) -> list[float | None]:
    """Scale factors along the axes, where they were given."""
    found = c.get("scale_factors")
    if found is None:
        listed = [c.get(name) for name in ("scales_d", "scales_h", "scales_w", "scales")]
        given = [one for one in listed if one is not None]
        found = given if len(given) == dims else None
    return [None] * dims if not found else list(found)


def pixel_shuffle(c: Call) -> Value:
    """(n, c r^2, h, w) -> (n, c, h r, w r)."""
    *lead, channels, height, width = c.shape(c["self"])
    r = c["upscale_factor"]
    own = _whole(channels) // r**2
    split = c.reshape(c["self"], (*lead, own, r, r, height, width))
    k = len(lead)
    axes = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return c.reshape(c.add("permute", split, shape=(*lead, own, height, r, width, r), axes=axes))


def pixel_unshuffle(c: Call) -> Value:
    """(n, c, h r, w r) -> (n, c r^2, h, w)."""
    *lead, channels, height, width = c.shape(c["self"])
    r = c["downscale_factor"]
    split = c.reshape(c["self"], (*lead, channels, _whole(height) // r, r, _whole(width) // r, r))
    k = len(lead)
    axes = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    shape = (*lead, channels, r, r, _whole(height) // r, _whole(width) // r)
    return c.reshape(c.add("permute", split, shape=shape, axes=axes))


def folded(c: Call) -> Value:
    """Windows (n, channels * kernel, places) summed where they stood: a transposed convolution with zeros and ones."""
    x, space = c["self"], [int(size) for size in c["output_size"]]
    dims = len(space)
    kernel, dilation, padding, stride = (per_axis(c[f"{name}"], dims) for name in _WINDOW)
    reach = [size + 2 * p - d * (k - 1) - 1 for size, k, d, p in zip(space, kernel, dilation, padding, strict=True)]
    windows = tuple(left // s + 1 for left, s in zip(reach, stride, strict=True))
    beyond = tuple(left % s for left, s in zip(reach, stride, strict=True))
    every = math.prod(kernel)
    channels = c.size(x, -2) // every
    apart = torch.eye(every, dtype=c.builder.dtype).reshape(every, 1, *kernel).repeat(channels, *[1] * (1 + dims))
    lead = c.shape(x)[:-2] or (1,)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": beyond}
    image = c.reshape(x, (*lead, channels * every, *windows))
    shape = (*lead, channels, *space)
    return c.reshape(c.add("conv_transpose", image, apart, shape=shape, **settings, groups=channels))


_WINDOW = ("kernel_size", "dilation", "padding", "stride")


def _whole(size: Extent) -> int:
    if isinstance(size, PerSample):
        raise Unfit("it moves numbers between samples")
    return size


TRANSLATIONS: dict[str, Translation] = {
    **{f"max_pool{dims}d": pool(maximum=True) for dims in (1, 2, 3)},
    **{f"avg_pool{dims}d": pool(maximum=False) for dims in (1, 2, 3)},
    **{f"max_pool{dims}d_with_indices": with_places(pool(maximum=True)) for dims in (1, 2, 3)},
    **{f"adaptive_max_pool{dims}d": first_of_two(adaptive_pool(maximum=True)) for dims in (1, 2, 3)},
    **{f"adaptive_avg_pool{dims}d": adaptive_pool(maximum=False) for dims in (1, 2, 3)},
    **{f"_adaptive_avg_pool{dims}d": adaptive_pool(maximum=False) for dims in (2, 3)},
    **{f"upsample_nearest{dims}d": upsample("nearest") for dims in (1, 2, 3)},
    **{f"_upsample_nearest_exact{dims}d": upsample("nearest-exact") for dims in (1, 2, 3)},
    **{name: upsample("linear") for name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")},
    "upsample_bicubic2d": upsample("bicubic"),
    "_upsample_bilinear2d_aa": upsample("linear", antialias=True),
    "_upsample_bicubic2d_aa": upsample("bicubic", antialias=True),
    "col2im": folded,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
"""By the name of torch's operation."""
