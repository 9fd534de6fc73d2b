"""Where parameters enter a module: read off the graph that autograd kept of one evaluation, so that none is missed.

A tensor made of parameters, buffers and numbers alone (a transposed weight, one under a parametrization, a table of
positions) is *constant*. Where one comes to a node that depends on samples, it *enters*. What is copied once for each
sample, as a class token, depends on their number and enters where it is copied: `varying`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

Shape = tuple[int, ...]

REORDERINGS = {
    "TBackward0", "TransposeBackward0", "TransposeBackward1", "PermuteBackward0", "ViewBackward0",
    "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "UnsqueezeBackward1", "SqueezeBackward0",
    "SqueezeBackward1", "SqueezeBackward2", "CloneBackward0", "AliasBackward0", "SliceBackward0", "SelectBackward0",
    "SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0", "ToCopyBackward0",
}  # fmt: skip
"""Nodes that reorder entries, or take some of them: gradients before and after have the same products."""

COPIES = {"ExpandBackward0", "RepeatBackward0"}
"""Nodes that repeat entries."""

MOVED = REORDERINGS | COPIES
"""Nodes that make no new numbers: of a constant they make a constant."""

VIEWS = REORDERINGS - {"CloneBackward0", "ToCopyBackward0"} | {"ExpandBackward0"}
"""Nodes that make no numbers of their own: what they give is in the memory of what they got."""

PARTS = {"SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0"}
"""Nodes of several results, which have no entry in common."""


@dataclass(frozen=True)
class Entry:
    """A constant comes to input `index` of `node`: it is result `number` of `source`, made of the parameters `names`.

    `position`: of the node, in the order of the graph. `path`: names of the nodes from the constant to its one
    parameter, where they only reorder its entries; else None.
    `part`: which entries of the parameter these are, where it was split.
    """

    node: Node
    position: int
    index: int
    source: Node
    number: int
    names: tuple[str, ...]
    path: tuple[str, ...] | None
    part: tuple[int, int] | None

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it enters, and what of which parameters: the same for every batch."""
        return self.position, self.index, self.number, self.names, self.path

    @property
    def edge(self) -> GradientEdge:
        """The constant, as autograd takes it."""
        return GradientEdge(self.source, self.number)

    @property
    def result(self) -> GradientEdge:
        """What the node makes of it."""
        return GradientEdge(self.node, 0)

    @property
    def entered_shape(self) -> Shape:
        """Of the constant."""
        return shape_of(self.source, self.number)

    @property
    def result_shape(self) -> Shape:
        """Of what the node makes."""
        return shape_of(self.node, 0)


@dataclass(frozen=True)
class Trace:
    """The graph of one evaluation: where constants enter, and its nodes in order, with their names."""

    entries: list[Entry]
    names: list[str]
    nodes: list[Node]
    constant: list[bool]

    @cached_property
    def shapes(self) -> list[list[Shape]]:
        """Of what the nodes make."""
        return [[tuple(one.shape) for one in node._input_metadata] for node in self.nodes]

    def numbers(self) -> int:
        """How many numbers the nodes made of samples, where they did not only see others' as they are."""
        every = zip(self.names, self.shapes, self.constant, strict=True)
        computed = [shapes for name, shapes, constant in every if not constant and name not in VIEWS]
        return sum(torch.Size(shape).numel() for shapes in computed for shape in shapes)


def shape_of(node: Node, number: int) -> Shape:
    """The shape of a node's result."""
    return tuple(node._input_metadata[number].shape)


def traced(y: Tensor, params: Mapping[str, Tensor], constant: Set[Node], varying: Set[int]) -> Trace:
    """Read the graph that y was computed by.

    `params`: the leaves, by name. `constant`: nodes known to be made of no sample. `varying`: positions of those among
    them, in the order of nodes, that depend on the number of samples.
    """
    leaves = {get_gradient_edge(value).node: name for name, value in params.items()}
    order = {name: position for position, name in enumerate(params)}
    # The parameters that a constant is made of; None for what is not constant.
    parameters_of: dict[Node, tuple[str, ...] | None] = {}
    trace = Trace([], [], [], [])
    # What a constant was made of is constant too.
    inside = {node for node, _ in _children_first(constant)}
    for position, (node, edges) in enumerate(_children_first([] if y.grad_fn is None else [y.grad_fn])):
        below = [(index, child, number) for index, (child, number) in enumerate(edges) if child is not None]
        known = [parameters_of[child] for _, child, _ in below]
        name = node.name()
        trace.names.append(name)
        trace.nodes.append(node)
        if not below:
            parameters_of[node] = (leaves[node],) if node in leaves else ()
        elif None not in known and position not in varying and (node in inside or name in MOVED):
            names = {name for found in known for name in found or ()}
            parameters_of[node] = tuple(sorted(names, key=order.__getitem__))
        else:
            parameters_of[node] = None
            for index, child, number in below:
                entered = parameters_of[child]
                if entered:
                    path, part = _path(child, number)
                    trace.entries.append(Entry(node, position, index, child, number, entered, path, part))
        trace.constant.append(parameters_of[node] is not None)
    return trace


def _path(node: Any, number: int) -> tuple[tuple[str, ...] | None, tuple[int, int] | None]:
    names: list[str] = []
    part: tuple[int, int] | None = None
    while node.next_functions:
        inputs = [edge for edge in node.next_functions if edge[0] is not None]
        if len(inputs) != 1 or not (node.name() in REORDERINGS or _takes_rows(node)):
            return None, None
        part = (id(node), number) if node.name() in PARTS and not inputs[0][0].next_functions else None
        names.append(node.name())
        node, number = inputs[0]
    return tuple(names), part


def _takes_rows(node: Any) -> bool:
    """Whether it looks up rows of a table, none of them twice."""
    if node.name() != "EmbeddingBackward0" or node._saved_scale_grad_by_freq:
        return False
    tokens = node._saved_indices
    # torch shows "no padding", which is -1, without its sign.
    padding = min(node._saved_padding_idx, node._saved_weight_sym_argsize_0)
    return bool(len(tokens.unique()) == tokens.numel() and not (tokens == padding).any())


Edges = tuple[tuple[Node | None, int], ...]
"""What a node was made of: nodes, and which of their results."""


def _children_first(roots: Iterable[Node]) -> Iterator[tuple[Node, Edges]]:
    """All nodes that the roots depend on, each after those it was made of; without recursion, since graphs are deep.

    Torch makes the edges of a node anew whenever it is asked for them: once is enough.
    """
    seen: set[Node] = set()
    stack: list[tuple[Node, Edges | None]] = [(root, None) for root in roots]
    while stack:
        node, edges = stack.pop()
        if edges is not None:
            yield node, edges
        elif node not in seen:
            seen.add(node)
            edges = node.next_functions
            stack.append((node, edges))
            stack += [(child, None) for child, _ in reversed(edges) if child is not None]
