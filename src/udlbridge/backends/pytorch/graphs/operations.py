"""Every operation of a graph in torch's functions: arithmetic, activations, reductions and movement of entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from udlbridge.networks.graphs.values import concrete

Attributes = Mapping[str, Any]
Rule = Callable[..., Tensor]
"""Attributes, number of samples and inputs to the value; those of `Maker` come from no input at all."""

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
}

LOGIC: dict[str, Callable[..., Tensor]] = {
    "not": torch.logical_not,
    "and": torch.logical_and,
    "or": torch.logical_or,
}


def extreme(a: Attributes, x: Tensor, largest: bool) -> Tensor:
    """Over several axes at once; the first of several gets the slope, or all the same share."""
    if a["ties"] == "share":
        return (torch.amax if largest else torch.amin)(x, dim=a["axes"], keepdim=a["keep"])
    rest = [axis for axis in range(x.ndim) if axis not in a["axes"]]
    flat = x.permute(*rest, *a["axes"]).flatten(len(rest))
    found = (flat.max(dim=-1) if largest else flat.min(dim=-1)).values
    if a["keep"]:
        for axis in sorted(a["axes"]):
            found = found.unsqueeze(axis)
    return found


def reduced(function: Callable[..., Tensor]) -> Rule:
    """A function of torch over axes; over none it changes nothing, where torch would take all."""
    return lambda a, n, x: function(x, dim=a["axes"], keepdim=a["keep"]) if a["axes"] else x


def slices(a: Attributes, n: int, x: Tensor) -> Tensor:
    """A part of an axis."""
    result: Tensor = x[(*(slice(None),) * a["axis"], slice(a["start"], a["stop"], a["step"]))]
    return result


def padded(a: Attributes, n: int, x: Tensor) -> Tensor:
    """A value at both ends, or entries by their indices."""
    if a["mode"] == "constant":
        flat = [count for pair in reversed(a["pads"]) for count in pair]
        return functional.pad(x, flat, value=a["value"])
    for axis, (before, after) in enumerate(a["pads"]):
        if before or after:
            size = x.shape[axis]
            indices = torch.arange(-before, size + after, device=x.device)
            if a["mode"] == "replicate":
                indices = indices.clamp(0, size - 1)
            elif a["mode"] == "circular":
                indices = indices.remainder(size)
            else:
                indices = (size - 1) - (size - 1 - indices.abs()).abs()
            x = x.index_select(axis, indices)
    return x


def gelu(a: Attributes, n: int, x: Tensor) -> Tensor:
    """In either form."""
    return functional.gelu(x, approximate="none" if a["form"] == "erf" else "tanh")


def variance(a: Attributes, n: int, x: Tensor) -> Tensor:
    """torch.var; over no axes, of one number each, it is 0."""
    if not a["axes"]:
        return x * 0
    return torch.var(x, dim=a["axes"], keepdim=a["keep"], correction=a["correction"])


RULES: dict[str, Rule] = {
    "add": lambda a, n, x, y: x + y,
    "subtract": lambda a, n, x, y: x - y,
    "multiply": lambda a, n, x, y: x * y,
    "divide": lambda a, n, x, y: x / y,
    "maximum": lambda a, n, x, y: torch.maximum(x, y),
    "minimum": lambda a, n, x, y: torch.minimum(x, y),
    "power": lambda a, n, x: torch.pow(x, a["exponent"]),
    "negative": lambda a, n, x: -x,
    "absolute": lambda a, n, x: x.abs(),
    "exp": lambda a, n, x: x.exp(),
    "log": lambda a, n, x: x.log(),
    "sqrt": lambda a, n, x: x.sqrt(),
    "rsqrt": lambda a, n, x: x.rsqrt(),
    "sin": lambda a, n, x: x.sin(),
    "cos": lambda a, n, x: x.cos(),
    "erf": lambda a, n, x: x.erf(),
    "clamp": lambda a, n, x: x.clamp(a["low"], a["high"]),
    "compare": lambda a, n, x, y: COMPARISONS[a["relation"]](x, y),
    "logical": lambda a, n, *xs: LOGIC[a["function"]](*xs),
    "where": lambda a, n, condition, x, y: torch.where(condition, x, y),
    "whole": lambda a, n, x: x.detach().round().long(),
    "stop_gradient": lambda a, n, x: x.detach(),
    "relu": lambda a, n, x: functional.relu(x),
    "leaky_relu": lambda a, n, x: functional.leaky_relu(x, a["slope"]),
    "prelu": lambda a, n, x, w: torch.where(x > 0, x, w * x),
    "elu": lambda a, n, x: torch.ops.aten.elu(x, a["alpha"], 1.0, 1.0 / a["scale"]),
    "selu": lambda a, n, x: functional.selu(x),
    "gelu": gelu,
    "sigmoid": lambda a, n, x: x.sigmoid(),
    "logsigmoid": lambda a, n, x: functional.logsigmoid(x),
    "tanh": lambda a, n, x: x.tanh(),
    "silu": lambda a, n, x: functional.silu(x),
    "mish": lambda a, n, x: functional.mish(x),
    "softplus": lambda a, n, x: functional.softplus(x, a["beta"], a["threshold"]),
    "softsign": lambda a, n, x: functional.softsign(x),
    "hardtanh": lambda a, n, x: functional.hardtanh(x, a["low"], a["high"]),
    # Not functional.hardsigmoid, whose slope on the CPU is 1/6 in single precision, for float64 too.
    "hardsigmoid": lambda a, n, x: functional.hardtanh(x + 3, 0.0, 6.0) / 6,
    "hardswish": lambda a, n, x: functional.hardswish(x),
    "sum": reduced(torch.sum),
    "mean": reduced(torch.mean),
    "max": lambda a, n, x: extreme(a, x, largest=True),
    "min": lambda a, n, x: extreme(a, x, largest=False),
    "logsumexp": reduced(torch.logsumexp),
    "variance": variance,
    "softmax": lambda a, n, x: x.softmax(a["axis"]),
    "log_softmax": lambda a, n, x: x.log_softmax(a["axis"]),
    "reshape": lambda a, n, x: x.reshape(concrete(a["shape"], n)),
    "expand": lambda a, n, x: x.expand(concrete(a["shape"], n)),
    "permute": lambda a, n, x: x.permute(a["axes"]),
    "slice": slices,
    "take": lambda a, n, x, index: x.index_select(a["axis"], index),
    "concatenate": lambda a, n, *xs: torch.cat(xs, a["axis"]),
    "pad": padded,
}
"""By operation; `layers` has the others."""
