"""Backward passes of norms of channels: per-sample gradients of scale and shift, and errors in torch's order."""

from __future__ import annotations

import torch
from torch import Tensor

DEVICES = {"cpu", "cuda"}
"""Where torch has one pass for both sums."""


def channel_gradients(d: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over space of d (x - mean) scale, and of d, (n, C) each, from x and d (n, C, *space).

    `mean` and `scale` (n, G) are those of as many groups of channels in a row. Both sums come from one look at d and x:
    it is torch's own for the gradients of a batch, to which the channels of all images are the channels of one.
    """
    n, channels = x.shape[:2]
    if x.device.type not in DEVICES:
        plain = (x.reshape(*mean.shape, -1) - mean[..., None]) * scale[..., None]
        errors = d.reshape(n, channels, -1)
        return (errors * plain.view(errors.shape)).sum(2), errors.sum(2)
    # It reads memory as it lies, in which a number that is expanded stands once.
    flat, errors = (one.reshape(1, n * channels, -1).contiguous() for one in (x, d))
    statistics = (one.reshape(1, -1).contiguous() for one in (mean, scale))
    _, by_scale, by_shift = torch.ops.aten.native_group_norm_backward(
        errors, flat, *statistics, flat.new_ones(n * channels),
        1, n * channels, flat.shape[2], mean.numel(), [False, True, True],
    )  # fmt: skip
    return by_scale.view(n, channels), by_shift.view(n, channels)


def with_errors_in_order(result: Tensor) -> Tensor:
    """What torch's norm of channels gives, with errors that come back to it laid out as it reads them.

    Its backward pass of one sample on the CPU takes errors that lie channels last as if they lay channels first (2.13).
    """
    if result.requires_grad and result.shape[0] == 1:
        result.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return result
