"""What the nodes of a graph give, in one pass of any engine."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.values import PerSample, Shape

MOST_NUMBERS = 2**27
"""Numbers that are held of the nodes of one graph: of larger networks fewer samples pass through."""

AT_ONCE = 8
"""Arrays that one node puts together: engines that compile compile for a number of them."""


def rows(graph: Graph) -> dict[str, Shape]:
    """The nodes whose values have a row of numbers for each sample, in their order, with the shape of a row."""
    two, three = graph.values(2), graph.values(3)
    found = {}
    for node in graph.nodes:
        shape, more = two[node.name].shape, three[node.name].shape
        if two[node.name].kind == "float" and shape[:1] == (2,) and more[:1] == (3,) and shape[1:] == more[1:]:
            found[node.name] = shape[1:]
    return found


def samples_that_fit(graph: Graph, n: int) -> int:
    """How many of `n` samples may pass through at once, with all values held; at least one."""
    each = sum(prod(shape) for shape in rows(graph).values())
    return max(1, min(n, MOST_NUMBERS // max(each, 1)))


def node_values(graph: Graph, x: np.ndarray, backend: str | None = None) -> dict[str, np.ndarray]:
    """(n, *shape) by the name of every node that has a row of numbers for each sample, in their order.

    One network gives them all side by side, which takes one pass where asking for each would take as many.
    """
    shapes = rows(graph)
    sizes = {name: prod(shape) for name, shape in shapes.items() if prod(shape)}
    if not sizes:
        return {}
    added: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], **attributes: object) -> str:
        added.append(Node(f"_beside.{len(added)}", op, inputs, attributes))
        return added[-1].name

    parts = [add("reshape", (name,), shape=(PerSample(), size)) for name, size in sizes.items()]
    while len(parts) > 1:
        groups = [tuple(parts[start : start + AT_ONCE]) for start in range(0, len(parts), AT_ONCE)]
        parts = [add("concatenate", group, axis=1) if len(group) > 1 else group[0] for group in groups]
    beside: Any = graph.with_nodes((*graph.nodes, *added))
    values = backends.get(backend).outputs(beside, x)
    ends = np.cumsum(list(sizes.values()))[:-1]
    split = dict(zip(sizes, np.split(values.reshape(len(x), -1), ends, axis=1), strict=True))
    return {
        name: np.ascontiguousarray(split[name]).reshape(len(x), *shape) if name in split else np.zeros((len(x), *shape))
        for name, shape in shapes.items()
    }
