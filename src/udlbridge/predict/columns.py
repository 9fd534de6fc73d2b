"""Columns and the diagonal of a kernel, from wherever it is: an array, a store, an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.operators import NTKOperator

SAMPLE = 256
"""Samples whose entries stand for the diagonal of an operator's kernel, which has none to read."""


def kernel_columns(kernel: Any, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
    """The columns `chosen` of a kernel, float64.

    A store has its network and samples, so that columns are computed anew: reading them would take all of its tiles.
    """
    if isinstance(kernel, NTKOperator):
        return _computed(kernel.model, kernel.samples, indices, kernel.reduction.outputs, kernel.params, kernel.backend)
    if hasattr(kernel, "manifest"):
        backend = kernel.manifest["backend"]
        parameters = kernel.parameters
        return _computed(kernel.model(), kernel.samples(), indices, kernel.reduction.outputs, parameters, backend)
    if isinstance(kernel, np.ndarray):
        return np.asarray(kernel[:, indices], dtype=np.float64)
    unit = np.zeros((kernel.shape[0], len(indices)))
    unit[indices, np.arange(len(indices))] = 1
    return SlicedMatrix(kernel) @ unit


def _computed(model: Any, x: np.ndarray, indices: np.ndarray, outputs: Any, params: Any, backend: str) -> np.ndarray:
    return ntk(model, x, x[indices], outputs=outputs, params=list(params), backend=backend).astype(np.float64)


def diagonal_mean(kernel: Any) -> float:
    """The mean of the diagonal; of an operator's kernel, estimated from some samples spread over all."""
    if hasattr(kernel, "diagonal"):
        return float(np.mean(kernel.diagonal(), dtype=np.float64))
    indices = np.unique(np.linspace(0, kernel.shape[0] - 1, SAMPLE).astype(int))
    if isinstance(kernel, NTKOperator):
        x = kernel.samples[indices]
        own = ntk(kernel.model, x, outputs=kernel.reduction.outputs, params=list(kernel.params), backend=kernel.backend)
        return float(np.mean(np.diagonal(own), dtype=np.float64))
    return float(np.mean(kernel_columns(kernel, indices)[indices, np.arange(len(indices))]))
