"""Per-sample gradients of the scale and the shift of a norm of channels, without the normalised numbers themselves."""

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
