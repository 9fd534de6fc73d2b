"""How torch evaluates every layer, showing where parameters enter, so that the structured kernel can see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from udlbridge.backends.pytorch.norms import channel_gradients, with_errors_in_order
from udlbridge.backends.pytorch.sites import Affine, Elementwise, Lookup, Scope
from udlbridge.backends.pytorch.windows import Windows, is_wide
from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv1d,
    Conv2d,
    Convolution,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    LogSoftmax,
    MaxPool,
    MeanPool,
    Residual,
    SelfAttention,
    SinusoidalPositions,
    Softmax,
    Take,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu_tanh": lambda z: nnf.gelu(z, approximate="tanh"),
    "gelu_erf": nnf.gelu,
    # torch returns z itself above `threshold` (20 by default), which costs 2e-9 in float64: above 50 it is exact.
    "softplus": lambda z: nnf.softplus(z, threshold=50.0),
    "swish": nnf.silu,
    "elu": nnf.elu,
    "leakyrelu": nnf.leaky_relu,
    "selu": torch.selu,
    "mish": nnf.mish,
    "abs": torch.abs,
    "erf": torch.erf,
    "sin": torch.sin,
}
"""torch's function for every activation."""


def run_chain(layers: Iterable[Layer], scope: Scope, x: Tensor) -> Tensor:
    """A chain of layers on a batch (n, *D)."""
    for index, layer in enumerate(layers):
        x = RULES[type(layer)](layer, scope.inside(str(index)), x)
    return x


def _tokens(x: Tensor) -> Tensor:
    """(n, *T, p) -> (n, 1, T, p): every axis between sample and feature is one of positions."""
    return x.reshape(len(x), 1, -1, x.shape[-1])


def _affine(weight: str, bias: str | None, x: Tensor) -> Affine:
    """A map of the last axis of x (n, *T, p)."""
    return Affine(weight, bias, x, _tokens, _tokens, (1, math.prod(x.shape[1:-1]), x.shape[-1]))


def dense(layer: Dense, scope: Scope, x: Tensor) -> Tensor:
    """activation(W x + b)."""
    z = nnf.linear(x, scope["weight"], scope.get("bias"))
    z = scope.tap(_affine("weight", "bias" if layer.bias else None, x), z)
    return ACTIVATIONS[layer.activation](z)


def convolution(layer: Convolution, scope: Scope, x: Tensor) -> Tensor:
    """activation of torch's own convolution."""
    function = nnf.conv1d if isinstance(layer, Conv1d) else nnf.conv2d
    windows = Windows(layer.kernel, layer.strides, layer.sides, layer.dilations)
    # torch's own function pads both sides of an axis alike.
    padded, zeros = (windows.padded(x), 0) if layer.paddings is None else (x, layer.paddings)
    z = function(padded, scope["weight"], scope.get("bias"), layer.strides, zeros, layer.dilations, layer.groups)
    groups, space = layer.groups, tuple(z.shape[2:])

    def inputs(a: Tensor) -> Tensor:
        return windows.of(a).reshape(len(a), groups, layer.patch_size, -1).transpose(2, 3)

    def errors(d: Tensor) -> Tensor:
        return d.reshape(len(d), groups, layer.out_channels // groups, -1).transpose(2, 3)

    def gradient(a: Tensor, d: Tensor) -> Tensor:
        return windows.gradient(a, d, space)

    direct = gradient if is_wide(layer.in_channels, groups, space, layer.kernel) else None
    extent = groups, math.prod(space), layer.patch_size
    z = scope.tap(Affine("weight", "bias" if layer.bias else None, x, inputs, errors, extent, direct), z)
    return ACTIVATIONS[layer.activation](z)


def maxpool(layer: MaxPool, scope: Scope, x: Tensor) -> Tensor:
    """torch's own."""
    function = nnf.max_pool1d if len(layer.kernel) == 1 else nnf.max_pool2d
    return function(x, layer.kernel, layer.strides, layer.paddings)


def meanpool(layer: MeanPool, scope: Scope, x: Tensor) -> Tensor:
    """torch's own; padding counts."""
    if len(layer.kernel) == 1:
        return nnf.avg_pool1d(x, layer.kernel, layer.strides, layer.paddings)
    return nnf.avg_pool2d(x, layer.kernel, layer.strides, layer.paddings)


def globalmeanpool(layer: GlobalMeanPool, scope: Scope, x: Tensor) -> Tensor:
    """The mean over space."""
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def layernorm(layer: LayerNorm, scope: Scope, x: Tensor) -> Tensor:
    """torch's own."""
    weight, bias = scope.get("weight"), scope.get("bias")
    z = nnf.layer_norm(x, layer.shape, weight, bias, layer.eps)
    seen, summed = x.detach(), tuple(range(1, x.ndim - len(layer.shape)))

    @cache
    def xhat() -> Tensor:
        """Only kernels need it by itself, and then for every cotangent."""
        return nnf.layer_norm(seen, layer.shape, None, None, layer.eps)

    def gradients(d: Tensor) -> tuple[Tensor, Tensor]:
        return ((d * xhat()).sum(summed), d.sum(summed)) if summed else (d * xhat(), d)

    return z if weight is None else scope.tap(Elementwise(("weight", "bias"), gradients), z)


def groupnorm(layer: GroupNorm, scope: Scope, x: Tensor) -> Tensor:
    """torch's own, below nnf.group_norm: that refuses groups of one number, which are zero here as in other engines."""
    weight, bias = scope.get("weight"), scope.get("bias")
    n, channels, *space = x.shape
    z, mean, scale = torch.native_group_norm(
        x.contiguous(), weight, bias, n, channels, math.prod(space), layer.num_groups, layer.eps
    )
    return _by_channels(scope, x, z, mean.detach(), scale.detach())


def batchnorm(layer: BatchNorm, scope: Scope, x: Tensor) -> Tensor:
    """torch's own, with the stored statistics."""
    mean, variance = scope["running_mean"], scope["running_var"]
    weight, bias = scope.get("weight"), scope.get("bias")
    z = with_errors_in_order(nnf.batch_norm(x, mean, variance, weight, bias, training=False, eps=layer.eps))
    return _by_channels(scope, x, z, mean, (variance + layer.eps).rsqrt())


def _by_channels(scope: Scope, x: Tensor, z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """z = weight (x - mean) scale + bias, of channels; `mean` and `scale` are (n, G), or (C,) for all samples."""
    if scope.get("weight") is None:
        return z
    seen = x.detach()

    def gradients(d: Tensor) -> tuple[Tensor, Tensor]:
        own = (one if one.ndim > 1 else one.expand(len(d), -1) for one in (mean, scale))
        return channel_gradients(d, seen, *own)

    return scope.tap(Elementwise(("weight", "bias"), gradients), z)


def embedding(layer: Embedding, scope: Scope, x: Tensor) -> Tensor:
    """Rows of the weight."""
    z = nnf.embedding(x, scope["weight"])
    return scope.tap(Lookup("weight", x, layer.num_embeddings), z)


def sinusoidal_positions(layer: SinusoidalPositions, scope: Scope, x: Tensor) -> Tensor:
    """x + table, computed in float64 and rounded to the dtype of x."""
    tokens, features = x.shape[-2:]
    even = torch.arange(0, features, 2, dtype=torch.float64, device=x.device)
    angles = torch.arange(tokens, dtype=torch.float64, device=x.device)[:, None] / 10000.0 ** (even / features)
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :features]
    return x + table.to(x.dtype)


def learned_positions(layer: LearnedPositions, scope: Scope, x: Tensor) -> Tensor:
    """x_t + W[t]."""
    missing = layer.length - x.shape[1]
    z = x + scope["weight"][: x.shape[1]]
    return scope.tap(Elementwise(("weight",), lambda d: (nnf.pad(d, (0, 0, 0, missing)),)), z)


def attention(layer: SelfAttention, scope: Scope, x: Tensor) -> Tensor:
    """Multi-head attention from its two affine maps, so that the structured kernel sees them."""
    n, tokens, features = x.shape
    names = ("in_proj_bias", "out_proj.bias") if layer.bias else (None, None)
    z = nnf.linear(x, scope["in_proj_weight"], scope.get("in_proj_bias"))
    z = scope.tap(_affine("in_proj_weight", names[0], x), z)
    q, k, v = z.view(n, tokens, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) / math.sqrt(features / layer.num_heads)
    if layer.causal:
        later = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    joined = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, features)
    y = nnf.linear(joined, scope["out_proj.weight"], scope.get("out_proj.bias"))
    return scope.tap(_affine("out_proj.weight", names[1], joined), y)


def residual(layer: Residual, scope: Scope, x: Tensor) -> Tensor:
    """layers(x) + shortcut(x)."""
    return run_chain(layer.layers, scope, x) + run_chain(layer.shortcut, scope.inside("shortcut"), x)


RULES: dict[type[Layer], Callable[[Any, Scope, Tensor], Tensor]] = {
    Dense: dense,
    Activation: lambda layer, scope, x: ACTIVATIONS[layer.activation](x),
    Softmax: lambda layer, scope, x: torch.softmax(x, dim=-1),
    LogSoftmax: lambda layer, scope, x: torch.log_softmax(x, dim=-1),
    Flatten: lambda layer, scope, x: x.flatten(1),
    Dropout: lambda layer, scope, x: x,
    Conv1d: convolution,
    Conv2d: convolution,
    MaxPool: maxpool,
    MeanPool: meanpool,
    GlobalMeanPool: globalmeanpool,
    LayerNorm: layernorm,
    GroupNorm: groupnorm,
    BatchNorm: batchnorm,
    Embedding: embedding,
    SinusoidalPositions: sinusoidal_positions,
    LearnedPositions: learned_positions,
    SelfAttention: attention,
    Take: lambda layer, scope, x: x[:, layer.index],
    Residual: residual,
}
"""How torch evaluates each class of layer."""
