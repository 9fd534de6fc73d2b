"""One of two networks as a graph with what its nodes give, and parts of it run again with something changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.analysis.node_values import node_values
from udlbridge.errors import UDLBridgeError
from udlbridge.networks.graphs.entries import value_name
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.values import Value
from udlbridge.words import EngineName

SAMPLES = 4
"""How many samples a part is run again on: enough to tell what is equal."""


@dataclass(frozen=True)
class Trial:
    """A change of one node that may be the reason why two networks part.

    `kind`: the sort of change, the same at every node. `words`: what it is, with the sides' names filled in. `nodes`:
    what stands in the place of nodes, by name; the last of each has the name. `arrays`: further buffers.
    `beyond`: it gives what is there anyway, so that it shows only on what comes after the node. `instead`: the value
    that stands in the node's place where the change is to leave it out.
    """

    kind: str
    words: str
    nodes: Mapping[str, Sequence[Node]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    beyond: bool = False
    instead: str | None = None


@dataclass(frozen=True)
class Side:
    """A network as a graph, its samples, and what those nodes give that have a row of numbers for each sample."""

    graph: Graph
    x: np.ndarray
    engine: EngineName
    values: Mapping[str, np.ndarray]
    against: EngineName

    @classmethod
    def of(cls, graph: Graph, x: np.ndarray, engine: EngineName, against: EngineName) -> Side:
        """With everything evaluated, in one pass; `against` is the engine of the other network."""
        return cls(graph, x, engine, node_values(graph, x, engine), against)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes."""
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def entered(self) -> dict[str, Value]:
        """Shape of a sample and kind of every input, by the name that it has among the values."""
        return {value_name(name): value for name, value in self.graph.inputs.items()}

    @cached_property
    def moving(self) -> set[str]:
        """The nodes that depend on the samples."""
        return self.after(self.entered)

    def after(self, names: Collection[str]) -> set[str]:
        """The nodes that any of the values by these names goes into, at once or by others."""
        found = set(names)
        for node in self.graph.nodes:
            if not found.isdisjoint(node.inputs):
                found.add(node.name)
        return found - set(names)

    @cached_property
    def consumers(self) -> dict[str, list[str]]:
        """By the name of a value the nodes that it goes into."""
        found: dict[str, list[str]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node.name)
        return found

    def shown_after(self, name: str) -> list[str]:
        """The next nodes after one that have a row of numbers for each sample."""
        found: dict[str, None] = {}
        left = list(self.consumers.get(name, ()))
        while left:
            here = left.pop(0)
            if here in self.values:
                found[here] = None
            else:
                left += self.consumers.get(here, ())
        return list(found)

    def feeding(self, name: str) -> list[str]:
        """The node, and those before it whose values are not known here, by which parameters come to it."""
        found, left = [name], list(self.by_name[name].inputs)
        while left:
            here = left.pop()
            if here in self.by_name and here not in self.values and here not in found:
                found.append(here)
                left += self.by_name[here].inputs
        return found

    def arrays_of(self, name: str) -> dict[str, np.ndarray]:
        """The parameters and buffers that come to a node, by name, in order; constants without a name are left out."""
        held = {**self.graph.params, **self.graph.buffers}
        inputs = [own for part in self.feeding(name) for own in self.by_name[part].inputs]
        return {own: held[own] for own in dict.fromkeys(inputs) if own in held and not own.startswith("_")}

    def changed(self, trial: Trial) -> Side:
        """The whole of it with a change."""
        nodes = [new for node in self.graph.nodes for new in trial.nodes.get(node.name, (node,))]
        return Side.of(self.graph.with_nodes(nodes, trial.arrays), self.x, self.engine, self.against)

    def again(self, trial: Trial, goal: str) -> np.ndarray | None:
        """What the node `goal` gives with a change, of the first samples; None where it cannot be."""
        moved = set(trial.nodes) | self.after(trial.nodes)
        wanted, left = {goal}, [goal]
        known: set[str] = set()
        while left:
            here = left.pop()
            for node in trial.nodes.get(here) or (self.by_name[here],):
                for name in node.inputs:
                    if name in self.entered or (name in self.values and name not in moved):
                        known.add(name)
                    elif name in self.by_name and name not in wanted:
                        wanted.add(name)
                        left.append(name)
        nodes = [
            replace(new, inputs=tuple(value_name(name) if name in known else name for name in new.inputs))
            for node in self.graph.nodes
            if node.name in wanted
            for new in trial.nodes.get(node.name, (node,))
        ]
        used = {name for node in nodes for name in node.inputs}
        arrays = {**self.graph.params, **self.graph.buffers, **trial.arrays}
        few = min(SAMPLES, len(self.x))
        samples = self.graph.entering(self.x)
        given = {name: (samples[name] if name in self.entered else self.values[name])[:few] for name in known}
        kinds = {name: self.entered[name].kind if name in self.entered else "float" for name in known}
        try:
            part: Any = Graph(
                nodes,
                goal,
                params={},
                buffers={name: value for name, value in arrays.items() if name in used},
                dtype=self.graph.dtype.name,  # type: ignore[arg-type]
                inputs={name: (value.shape[1:], kinds[name]) for name, value in given.items()},
            )
            with np.errstate(all="ignore"):  # a change may well have no meaning
                found = backends.get("reference").outputs(part, part.checked_batch(given))
        except UDLBridgeError:  # shapes that do not fit together with the change
            return None
        shape: tuple[int, ...] = part.full_output_shape
        return found.reshape(few, *shape)
