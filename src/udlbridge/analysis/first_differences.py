"""Where two engines part on one network: the first layer, or node, after which they differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from udlbridge import backends
from udlbridge.analysis.node_values import node_values, samples_that_fit
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.layers import Layer, Residual
from udlbridge.networks.model import Model
from udlbridge.tolerances import budget, relative_difference
from udlbridge.words import DtypeWord


def first_difference(model: Model | Graph, x: np.ndarray, first: str, second: str) -> str:
    """The first layer, or node, of `model` after which two engines differ by more than the budget, in words.

    Each engine runs the first layer, the first two, and so on, for itself; where that is a residual block, also the
    layers inside it.
    """
    if isinstance(model, Graph):
        return _first_node_apart(model, x, (first, second)) or "no single node: they agree when run again"
    layers = [(layer, model.layer_arrays(index)) for index, layer in enumerate(model.layers)]

    def gap(chain: Chain) -> float:
        head = _network(chain, model.dtype)
        values = [backends.get(name).outputs(head, x) for name in (first, second)]
        return relative_difference(*values)

    return _first_apart([], layers, gap, budget(model.dtype)) or "no single layer: they agree when run again"


def _first_node_apart(graph: Graph, x: np.ndarray, engines: tuple[str, str]) -> str | None:
    """The first node after which two engines differ, of those whose values have a row for each sample."""
    few = x[: samples_that_fit(graph, len(x))]
    one, other = (node_values(graph, few, name) for name in engines)
    for node in graph.nodes:
        if node.name in one and (found := relative_difference(one[node.name], other[node.name])) > budget(graph.dtype):
            return f"{node}, by {found:.2e} of its largest output"
    return None


Chain = list[tuple[Layer, dict[str, np.ndarray]]]
"""Layers with their own arrays, one after the other."""


def _first_apart(before: Chain, layers: Chain, gap: Callable[[Chain], float], limit: float) -> str | None:
    """The first of `layers`, which come after `before`, that leaves a gap above the limit; None if there is none."""
    for index, (layer, arrays) in enumerate(layers):
        found = gap([*before, *layers[: index + 1]])
        if found <= limit:
            continue
        words = f"layer {index} ({layer.kind})"
        if isinstance(layer, Residual):
            for name, part in (("", layer.layers), ("shortcut.", layer.shortcut)):
                inner = [(one, _inside(arrays, f"{name}{number}.")) for number, one in enumerate(part)]
                inside = _first_apart([*before, *layers[:index]], inner, gap, limit)
                if inside is not None:
                    return f"{words} > {'shortcut ' if name else ''}{inside}"
        return f"{words}, by {found:.2e} of its largest output"
    return None


def _inside(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _network(chain: Chain, dtype: DtypeWord) -> Model:
    arrays = {f"{index}.{name}": value for index, (_, own) in enumerate(chain) for name, value in own.items()}
    return Model([layer for layer, _ in chain], arrays, dtype=dtype)
