"""What the arrays of a model are called in the state dict of the module that `udlbridge.to_torch` makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from udlbridge.networks.layers import Activation, Layer, Residual


def activates_after(layer: Layer) -> bool:
    """Whether the layer's activation becomes a module of its own, after that of the layer."""
    return not isinstance(layer, Activation) and getattr(layer, "activation", "identity") != "identity"


def state_names(layers: Sequence[Layer]) -> dict[str, str]:
    """The name in the state dict for every name of an array of the model: {"1.weight": "2.weight", ...}."""
    names: dict[str, str] = {}
    position = 0
    for index, layer in enumerate(layers):
        names |= {f"{index}.{own}": f"{position}.{other}" for own, other in _inside(layer).items()}
        position += 2 if activates_after(layer) else 1
    return names


def _inside(layer: Layer) -> dict[str, str]:
    if isinstance(layer, Residual):
        inner = {own: f"layers.{other}" for own, other in state_names(layer.layers).items()}
        beside = {f"shortcut.{own}": f"shortcut.{other}" for own, other in state_names(layer.shortcut).items()}
        return inner | beside
    # torch allows no dots in the names of parameters.
    return {name: name.replace(".", "_") for name in (*layer.param_shapes(), *layer.buffer_shapes())}


def by_own_names(layers: Sequence[Layer], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a file by the model's own names, where they have those already or those of the state dict.

    Left out: BatchNorm's counters of training steps, which play no part in the outputs.
    """
    relevant = {name: value for name, value in arrays.items() if not name.endswith(".num_batches_tracked")}
    own = state_names(layers)
    names = {other: name for name, other in own.items()}
    if all(name in own for name in relevant) or not all(name in names for name in relevant):
        return relevant
    return {names[name]: value for name, value in relevant.items()}
