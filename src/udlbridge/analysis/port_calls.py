"""A graph beside a module: which node of the graph gives what a call of a submodule gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from udlbridge.analysis.port_hints import Step
from udlbridge.analysis.port_steps import graph_steps, module_steps
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.words import EngineName


def of_one_path(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName]
) -> tuple[list[list[Step]], list[str]]:
    """Of a graph and a module, what both give after the same call of the same submodule, by the path of that.

    Besides, the paths of submodules whose calls the graph does not tell apart.
    """
    index = next(number for number, network in enumerate(networks) if isinstance(network, Graph))
    other = networks[1 - index]
    if not isinstance(other, ForeignNetwork) or other.engine == "julia":
        return [[], []], []
    steps = {step.name: step for step in module_steps(other, batches[1 - index])}
    graph: Graph = networks[index]
    ends, left_out = _ends_of_calls(graph, list(steps), other.layer_aliases)
    held = {**graph.params, **graph.buffers}
    sides: list[list[Step]] = [[], []]
    for step in graph_steps(graph, batches[index], names[index], set(ends)):
        call = steps[ends[step.name]]
        path = call.name.partition("#")[0]
        arrays = {name: held[f"{path}.{name}"] for name in call.arrays if f"{path}.{name}" in held}
        sides[0].append(replace(call, value=step.value, arrays=arrays))  # known by the same name, and words
        sides[1].append(call)
    return sides if index == 0 else sides[::-1], left_out


def _ends_of_calls(graph: Graph, calls: Sequence[str], aliases: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The call of a submodule whose result a node gives, by the node's name, and the paths of which that is not known.

    A graph has no nodes for calls whose result nobody used.
    """
    runs = _runs(graph, aliases)
    called: dict[str, list[str]] = {}
    for call in calls:
        called.setdefault(call.partition("#")[0], []).append(call)
    found: dict[str, str] = {}
    left_out = []
    for path, every in called.items():
        ends = _ends(runs.get(path, []), len(every))
        found |= zip(ends, every, strict=bool(ends))
        if not ends and path in runs:
            left_out.append(path)
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), left_out


def _runs(graph: Graph, aliases: Mapping[str, str]) -> dict[str, list[list[Node]]]:
    """The nodes of every submodule, by its path, in stretches without a node of another."""
    runs: dict[str, list[list[Node]]] = {}
    last = None
    for node in graph.nodes:
        path = aliases.get(node.source, node.source)
        if not path and not node.inputs:
            continue  # a constant, which belongs to whatever uses it
        own = runs.setdefault(path, [])
        if path != last:
            own.append([])
        own[-1].append(node)
        last = path
    return runs


def _ends(runs: Sequence[Sequence[Node]], count: int) -> list[str]:
    """The last node of every call, of as many as are known to be; none where that cannot be said.

    Other nodes lie between two calls, or one comes right after the other and does the same.
    """
    if len(runs) == count:
        return [run[-1].name for run in runs]
    nodes = [node for run in runs for node in run]
    size, left = divmod(len(nodes), count)
    blocks = [nodes[start : start + size] for start in range(0, len(nodes), size)] if size and not left else []
    alike = len({tuple(node.op for node in block) for block in blocks}) == 1
    return [block[-1].name for block in blocks] if alike else []
