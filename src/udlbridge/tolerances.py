"""The error budget: how far two engines may differ, said once.

Relative to the largest entry of the reference: 1e-12 in float64, 1e-5 in float32. The measured gaps are a thousand and
twenty times smaller, so what exceeds a budget is a bug and not bad luck.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.errors import DTypeError

BUDGETS: dict[str, float] = {"float64": 1e-12, "float32": 1e-5}
"""Allowed relative difference by dtype."""

PIECE = 2**14
"""Numbers that are compared at a time: few enough to stay in the cache."""


def budget(dtype: np.dtype[Any] | str) -> float:
    """The allowed relative difference for results in `dtype`.

    Raises:
        DTypeError: neither float32 nor float64.
    """
    name = np.dtype(dtype).name
    if name not in BUDGETS:
        raise DTypeError(f"no error budget for {name}", allowed=", ".join(BUDGETS), remedy="compare floats")
    return BUDGETS[name]


def rounding_unit(kernel: object, dtype: np.dtype[Any]) -> float:
    """The unit of rounding of a kernel's entries: its own `eps`, as a store in narrow storage has, or the dtype's."""
    own = getattr(kernel, "eps", None)
    return float(np.finfo(dtype).eps) if own is None else float(own)


def relative_difference(value: np.ndarray, reference: np.ndarray) -> float:
    """max |value - reference| / max |reference|, in float64; 0 if both are zero, inf if either is not finite.

    Raises:
        ValueError: if the shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {value.shape} and {reference.shape}")
    if value.size == 0:
        return 0.0
    # A piece at a time: copies of two Jacobians in float64 would cost more than comparing them does.
    pieces = np.nditer(
        [value, reference],
        flags=["external_loop", "buffered"],
        op_dtypes=[np.float64, np.float64],
        casting="same_kind",
        buffersize=PIECE,
    )
    gap = scale = 0.0
    for wide, wide_reference in pieces:
        here = float(np.max(np.abs(wide - wide_reference)))
        if not np.isfinite(here):
            return float("inf")
        gap, scale = max(gap, here), max(scale, float(np.max(np.abs(wide_reference))))
    return gap / scale if scale > 0 else (0.0 if gap == 0 else float("inf"))
