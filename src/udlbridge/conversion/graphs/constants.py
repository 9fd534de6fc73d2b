"""Translations of what fills a tensor with a number, or a triangle of it with zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation


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
    """One number everywhere, of a shape that grows with the samples."""

    def translate(c: Call) -> Value:
        number = c.get("fill_value", c.get("value")) if value is None else value
        if isinstance(number, Tensor) and number.numel() == 1:
            number = number.item()
        if not isinstance(number, int | float) or c.meta.dtype != c.builder.dtype:
            raise Unfit("numbers of another dtype, as many as there are samples")
        return c.fill(float(number), c.shape())

    return translate


TRANSLATIONS: dict[str, Translation] = {
    "tril": triangle(lower=True),
    "triu": triangle(lower=False),
    **{name: filled(0.0) for name in ("zeros", "new_zeros", "zeros_like")},
    **{name: filled(1.0) for name in ("ones", "new_ones", "ones_like")},
    **{name: filled(None) for name in ("full", "new_full", "full_like", "fill")},
}
"""By the name of torch's operation."""
