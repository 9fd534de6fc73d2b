"""The two halves of a symmetric kernel: a tile and its mirror image."""

from __future__ import annotations

import numpy as np


def symmetrise(block: np.ndarray) -> None:
    """Copy the lower triangle of a diagonal tile (r, r, ...) to its upper one, which need not have been computed."""
    for i in range(len(block)):
        block[i, i + 1 :] = transposed(block[i + 1 :, i : i + 1])[0]
    if block.ndim == 4:
        for i in range(len(block)):
            block[i, i] = np.tril(block[i, i]) + np.tril(block[i, i], -1).T


def transposed(block: np.ndarray) -> np.ndarray:
    """The mirror image of a tile (r, c, ...): samples change sides, and with them the outputs of a full kernel."""
    swapped = block.swapaxes(0, 1)
    return swapped.swapaxes(2, 3) if block.ndim == 4 else swapped
