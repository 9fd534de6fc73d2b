"""Operations of a graph that torch has as layers: affine maps, convolutions, pools, norms, tables and attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from udlbridge.backends.pytorch.graphs.operations import Attributes, Rule
from udlbridge.backends.pytorch.norms import with_errors_in_order


def convolution(a: Attributes, n: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over 1 to 3 axes."""
    functions: tuple[Rule, ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
    return functions[weight.ndim - 3](x, weight, bias, a["stride"], a["padding"], a["dilation"], a["groups"])


def transposed(a: Attributes, n: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over 1 to 3 axes."""
    functions: tuple[Rule, ...] = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )
    settings = (a["stride"], a["padding"], a["output_padding"], a["groups"], a["dilation"])
    return functions[weight.ndim - 3](x, weight, bias, *settings)


def max_pool(a: Attributes, n: int, x: Tensor) -> Tensor:
    """Over 1 to 3 axes."""
    functions: tuple[Rule, ...] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
    function = functions[len(a["kernel"]) - 1]
    return function(x, a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil_mode"])


def mean_pool(a: Attributes, n: int, x: Tensor) -> Tensor:
    """Over 1 to 3 axes."""
    functions: tuple[Rule, ...] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
    function = functions[len(a["kernel"]) - 1]
    return function(x, a["kernel"], a["stride"], a["padding"], a["ceil_mode"], a["count_padding"])


def rms_norm(a: Attributes, n: int, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Written out: torch's own is younger than the oldest torch that is allowed."""
    axes = tuple(range(x.ndim - a["axes"], x.ndim))
    y = x * (x.square().mean(axes, keepdim=True) + a["epsilon"]).rsqrt()
    return y if weight is None else y * weight


def layer_norm(a: Attributes, n: int, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Over the last axes."""
    return functional.layer_norm(x, x.shape[x.ndim - a["axes"] :], weight, bias, a["epsilon"])


def attention(a: Attributes, n: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Written out: torch's fused kernels cannot be differentiated twice."""
    scores = a["scale"] * (query @ key.transpose(-1, -2))
    if a["causal"]:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


def embedding(a: Attributes, n: int, table: Tensor, tokens: Tensor) -> Tensor:
    """A row of the padding gets no gradient."""
    return functional.embedding(tokens, table, None if a["padding"] < 0 else a["padding"])


RULES: dict[str, Rule] = {
    "linear": lambda a, n, x, weight, bias=None: functional.linear(x, weight, bias),
    "matmul": lambda a, n, x, y: x @ y,
    "einsum": lambda a, n, x, y: torch.einsum(a["equation"], x, y),
    "conv": convolution,
    "conv_transpose": transposed,
    "embedding": embedding,
    "attention": attention,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": lambda a, n, x, weight=None, bias=None: functional.group_norm(
        x, a["groups"], weight, bias, a["epsilon"]
    ),
    "batch_norm": lambda a, n, x, mean, var, weight=None, bias=None: with_errors_in_order(
        functional.batch_norm(x, mean, var, weight, bias, False, 0.0, a["epsilon"])
    ),
    "max_pool": max_pool,
    "mean_pool": mean_pool,
}
"""By operation."""
