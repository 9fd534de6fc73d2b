"""Windows of convolutions in one, two and three dimensions, and their per-sample weight gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as nnf
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """How a convolution goes over its input; `sides` has the zeros before and after each axis of space."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    sides: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    def padded(self, x: Tensor) -> Tensor:
        """Zeros around a sample. torch's pad counts from the last axis: (left, right, top, bottom)."""
        return nnf.pad(x, [zeros for side in reversed(self.sides) for zeros in side])

    def of(self, x: Tensor) -> Tensor:
        """(n, C, *space) -> (n, C prod kernel, windows), as torch's `unfold`; a copy of a view, which is faster."""
        padded = self.padded(x).contiguous()
        axes = zip(padded.shape[2:], self.kernel, self.strides, self.dilations, strict=True)
        counts = [(length - d * (k - 1) - 1) // s + 1 for length, k, s, d in axes]
        steps = padded.stride()
        inside = [step * d for step, d in zip(steps[2:], self.dilations, strict=True)]
        between = [step * s for step, s in zip(steps[2:], self.strides, strict=True)]
        view = padded.as_strided((*x.shape[:2], *self.kernel, *counts), (*steps[:2], *inside, *between))
        return view.reshape(len(x), x.shape[1] * prod(self.kernel), -1)

    def gradient(self, x: Tensor, d: Tensor, space: tuple[int, ...]) -> Tensor:
        """Per-sample gradients (n, q, p) of the weight of one group, from x (n, C, H, W) and errors (n, T, q).

        The samples of a batch are the groups of one convolution, whose weight gradient is then kept per sample.
        `space`: the windows as rows and columns.
        """
        n, _, outputs = d.shape
        channels = x.shape[1]
        zeros = [before for before, _ in self.sides]
        if any(before != after for before, after in self.sides):
            x, zeros = self.padded(x), [0] * len(self.sides)
        found = torch.ops.aten.convolution_backward(
            d.transpose(1, 2).reshape(1, n * outputs, *space),
            x.reshape(1, n * channels, *x.shape[2:]),
            x.new_empty((n * outputs, channels, *self.kernel)),
            None,
            self.strides,
            zeros,
            self.dilations,
            False,
            [0, 0],
            n,
            [False, True, False],
        )[1]
        return found.view(n, outputs, channels * prod(self.kernel))


def is_wide(channels: int, groups: int, space: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether oneDNN's convolution of whole images beats windows and matrix products: measured, by up to ten times.

    With fewer channels it has no fast kernel, and with fewer windows its blocks stay empty; windows of one place are
    the image as it is.
    """
    return groups == 1 and len(space) == 2 and channels >= 8 and prod(space) >= 64 and prod(kernel) > 1
