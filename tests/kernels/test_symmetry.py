"""A tile and its mirror image, for every number of axes that a kernel has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udlbridge.backends import symmetry
from udlbridge.backends.symmetry import symmetrise
from udlbridge.kernels.tiling import Grid, mirror


def symmetric_kernel(n: int, trailing: tuple[int, ...]) -> np.ndarray:
    """K[i, j, a, b] = K[j, i, b, a], with entries that are all different otherwise."""
    k = np.random.default_rng(n).standard_normal((n, n, *trailing))
    return k + (k.transpose(1, 0, 3, 2) if len(trailing) == 2 else k.swapaxes(0, 1))


TRAILING = st.sampled_from([(), (2,), (3, 3)])


@given(n=st.integers(1, 20), trailing=TRAILING, strip=st.integers(1, 9))
def test_the_upper_half_is_the_mirror_image_of_the_lower(n: int, trailing: tuple[int, ...], strip: int) -> None:
    whole = symmetric_kernel(n, trailing)
    tile = whole.copy()
    tile[np.triu(np.ones((n, n), dtype=bool), 1)] = np.nan
    if len(trailing) == 2:  # of a sample with itself, one half of the pairs of outputs is not needed
        for i in range(n):
            tile[i, i][np.triu(np.ones(trailing, dtype=bool), 1)] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symmetry, "STRIP", strip)
        symmetrise(tile)
    np.testing.assert_array_equal(tile, whole)


@given(n=st.integers(1, 20), size=st.integers(1, 21), trailing=TRAILING, strip=st.integers(1, 9))
def test_tiles_of_one_triangle_are_put_on_both_sides(n: int, size: int, trailing: tuple[int, ...], strip: int) -> None:
    whole, result = symmetric_kernel(n, trailing), np.full((n, n, *trailing), np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("udlbridge.kernels.tiling.STRIP", strip)
        for tile in Grid(n, n, size, True).tiles():
            result[tile.rows, tile.columns] = whole[tile.rows, tile.columns]
            if tile.row != tile.column:
                mirror(result, tile)
    np.testing.assert_array_equal(result, whole)
