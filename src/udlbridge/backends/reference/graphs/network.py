"""A graph forward, backward and along a tangent: node after node, each by its rule.

Source: Griewank and Walther, Evaluating Derivatives (2008), chapter 3: reverse mode adds up what comes back to a value
from all of its uses; forward mode carries a tangent beside every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from udlbridge.backends.reference.graphs import (
    activations,
    affine,
    arithmetic,
    attention,
    convolution,
    movement,
    norms,
    pools,
    reductions,
)
from udlbridge.backends.reference.graphs.rule import Rule
from udlbridge.networks.graphs.graph import Graph

RULES: dict[str, Rule] = {
    **affine.RULES,
    **convolution.RULES,
    **attention.RULES,
    **arithmetic.RULES,
    **activations.RULES,
    **reductions.RULES,
    **norms.RULES,
    **pools.RULES,
    **movement.RULES,
}
"""The rule of every operation."""

Values = dict[str, np.ndarray]


def evaluate(graph: Graph, x: np.ndarray) -> Values:
    """Every value of the graph, by name."""
    values: Values = {**graph.arrays, **graph.entering(x)}
    for node in graph.nodes:
        found = RULES[node.op].forward(node.attributes, len(x), [values[name] for name in node.inputs])
        values[node.name] = found if found.dtype.kind != "f" else found.astype(graph.dtype, copy=False)
    return values


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """f(x), (n, O)."""
    return np.array(evaluate(graph, x)[graph.output].reshape(len(x), -1))


def pull_back(graph: Graph, values: Values, cotangents: np.ndarray, wanted: Iterable[str]) -> Values:
    """J' c for c (n, O), by the values whose names are wanted; zeros where f does not depend on one."""
    names = list(wanted)
    needed = depending(graph, names)
    back: Values = {graph.output: cotangents.reshape(values[graph.output].shape)}
    for node in reversed(graph.nodes):
        if node.name not in needed or node.name not in back:
            continue
        # A value in the middle that is wanted itself keeps what came back to it.
        dy = back[node.name] if node.name in names else back.pop(node.name)
        xs = [values[name] for name in node.inputs]
        found = RULES[node.op].backward(node.attributes, xs, values[node.name], dy)
        for name, d in zip(node.inputs, found, strict=True):
            if d is not None and name in needed:
                back[name] = back[name] + d if name in back else d
    return {name: np.array(back[name]) if name in back else np.zeros_like(values[name]) for name in names}


def push_forward(graph: Graph, values: Values, tangents: Mapping[str, np.ndarray]) -> np.ndarray:
    """J w, (n, O), for tangents of parameters or of the samples, by name."""
    moved: Values = dict(tangents)
    for node in graph.nodes:
        if not any(name in moved for name in node.inputs):
            continue
        xs = [values[name] for name in node.inputs]
        dxs = [moved.get(name, _still(x)) for name, x in zip(node.inputs, xs, strict=True)]
        if values[node.name].dtype.kind == "f":
            moved[node.name] = RULES[node.op].tangent(node.attributes, xs, values[node.name], dxs)
    y = values[graph.output]
    return np.array(moved.get(graph.output, np.zeros_like(y)).reshape(len(y), -1))


def depending(graph: Graph, names: Iterable[str]) -> set[str]:
    """All values that depend on some, and these: no others need a derivative."""
    found = set(names)
    for node in graph.nodes:
        if not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found


def _still(x: np.ndarray) -> np.ndarray | None:
    """The tangent of a value that does not move; whole numbers and truth values have none."""
    return np.zeros_like(x) if x.dtype.kind == "f" else None
