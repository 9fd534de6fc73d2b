"""Translations of what fills a tensor with a number, or a triangle of it with zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Rows, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation
from udlbridge.networks.graphs.values import PerSample


def triangle(lower: bool) -> Translation:
    """Zeros above or below a diagonal."""

    def translate(c: Call) -> Value:
        x = c["self"]
        rows, columns = c.size(x, -2), c.size(x, -1)
        ones = torch.ones(rows, columns, dtype=torch.bool)
        mask = ones.tril(c["diagonal"]) if lower else ones.triu(c["diagonal"])
        return c.add("where", mask, x, 0.0)

    return translate


def filled(value: float | None) -> Translation:
    """One number everywhere; a constant, unless the shape grows with the samples."""

    def translate(c: Call) -> Value | Tensor:
        number = c.get("fill_value", c.get("value")) if value is None else value
        if isinstance(number, Tensor) and number.numel() == 1:
            number = number.item()
        if isinstance(number, int | float) and not any(isinstance(size, PerSample) for size in c.shape()):
            return torch.full(c.meta.shape, number, dtype=c.meta.dtype)
        if not isinstance(number, int | float) or not (c.meta.dtype == c.builder.dtype or float(number).is_integer()):
            raise Unfit("numbers of another dtype, as many as there are samples")
        if c.meta.dtype == torch.bool:
            return c.add("compare", c.fill(float(number), c.shape()), 0.0, relation="not_equal")
        found = c.fill(float(number), c.shape())
        if c.meta.dtype != c.builder.dtype:
            c.builder.whole.add(found)
        return found

    return translate


def counted(c: Call) -> Rows:
    """The numbers of the samples.

    Raises:
        Unfit: others, as many as there are samples.
    """
    if c.shape() != (PerSample(1),) or c.get("start") not in (None, 0) or c.get("step") not in (None, 1):
        raise Unfit("numbers that depend on the number of samples")
    return Rows(c.shape())


TRANSLATIONS: dict[str, Translation] = {
    "arange": counted,
    "tril": triangle(lower=True),
    "triu": triangle(lower=False),
    **{name: filled(0.0) for name in ("zeros", "new_zeros", "zeros_like")},
    # What was there does not count: whoever takes it for numbers is found out by the proof.
    **{name: filled(0.0) for name in ("empty", "new_empty", "empty_like", "empty_permuted", "empty_strided")},
    **{name: filled(1.0) for name in ("ones", "new_ones", "ones_like")},
    **{name: filled(None) for name in ("full", "new_full", "full_like", "fill")},
}
"""By the name of torch's operation."""
