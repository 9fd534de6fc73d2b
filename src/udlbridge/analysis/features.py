"""The outputs of the layers of a network, as features of the samples, and their kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.backends.base import Backend
from udlbridge.errors import OptionError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.request import as_network, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import brief, whole
from udlbridge.texts import counted
from udlbridge.words import EngineWord

CHUNK = 4096
"""Samples that go through a network at once, so that a wide layer's outputs do not fill the memory."""


def features(
    model: Model | Any, x: Any, *, layer: int | str = -2, backend: EngineWord | None = None, output: Any = None
) -> Float[np.ndarray, "n d"]:
    """The outputs phi(x) of one layer, its axes flattened into one.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        layer: index of the layer, negative from the end; -2 is what a linear readout sees. Of a `torch.nn.Module` the
            path of a module inside ("blocks.0", or "blocks.0#2" for its second call), of which the first tensor counts;
            or an index among the innermost modules in the order of their calls: functions that forward calls between
            them, as `F.relu`, are not layers.
        backend, output: as for `udlbridge.outputs`.

    Returns:
        (n, d), of the model's dtype.

    Raises:
        OptionError: there is no such layer.
        As `udlbridge.outputs`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)])
        >>> ub.features(model, np.eye(2, dtype="float32")).shape  # what the readout sees
        (2, 3)
    """
    network = as_network(model, output=output)
    batch = checked_samples(network, x)
    if isinstance(network, ForeignNetwork):
        checked_engine(network, backend)
        name = layer if isinstance(layer, str) else list(network.layer_kinds)[_index(layer, len(network.layer_kinds))]
        return _flat(network.layer_outputs(batch, name)[name])
    last = _index(layer, len(model.layers))
    own = {name: value for name, value in model.arrays.items() if int(name.split(".")[0]) <= last}
    head = Model(model.layers[: last + 1], own, dtype=model.dtype)
    engine = backends.get(backend)
    parts = [engine.outputs(head, batch[start : start + CHUNK]) for start in range(0, len(batch), CHUNK)]
    return np.concatenate([_flat(part) for part in parts])


def _index(layer: object, count: int) -> int:
    """The number of a layer, from 0.

    Raises:
        OptionError: there is no such layer.
    """
    index = whole(layer)
    if index is None or not -count <= index < count:
        raise OptionError(
            f"layer={brief(layer)} of a model with {counted(count, 'layer')}",
            allowed=f"{-count} to {count - 1}",
            remedy="layers count from 0; -1 is the last",
        )
    return index % count


def _flat(values: np.ndarray) -> Float[np.ndarray, "n d"]:
    return values.reshape(len(values), -1)


def feature_kernel(
    model: Model | Any, x: Any, *, layer: int | str = -2, backend: EngineWord | None = None, output: Any = None
) -> FactoredKernel:
    """phi phi' for the outputs phi of one layer, as a lazy kernel (n, n) of the model's dtype.

    It takes the memory of phi, (n, d), and reads like an array; `np.asarray` of it is all of it. Arguments and errors
    are those of `features`.

    Raises:
        NumericalError: an entry would not be finite.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)])
        >>> ub.feature_kernel(model, np.eye(2, dtype="float32")).shape
        (2, 2)
    """
    return lazy_kernel(features(model, x, layer=layer, backend=backend, output=output), "K")


def lazy_kernel(phi: Float[np.ndarray, "n d"], name: str) -> FactoredKernel:
    """phi phi', whose entries are known to be finite.

    Raises:
        NumericalError: an entry would not be finite; `name` is what the error calls the kernel.
    """
    found = FactoredKernel(phi)
    with np.errstate(over="ignore", invalid="ignore"):
        diagonal = found.diagonal()  # no entry is larger
    check_finite(diagonal, f"the diagonal of {name}")
    return found


def layer_outputs(network: Model | ForeignNetwork, batch: np.ndarray, backend: str) -> dict[str, np.ndarray]:
    """phi of every layer, (n, d) each, by its number and kind, or its path and class, from one forward pass."""
    if isinstance(network, ForeignNetwork):
        found, kinds = network.layer_outputs(batch), network.layer_kinds
        return {f"{name} {kinds[name]}".strip(): _flat(value) for name, value in found.items()}
    phis = _model_outputs(network, batch, backends.get(backend))
    return {f"{index} {layer.kind}": phi for index, (layer, phi) in enumerate(zip(network.layers, phis, strict=True))}


def _model_outputs(model: Model, batch: np.ndarray, engine: Backend[Any]) -> list[np.ndarray]:
    """phi of every layer, (n, d) each: a layer takes what the one before it gave."""
    layers = [
        Model(
            [layer],
            {f"0.{name}": value for name, value in model.layer_arrays(index).items()},
            dtype=model.dtype,
        )
        for index, layer in enumerate(model.layers)
    ]
    parts: list[list[np.ndarray]] = [[] for _ in layers]
    for start in range(0, len(batch), CHUNK):
        values = batch[start : start + CHUNK]
        for layer, found in zip(layers, parts, strict=True):
            values = np.ascontiguousarray(engine.outputs(layer, values))
            found.append(_flat(values))
    return [np.concatenate(found) for found in parts]
