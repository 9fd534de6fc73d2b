"""The outputs of the layers of a network, as features of the samples, and their kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.backends.base import Backend
from udlbridge.errors import OptionError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.networks.inputs import checked_batch
from udlbridge.networks.model import Model
from udlbridge.options import whole

CHUNK = 4096
"""Samples that go through a network at once, so that a wide layer's outputs do not fill the memory."""


def features(model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None) -> Float[np.ndarray, "n d"]:
    """The outputs phi(x) of one layer, its axes flattened into one.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        layer: index of the layer, negative from the end; -2 is what a linear readout sees.
        backend: as for `udlbridge.outputs`.

    Returns:
        (n, d), of the model's dtype.

    Raises:
        OptionError: there is no such layer.
        As `udlbridge.outputs`.
    """
    batch = checked_batch(model, x)
    count = len(model.layers)
    index = whole(layer)
    if index is None or not -count <= index < count:
        raise OptionError(
            f"layer={layer!r} of a model with {count} layers",
            allowed=f"{-count} to {count - 1}",
            remedy="layers count from 0; -1 is the last",
        )
    last = index % count
    own = {name: value for name, value in model.arrays.items() if int(name.split(".")[0]) <= last}
    head = Model(model.layers[: last + 1], own, dtype=model.dtype.name)
    engine = backends.get(backend)
    parts = [engine.outputs(head, batch[start : start + CHUNK]) for start in range(0, len(batch), CHUNK)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


def feature_kernel(model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None) -> FactoredKernel:
    """phi phi' for the outputs phi of one layer, as a lazy kernel (n, n) of the model's dtype.

    It takes the memory of phi, (n, d), and reads like an array; `np.asarray` of it is all of it. Arguments and errors
    are those of `features`.
    """
    return FactoredKernel(features(model, x, layer=layer, backend=backend))


def layer_outputs(model: Model, batch: np.ndarray, engine: Backend[Any]) -> list[np.ndarray]:
    """phi of every layer, (n, d) each, from one forward pass: a layer takes what the one before it gave."""
    layers = [
        Model(
            [layer],
            {f"0.{name}": value for name, value in model.layer_arrays(index).items()},
            dtype=model.dtype.name,
        )
        for index, layer in enumerate(model.layers)
    ]
    parts: list[list[np.ndarray]] = [[] for _ in layers]
    for start in range(0, len(batch), CHUNK):
        values = batch[start : start + CHUNK]
        for layer, found in zip(layers, parts, strict=True):
            values = np.ascontiguousarray(engine.outputs(layer, values))
            found.append(values.reshape(len(values), -1))
    return [np.concatenate(found) for found in parts]
