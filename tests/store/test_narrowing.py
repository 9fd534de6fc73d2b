"""Entries that are stored narrower than they are: what is rounded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from small_stores import store_of
from udlbridge import errors
from udlbridge.store.narrowing import narrowed, widened

PAYLOADS = [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000]
"""Bits of NaNs and infinities. Rounded as if they were numbers, the second becomes -0 and the third 0."""


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", PAYLOADS)
def test_what_is_not_finite_is_refused_before_it_is_rounded(storage: str, bits: int) -> None:
    block = np.ones((3, 4), dtype=np.float32)
    block[1, 2] = np.array(bits, dtype=np.uint32).view(np.float32)
    with pytest.raises(errors.NumericalError, match=r"K\[11, 22\] is -?(nan|inf)"):
        narrowed(block, storage, (10, 20))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bfloat16_rounds_to_nearest_ties_to_even(dtype: type) -> None:
    """Against the definition: the nearest multiple of 2^-7 of the power of two below, the even one of two."""
    values = np.r_[1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 2.0**-130, 3e38, np.linspace(-2, 2, 999)].astype(
        dtype
    )
    raw, error = narrowed(values[None], "bfloat16")
    exponents = np.floor(np.log2(np.maximum(np.abs(values.astype(np.float64)), 2.0**-126)))
    steps = 2.0 ** (exponents - 7)
    expected = np.rint(values.astype(np.float32).astype(np.float64) / steps) * steps
    np.testing.assert_array_equal(widened(raw, "bfloat16", np.dtype(np.float64))[0], expected)
    assert error <= 2.0**-8


def test_a_store_names_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "K.zarr", n=6)
    tile = next(store.grid.tiles())
    block = np.asarray(store)
    block[3, 2] = np.nan
    with store.writing(), pytest.raises(errors.NumericalError, match=r"K\[3, 2\] is nan"):
        store.write_tile(tile, block)
    assert isinstance(store, ub.KernelStore)
