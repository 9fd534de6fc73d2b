"""The product that all summands of a kernel in torch are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from udlbridge.reduction import Reduction


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
