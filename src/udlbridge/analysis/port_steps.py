"""The steps of a network: what it gives after each layer, module or node."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import attrs
import numpy as np

from udlbridge import backends
from udlbridge.analysis.node_values import node_values
from udlbridge.analysis.port_graphs import graph_words
from udlbridge.analysis.port_hints import Step
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.layers import Activation, Conv1d, Conv2d, Dense, Dropout, Layer
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model
from udlbridge.words import EngineName, EngineWord


def own_steps(network: Any, x: np.ndarray, backend: EngineName) -> list[Step]:
    """The steps of a network as it is."""
    if isinstance(network, Graph):
        return graph_steps(network, x, backend)
    return module_steps(network, x) if isinstance(network, ForeignNetwork) else model_steps(network, x, backend)


def module_steps(network: ForeignNetwork, x: np.ndarray) -> list[Step]:
    """What the innermost modules give, or the layers of a chain in Julia, with the arrays that they have."""
    held = {**network.params, **network.buffers}
    owned = network.names_by_layer(held)
    kinds, settings = network.layer_kinds, network.layer_settings
    found = []
    for name, value in network.layer_outputs(x).items():
        path = name.partition("#")[0]
        arrays = {own.removeprefix(f"{path}."): held[own] for own in owned.get(path, ())}
        found.append(
            Step(name, f"{name} ({kinds[name]})", value, None, arrays, settings.get(path, ""), kinds[name], path)
        )
    return found


def graph_steps(graph: Graph, x: np.ndarray, backend: EngineWord, chosen: Collection[str] | None = None) -> list[Step]:
    """What the nodes give that have a row of numbers for each sample, with the parameters that go into each.

    `chosen`: the names of those that count; None for all.
    """
    found = []
    values = node_values(graph, x, backend)
    for node in graph.nodes:
        if node.name not in values or (chosen is not None and node.name not in chosen):
            continue
        arrays = {f"input {index}": graph.params[own] for index, own in enumerate(node.inputs) if own in graph.params}
        found.append(
            Step(node.name, graph_words(node), values[node.name], None, arrays, kind=node.op, path=node.source)
        )
    return found


def model_steps(model: Model, x: np.ndarray, backend: EngineWord) -> list[Step]:
    """What the layers give one after the other, each activation by itself."""
    found, h = [], x
    for name, step in _layers_alone(model):
        h = backends.get(backend).outputs(step, h)
        arrays = {name.removeprefix("0."): value for name, value in step.arrays.items()}
        found.append(Step(name, _describe(step.layers[0]), h, step.layers[0], arrays, kind=step.layers[0].kind))
    return found


def _layers_alone(model: Model) -> list[tuple[str, Model]]:
    """A network of one layer for every layer and for every activation, by name, without those that change nothing."""
    found = []
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Dropout) or (isinstance(layer, Activation) and layer.activation == "identity"):
            continue
        arrays = {f"0.{name}": value for name, value in model.layer_arrays(index).items()}
        activation = "identity"
        if isinstance(layer, Dense | Conv1d | Conv2d):
            activation, layer = layer.activation, attrs.evolve(layer, activation="identity")
        found.append((str(index), Model([layer], arrays, dtype=model.dtype)))
        if activation != "identity":
            step = Model([Activation(cast(ActivationWord, activation))], {}, dtype=model.dtype)
            found.append((f"{index}.activation", step))
    return found


def _describe(layer: Layer) -> str:
    """The layer's kind and its settings, without those that have their default and those that hold layers."""
    shown = []
    for field in attrs.fields(type(layer)):
        value = getattr(layer, field.name)
        if isinstance(value, str | int | float) or (
            isinstance(value, tuple) and all(isinstance(v, int) for v in value)
        ):
            if field.default is attrs.NOTHING:
                shown.append(str(value))
            elif value != field.default and value not in ((field.default,) * 2, (field.default,)):
                shown.append(f"{field.name}={value}")
    return f"{layer.kind}({', '.join(shown)})"
