"""Columns and the diagonal of a kernel, from wherever it is: an array, a store, an operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.operators import NTKOperator

BLOCK = 512
"""Samples whose kernel with themselves is computed at a time, for the diagonal of an operator."""


def kernel_columns(kernel: Any, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
    """The columns `indices` of a kernel, float64.

    A store computes them anew from its network and samples: reading them would take all of its tiles.
    """
    if isinstance(kernel, NTKOperator):
        x, outputs, params = kernel.samples, kernel.reduction.outputs, list(kernel.params)
        found = ntk(kernel.model, x, x[indices], outputs=outputs, params=params, backend=kernel.backend)
        return found.astype(np.float64, copy=False)
    if callable(getattr(kernel, "columns", None)):
        return np.asarray(kernel.columns(indices), dtype=np.float64)
    if isinstance(kernel, np.ndarray):
        return np.asarray(kernel[:, indices], dtype=np.float64)
    unit = np.zeros((kernel.shape[0], len(indices)))
    unit[indices, np.arange(len(indices))] = 1
    return SlicedMatrix(kernel) @ unit


def diagonal_mean(kernel: Any) -> float:
    """The mean of the diagonal, the same from wherever the kernel is read."""
    if hasattr(kernel, "diagonal"):
        return float(np.mean(kernel.diagonal(), dtype=np.float64))
    return float(np.concatenate([np.diagonal(block) for block in _diagonal_blocks(kernel)]).mean(dtype=np.float64))


def _diagonal_blocks(kernel: Any) -> Iterator[np.ndarray]:
    for start in range(0, kernel.shape[0], BLOCK):
        rows = slice(start, min(start + BLOCK, kernel.shape[0]))
        if isinstance(kernel, NTKOperator):
            x, outputs, params = kernel.samples[rows], kernel.reduction.outputs, list(kernel.params)
            yield ntk(kernel.model, x, outputs=outputs, params=params, backend=kernel.backend)
        else:
            yield np.asarray(kernel[rows, rows])
