"""Where the samples of a batch stand in a tensor inside a module: found by comparing two batches.

A module may flatten, split and transpose as it likes: tokens of a batch (n, T, p) become n T rows, layers with
sequences first have (T, n, p), windows and frames are folded into the axis of samples. So an axis of a tensor whose
length grows with the batch is one of (outer, n, inner), in C order. A batch of two samples and one of three, of which
the first two are the same, say which by their numbers. (One sample would not do: torch computes some things in another
way for it.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

FEW, MORE = 2, 3
"""Samples of the two batches."""


@dataclass(frozen=True)
class Layout:
    """The samples are the middle of (outer, n, inner), which `axis` of a tensor consists of.

    `count`: how many of them count, the first ones; None for all.
    """

    axis: int
    outer: int
    inner: int
    count: int | None = None

    def samples_first(self, tensor: Tensor) -> Tensor:
        """(n, *shape for a single sample), a view where there can be one; of the samples that count."""
        shape = list(tensor.shape)
        n = shape[self.axis] // (self.outer * self.inner)
        if self.axis == 0 and self.outer == 1:  # as mostly
            return tensor.reshape(n, self.inner, *shape[1:])[: self.count]
        apart = tensor.reshape(*shape[: self.axis], self.outer, n, self.inner, *shape[self.axis + 1 :])
        shape[self.axis] = self.outer * self.inner
        found = apart.movedim(self.axis + 1, 0).reshape(n, *shape)
        return found if self.count is None else found[: self.count]


def differing(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors are not the same; what is not finite is the same where it is in both."""
    return ~((one == other) | (one.isnan() & other.isnan()))


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same but for rounding, as sums in another order have it.

    Differences of numbers around one may leave nothing but rounding, which is not compared with itself. What is not
    finite is the same where it is in both.
    """
    if one.shape != other.shape:
        return False
    if not one.is_floating_point() or not one.numel():
        return bool(torch.equal(one, other))
    gap, size = _numbers((one - other).abs().max(), torch.maximum(one.abs().max(), other.abs().max()))
    if not isfinite(gap + size):
        finite = one.isfinite() & other.isfinite()
        if bool((differing(one, other) & ~finite).any()):
            return False
        gap, size = _numbers(
            torch.where(finite, one - other, 0.0).abs().max(),
            torch.where(finite, torch.maximum(one.abs(), other.abs()), 0.0).max(),
        )
    eps = torch.finfo(one.dtype).eps
    return bool(gap <= max(eps**0.5 * size, 100 * eps))


def _numbers(*values: Tensor) -> list[float]:
    """All at once: a GPU is waited for when a number is asked for."""
    found: list[float] = torch.stack(values).tolist()
    return found


def candidates(few: tuple[int, ...], more: tuple[int, ...]) -> Iterator[Layout]:
    """Every layout that the shapes allow, the likelier first: samples slowest, then fastest."""
    differing = [axis for axis in range(len(more)) if len(few) == len(more) and few[axis] != more[axis]]
    if len(differing) != 1:
        return
    axis = differing[0]
    length = more[axis] - few[axis]
    if (few[axis], more[axis]) != (FEW * length, MORE * length):
        return
    inner = sorted((i for i in range(1, length + 1) if length % i == 0), key=lambda i: (i not in (1, length), -i))
    yield from (Layout(axis, length // i, i) for i in inner)
