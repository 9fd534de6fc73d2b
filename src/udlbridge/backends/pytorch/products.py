"""The product that all summands of a kernel in torch are made of, and the strips in which it is taken."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from udlbridge.backends.reduction import Reduction
from udlbridge.backends.rules import strip_height

STRIP = 512
"""Most rows of a strip, so that its products are in the cache when they are multiplied."""


def strip_rows(rows: int, lower: bool, positions: int = 1) -> Iterator[slice]:
    """The rows of a rectangle in strips; in shorter ones, where only what lies below the diagonal is needed."""
    height = min(STRIP, strip_height(rows, positions)) if lower else STRIP
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def errors_product(reduction: Reduction, d: Tensor, e: Tensor, target: Tensor, overwrite: bool) -> None:
    """target = or += <d_i, e_j> for every pair of samples, reduced over outputs as asked."""
    r, k, _ = d.shape
    c = len(e)
    if reduction.name == "full":
        block = (d.flatten(0, 1) @ e.flatten(0, 1).T).view(r, k, c, k).transpose(1, 2)
        target.copy_(block) if overwrite else target.add_(block)
    elif reduction.name == "diagonal":
        block = torch.bmm(d.transpose(0, 1), e.permute(1, 2, 0)).permute(1, 2, 0)
        target.copy_(block) if overwrite else target.add_(block)
    else:
        # One inner product over (output, parameter) together: this is the trace, or the one output that there is.
        left, right = d.flatten(1), e.flatten(1).T
        torch.mm(left, right, out=target) if overwrite else target.addmm_(left, right)
