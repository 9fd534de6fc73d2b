"""How a stored kernel's entries are written: as they are, or narrower, with the error that this makes."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.errors import StoreError
from udlbridge.kernels.finite import check_finite

STORAGE: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
"""How entries may be stored. Zarr has no bfloat16: its 16 bits are stored as an unsigned integer."""


def storage_eps(storage: str) -> float:
    """Spacing of the stored numbers at 1: the eps of the storage. bfloat16 has 8 significant bits."""
    return 2.0**-7 if storage == "bfloat16" else float(np.finfo(STORAGE[storage]).eps)


def narrowed(block: np.ndarray, storage: str, corner: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, float]:
    """The entries as they are stored, and the largest error that this makes, relative to the largest entry.

    `corner` is where in the kernel the block begins, for errors.

    Raises:
        NumericalError: an entry is not finite. Rounding of bits would take some for numbers.
        StoreError: an entry is too large for the storage, or all are too small: they would become zeros.
    """
    check_finite(block, corner=corner)
    if storage == block.dtype.name:
        return block, 0.0
    if storage != "bfloat16":
        with np.errstate(over="ignore"):
            raw = block.astype(STORAGE[storage])
    else:
        with np.errstate(over="ignore"):
            bits = np.ascontiguousarray(block, dtype=np.float32).view(np.uint32)
        # Round to nearest, ties to even: the rounding of a cast, on the upper 16 bits.
        raw = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    back = widened(raw, storage, block.dtype)
    scale = float(np.abs(block).max())
    if not np.isfinite(back).all() or (scale > 0 and not back.any()):
        raise StoreError(
            f"an entry of {scale:.3g} does not fit into {storage}",
            allowed="tiles whose largest entry is neither too large for it nor, as a zero, too small",
            remedy='use storage="bfloat16", float32, or the dtype of the kernel',
        )
    return raw, float(np.abs(back - block).max()) / scale if scale > 0 else 0.0


def widened(raw: np.ndarray, storage: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Stored entries in the kernel's own dtype."""
    if storage == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(dtype, copy=False)
    return raw.astype(dtype, copy=False)
