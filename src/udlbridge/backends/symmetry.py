"""The two halves of a symmetric kernel: a tile and its mirror image."""

from __future__ import annotations

import numpy as np

STRIP = 64
"""Rows that are mirrored at a time: so many of a tile stay in the cache, where they are read by columns."""


def symmetrise(block: np.ndarray) -> None:
    """Copy the lower triangle of a diagonal tile (r, r, ...) to its upper one, which need not have been computed.

    Of a full kernel (r, r, O, O), the same in the O x O entries of each sample with itself.
    """
    for start in range(0, len(block), STRIP):
        stop = min(start + STRIP, len(block))
        block[start:stop, stop:] = transposed(block[stop:, start:stop])
        own = block[start:stop, start:stop]
        above = np.triu(np.ones((stop - start, stop - start), dtype=bool), 1)
        own[above] = transposed(own)[above]
    if block.ndim == 4:
        outputs = np.triu(np.ones(block.shape[2:], dtype=bool), 1)
        for i in range(len(block)):
            block[i, i][outputs] = block[i, i].T[outputs]


def transposed(block: np.ndarray) -> np.ndarray:
    """The mirror image of a tile (r, c, ...): samples change sides, and with them the outputs of a full kernel."""
    swapped = block.swapaxes(0, 1)
    return swapped.swapaxes(2, 3) if block.ndim == 4 else swapped
