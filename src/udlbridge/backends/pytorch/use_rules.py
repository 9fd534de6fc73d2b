"""Uses read from the nodes of autograd's graph at which tensors enter, from what these keep for the backward pass.

Nodes that are not in `RULES` have no use: their parameters are differentiated sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from udlbridge.backends.pytorch.uses import ChannelScale, Convolved, Rows, Scaled, Shape, Table, Use
from udlbridge.backends.pytorch.windows import Windows


def use_of(node: Node, index: int, entered: Shape, result: Shape) -> Use | None:
    """How a tensor of shape `entered` enters at input `index` of a node that makes a tensor of shape `result`."""
    rule = RULES.get(node.name())
    try:
        return None if rule is None else rule(node, index, entered, result)
    except RuntimeError:  # a tensor that the node kept was overwritten since
        return None


def _aligned(entered: Shape, result: Shape) -> Shape:
    """As NumPy broadcasts: from the last axis."""
    return (1,) * (len(result) - len(entered)) + entered


def _channels(entered: Shape, result: Shape) -> Shape:
    """Along axis 1."""
    return tuple(prod(entered) if axis == 1 else 1 for axis in range(len(result)))


def _addmm(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    if index == 0:
        return Scaled(entered, result, node._saved_mat1, _aligned(entered, result))
    return _rows(node._saved_mat1 if index == 2 else node._saved_mat2, index == 1, entered, result)


def _mm(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    return _rows(node._saved_self if index == 1 else node._saved_mat2, index == 0, entered, result)


def _mv(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    return _rows(node._saved_self, False, entered, result) if index == 1 else None


def _rows(other: Tensor | None, first: bool, entered: Shape, result: Shape) -> Use | None:
    """`first`: W stands to the left, so that z is the transpose of what rows give."""
    if other is None:
        return None
    return Rows(entered, result[::-1] if first else result, other.detach().T if first else other.detach(), first)


def _convolution(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    x = node._saved_input
    if x is None:
        return None
    if index == 2:
        return Scaled(entered, result, x, _channels(entered, result))
    if index != 1:
        return None
    zeros = node._saved_padding
    windows = Windows(
        tuple(entered[2:]), tuple(node._saved_stride), tuple((zero, zero) for zero in zeros),
        tuple(node._saved_dilation),
    )  # fmt: skip
    if node._saved_transposed and any(node._saved_output_padding):
        # The last zeros that were added lie outside of every window.
        windows = Windows(
            windows.kernel, windows.strides,
            tuple((zero, zero - more) for zero, more in zip(zeros, node._saved_output_padding, strict=True)),
            windows.dilations,
        )  # fmt: skip
    return Convolved(entered, result, x.detach(), windows, node._saved_groups, node._saved_transposed)


def _layer_norm(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    x, mean, scale = node._saved_input.detach(), node._saved_result1, node._saved_result2
    if index not in (1, 2):
        return None
    plain = (lambda: (x.to(mean.dtype) - mean).mul_(scale)) if index == 1 else None
    return Scaled(entered, result, x, _aligned(entered, result), plain)


def _group_norm(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    x, mean, scale = node._saved_input.detach(), node._saved_result1, node._saved_result2
    return _channel_norm(index, entered, result, x, lambda: (mean, scale))


def _batch_norm(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    if node._saved_training:  # statistics of the batch: samples depend on each other
        return None
    x, mean, variance, eps = (
        node._saved_input.detach(), node._saved_running_mean, node._saved_running_var, node._saved_eps
    )  # fmt: skip

    def statistics() -> tuple[Tensor, Tensor]:
        return mean.expand(x.shape[:2]), (variance + eps).rsqrt().expand(x.shape[:2])

    return _channel_norm(index, entered, result, x, statistics)


def _channel_norm(
    index: int, entered: Shape, result: Shape, x: Tensor, statistics: Callable[[], tuple[Tensor, Tensor]]
) -> Use | None:
    """`statistics` are mean and scale (N, G) of groups of channels of x (N, C, *space)."""
    spread = _channels(entered, result)
    if index == 2:
        return Scaled(entered, result, x, spread)
    if index != 1:
        return None

    def plain() -> Tensor:
        mean, scale = (one.unsqueeze(-1) for one in statistics())
        return (x.reshape(*mean.shape[:2], -1).to(mean.dtype) - mean).mul_(scale).view(x.shape)

    return ChannelScale(entered, result, x, spread, plain, statistics=lambda: (x, *statistics()))


def _embedding(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    if index != 0 or node._saved_scale_grad_by_freq:
        return None
    return Table(entered, result, node._saved_indices, _token(node._saved_padding_idx, entered))


def _token(saved: int, entered: Shape) -> int:
    """The padding token, of which -1 says that there is none; torch shows it without its sign."""
    return saved if saved < entered[0] else -1


def _embedding_bag(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    weighted = node._saved_per_sample_weights is not None
    if index != 0 or weighted or node._saved_scale_grad_by_freq or node._saved_mode not in (0, 1):
        return None
    tokens, offsets = node._saved_indices, node._saved_offsets[: result[0]]
    if _token(node._saved_padding_idx, entered) >= 0:
        return None
    bag = torch.searchsorted(offsets, torch.arange(len(tokens), device=tokens.device), right=True) - 1
    counts = torch.bincount(bag, minlength=result[0])
    share = 1.0 / counts[bag].double() if node._saved_mode == 1 else torch.ones(len(bag), device=bag.device)
    return Table(entered, result, tokens, -1, bag, share)


def _mul(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    other = node._saved_other if index == 0 else node._saved_self
    if other is None:
        return None
    other = other.detach()
    return Scaled(entered, result, _full(other, result), _aligned(entered, result), lambda: other)


def _div(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    by = node._saved_other
    if by is None:
        return None
    by = by.detach()
    if index == 0:
        return Scaled(entered, result, _full(by, result), _aligned(entered, result), lambda: 1.0 / by)
    x = node._saved_self
    if x is None:
        return None
    x = x.detach()
    return Scaled(entered, result, _full(x, result), _aligned(entered, result), lambda: -x / by**2)


def _full(other: Tensor, result: Shape) -> Tensor | None:
    """A tensor that has the axes of z."""
    return other if tuple(other.shape) == result else None


def _add(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    sign = float(node._saved_alpha) if index == 1 else 1.0
    return Scaled(entered, result, None, _aligned(entered, result), sign=sign)


def _sub(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    sign = -float(node._saved_alpha) if index == 1 else 1.0
    return Scaled(entered, result, None, _aligned(entered, result), sign=sign)


def _prelu(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    if index != 1:
        return None
    x = node._saved_self.detach()
    return Scaled(entered, result, _full(x, result), _aligned(entered, result), lambda: x.clamp(max=0.0))


def _copies(node: Any, index: int, entered: Shape, result: Shape) -> Use | None:
    return Scaled(entered, result, None, _aligned(entered, result))


RULES: dict[str, Callable[[Any, int, Shape, Shape], Use | None]] = {
    "AddmmBackward0": _addmm,
    "MmBackward0": _mm,
    "MvBackward0": _mv,
    "ConvolutionBackward0": _convolution,
    "NativeLayerNormBackward0": _layer_norm,
    "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _batch_norm,
    "EmbeddingBackward0": _embedding,
    "EmbeddingBagBackward0": _embedding_bag,
    "MulBackward0": _mul,
    "DivBackward0": _div,
    "AddBackward0": _add,
    "SubBackward0": _sub,
    "PreluKernelBackward0": _prelu,
    "ExpandBackward0": _copies,
    "RepeatBackward0": _copies,
}
"""By the name of the node."""
