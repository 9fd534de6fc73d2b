"""The product that all summands of a kernel in torch are made of, and the strips in which it is taken."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from udlbridge.reduction import Reduction

STRIP = 512
"""Rows of a rectangle that are done at a time: what the elementwise products touch should stay in the cache."""

SHORTEST_STRIP = 64
"""Rows below which a matrix product is slower than what a shorter strip would save."""


def strip_rows(rows: int, same: bool) -> Iterator[slice]:
    """Strips of a rectangle; lower ones where it is symmetric (`same`), so that more of the other half is spared."""
    height = min(STRIP, max(SHORTEST_STRIP, rows // 8)) if same else STRIP
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def mirror(target: Tensor) -> None:
    """Copy what the strips of a symmetric rectangle (r, r, *trailing) hold to the other side of the diagonal."""
    for own in strip_rows(len(target), True):
        below = target[own, : own.start].transpose(0, 1)
        target[: own.start, own] = below.transpose(2, 3) if target.ndim == 4 else below


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
