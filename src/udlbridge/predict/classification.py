"""Classification by kernel ridge regression, as large as a store or an operator allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.arrays import as_array
from udlbridge.backends.reduction import Outputs
from udlbridge.errors import InputError
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.request import as_network
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import checked_count
from udlbridge.words import EngineWord

ROWS = 1024
"""Test samples whose kernel against all training samples is computed at a time."""


def centred_targets(labels: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, "n classes"]:
    """One-hot targets minus 1 / classes.

    Raises:
        InputError: labels that are not whole numbers from 0 to classes - 1.
    """
    given = as_array(labels, "labels")
    if given.ndim != 1 or given.dtype.kind not in "iu" or given.size == 0 or given.min() < 0 or given.max() >= classes:
        raise InputError(
            f"labels of shape {given.shape} and dtype {given.dtype}",
            allowed=f"whole numbers from 0 to {classes - 1}, (n,)",
            remedy="number the classes: np.unique(labels, return_inverse=True)[1]",
        )
    return np.eye(checked_count("classes", classes, 2))[given] - 1 / classes


def predicted_outputs(
    model: Model | Any,
    x_test: Any,
    x_train: Any,
    coefficients: Float[np.ndarray, "n outputs"],
    *,
    outputs: Outputs,
    backend: EngineWord | None = None,
    memory: int | str = "2GB",
    device: Any = None,
) -> Float[np.ndarray, "m outputs"]:
    """K(x_test, x_train) c, some test samples at a time; the kernel of all is never held.

    Args:
        model, x_test, x_train, outputs, backend, memory, device: as for `udlbridge.ntk`.
        coefficients: what `solve` found for the training samples.

    Raises:
        As `udlbridge.ntk`.
    """

    network = as_network(model)
    options: dict[str, Any] = {"outputs": outputs, "backend": backend, "memory": memory, "device": device}
    samples = checked_samples(network, x_test, "x_test")

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(samples), ROWS):
            rows: Any = samples[start : start + ROWS]
            yield ntk(network, rows, x_train, **options) @ coefficients

    return np.concatenate(list(blocks()))
