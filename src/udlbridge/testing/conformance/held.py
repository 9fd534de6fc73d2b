"""How a result is held against what it has to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.texts import kind_of
from udlbridge.tolerances import budget


def near(
    what: str,
    found: Any,
    expected: np.ndarray,
    *,
    dtype: str = "float64",
    factor: float = 1.0,
    size: float | None = None,
) -> None:
    """Assert shape, dtype, and entries within the error budget of the dtype, relative to the largest one expected.

    `factor`: for what is computed from other results, or known less exactly itself. `size`: what errors are relative to
    where `expected` is a part of something, or a sum in which much may cancel.
    """
    assert isinstance(found, np.ndarray), f"{what} is {kind_of(found)}, and not an array of NumPy"
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, and not {expected.shape}"
    assert found.dtype == dtype, f"{what} is {found.dtype}, and not {dtype}"
    gap = np.abs(found.astype(np.float64) - expected)
    scale = max(float(np.abs(expected).max(initial=0.0)) if size is None else size, float(np.finfo(dtype).tiny))
    where = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape)) if gap.size else ()
    worst = float(gap[where]) if gap.size else 0.0
    limit = factor * budget(dtype)
    assert worst <= limit * scale, (
        f"{what} is {found[where]!r} at {where}, and not {expected[where]!r}: the difference is "
        f"{worst / scale:.1e} of the largest entry, allowed are {limit:.0e}"
    )


def owned(what: str, found: np.ndarray, **inputs: np.ndarray) -> None:
    """Assert that an array is the caller's own: it shares memory with no input, and each entry has a place of its own.

    Then writing to it changes nothing else.
    """
    for name, given in inputs.items():
        assert not np.shares_memory(found, given), f"{what} shares its memory with {name}"
    assert found.flags.writeable, f"{what} cannot be written to"
    spread = [size > 1 and stride == 0 for size, stride in zip(found.shape, found.strides, strict=True)]
    assert not any(spread), f"{what} has several entries in one place of memory"
