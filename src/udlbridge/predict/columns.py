"""Products, columns and the diagonal of a kernel, from wherever it is: an array, a store, an operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.analysis.scaling import scale_exponent
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.operators import NTKOperator

BLOCK = 512
"""Samples whose kernel with themselves is computed at a time, for the diagonal of an operator."""


class UnitKernel:
    """A kernel divided by 2^exponent, whatever it is read from, in float64.

    The exponent is 0 unless products of entries would leave the range of float64: then the largest entry of the
    diagonal, which no other entry of a Gram matrix exceeds, comes to about 1. Dividing by a power of two changes no
    digit.

    Args:
        kernel: an array or memory map (n, n), a store, or an operator of a network in float64.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._matrix = kernel if isinstance(kernel, NTKOperator) else SlicedMatrix(kernel)
        diagonal = kernel_diagonal(kernel)
        self.exponent = scale_exponent(float(np.abs(diagonal).max(initial=0.0)))
        unit = np.ldexp(diagonal, -self.exponent) if self.exponent else diagonal
        self.diagonal_mean = float(np.mean(unit, dtype=np.float64))

    def __matmul__(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Times a block of vectors; these take one half of the exponent, and the product the other."""
        if not self.exponent:
            return np.asarray(self._matrix @ vectors, dtype=np.float64)
        half = self.exponent // 2
        image = np.asarray(self._matrix @ np.ldexp(vectors, -half), dtype=np.float64)
        return np.ldexp(image, half - self.exponent)

    def columns(self, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
        """Its columns `indices`."""
        found = kernel_columns(self._kernel, indices)
        return np.ldexp(found, -self.exponent) if self.exponent else found


def kernel_columns(kernel: Any, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
    """The columns `indices` of a kernel, float64.

    A store computes them anew from its network and samples: reading them would take all of its tiles.
    """
    if isinstance(kernel, NTKOperator):
        found = ntk(kernel.model, kernel.samples, kernel.samples[indices], **_options(kernel))
        return found.astype(np.float64, copy=False)
    if callable(getattr(kernel, "columns", None)):
        return np.asarray(kernel.columns(indices), dtype=np.float64)
    if isinstance(kernel, np.ndarray):
        return np.asarray(kernel[:, indices], dtype=np.float64)
    unit = np.zeros((kernel.shape[0], len(indices)))
    unit[indices, np.arange(len(indices))] = 1
    return SlicedMatrix(kernel) @ unit


def kernel_diagonal(kernel: Any) -> Float[np.ndarray, " n"]:
    """The diagonal, the same from wherever the kernel is read."""
    if hasattr(kernel, "diagonal"):
        return np.asarray(kernel.diagonal())
    return np.concatenate([np.diagonal(block) for block in _diagonal_blocks(kernel)])


def _diagonal_blocks(kernel: Any) -> Iterator[np.ndarray]:
    for start in range(0, kernel.shape[0], BLOCK):
        rows = slice(start, min(start + BLOCK, kernel.shape[0]))
        if isinstance(kernel, NTKOperator):
            yield ntk(kernel.model, kernel.samples[rows], **_options(kernel))
        else:
            yield np.asarray(kernel[rows, rows])


def _options(kernel: NTKOperator) -> dict[str, Any]:
    """What `ntk` is told to compute entries of the same kernel in the same place."""
    return {
        "outputs": kernel.reduction.outputs,
        "params": list(kernel.params),
        "backend": kernel.backend,
        "device": kernel.device,
    }
