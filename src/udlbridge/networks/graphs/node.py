"""`Node`: one operation on named values, checked against the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from udlbridge.errors import GraphError
from udlbridge.networks.graphs.attributes import AttributeFault
from udlbridge.networks.graphs.operations import OPERATIONS
from udlbridge.networks.graphs.shapes import ShapeFault
from udlbridge.networks.graphs.values import Shape, Value
from udlbridge.options import brief, checked_list
from udlbridge.texts import kind_of

MOST_NODES = 1_000_000
"""More nodes than anybody's network has."""

MOST_NUMBERS = 2**34
"""Bound of the numbers of one value, of two samples: a file cannot ask for more memory than that by a few bytes."""


@dataclass(frozen=True)
class Node:
    """An operation, and the value that it gives.

    `name`: of the value. `op`: the operation, a key of `OPERATIONS`. `inputs`: names of values, in the operation's
    order. `attributes`: its settings by name. `source`: where it comes from, as the path of a module.

    Examples:
        >>> print(ub.Node("y", "linear", ("x", "w"), source="readout"))
        node 'y' (linear in readout)
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op}{f' in {self.source}' if self.source else ''})"


def checked_nodes(nodes: Iterable[Node], given: Collection[str]) -> tuple[Node, ...]:
    """The nodes with their attributes checked and frozen; `given` are the names that are values already.

    Raises:
        GraphError: what cannot be, by node.
    """
    listed = checked_list("nodes", nodes, "nodes, in a list", 'as nodes=[ub.Node("y", "linear", ("x", "w"))]')
    for node in listed:
        _check_fields(node)
    if len(listed) > MOST_NODES:
        raise GraphError(f"{len(listed):,} nodes", allowed=f"at most {MOST_NODES:,}", remedy="simplify the network")
    names = {node.name for node in listed}
    known = set(given)
    result = []
    for node in listed:
        if node.name in known:
            raise _error(node, f"the name {node.name!r} is taken", "a name of its own for every value")
        result.append(_checked(node))
        for name in node.inputs:
            if name not in known:
                later = name in names
                reason = "comes later: the graph has a cycle, or is not in order" if later else "is not there"
                raise _error(node, f"its input {name!r} {reason}", "values that come before it")
        known.add(node.name)
    return tuple(result)


def _check_fields(node: object) -> None:
    """Refuse what is no node, or one whose fields are not what they are called."""
    if not isinstance(node, Node):
        raise GraphError(f"{kind_of(node)} among the nodes", allowed="ub.Node", remedy="correct nodes")
    for what, value, wanted, words in (
        ("name", node.name, str, "text"), ("op", node.op, str, "text"),
        ("inputs", node.inputs, tuple | list, "names, in a tuple"),
        ("attributes", node.attributes, Mapping, "a dict, by name"),
    ):  # fmt: skip
        if not isinstance(value, wanted):
            raise GraphError(f"a node with {what}={brief(value)}", allowed=words, remedy="correct the graph")
    for name in node.inputs:
        if not isinstance(name, str):
            raise _error(node, f"{brief(name)} is among its inputs", "names of values")


def values_of(nodes: Sequence[Node], start: Mapping[str, Value], n: int) -> dict[str, Value]:
    """Shape and kind of every value, by name, for `n` samples; `start` has those that no node gives.

    Raises:
        GraphError: inputs that do not fit, by node.
    """
    values = dict(start)
    for node in nodes:
        try:
            found = OPERATIONS[node.op].rule(node.attributes, [values[name] for name in node.inputs], n)
        except ShapeFault as fault:
            raise _error(node, str(fault), OPERATIONS[node.op].meaning) from None
        if prod(found.shape) > MOST_NUMBERS:
            raise _error(node, f"a value of shape {found.shape}", f"at most {MOST_NUMBERS:,} numbers")
        values[node.name] = found
    return values


def _checked(node: Node) -> Node:
    operation = OPERATIONS.get(node.op)
    if operation is None:
        raise _error(node, f"there is no operation {node.op!r}", ", ".join(OPERATIONS))
    least, most = operation.inputs
    if not least <= len(node.inputs) <= most:
        raise _error(node, f"it has {len(node.inputs)} inputs", f"{least} to {most}: {operation.meaning}")
    if set(node.attributes) != set(operation.attributes):
        raise _error(
            node,
            f"it has the attributes {', '.join(map(str, node.attributes)) or 'none'}",
            ", ".join(f"{name}: {kind.words}" for name, kind in operation.attributes.items()) or "none",
        )
    attributes = {}
    for name, kind in operation.attributes.items():
        try:
            attributes[name] = kind.checked(node.attributes[name])
        except AttributeFault:
            raise _error(node, f"{name}={str(node.attributes[name])[:80]}", kind.words) from None
    return Node(node.name, node.op, tuple(node.inputs), attributes, node.source)


def _error(node: Node, reason: str, allowed: str) -> GraphError:
    return GraphError(f"{node}: {reason}", allowed=allowed, remedy="correct the graph")


def checked_output(output: str, values_for: Callable[[int], Mapping[str, Value]]) -> Shape:
    """The shape of f(x) of one sample, from shape and kind of all values for two numbers of samples.

    Raises:
        GraphError: there is no such value, or it does not have a row of numbers for each sample.
    """
    shapes = []
    for n in (2, 3):
        values = values_for(n)
        if not isinstance(output, str) or output not in values:
            raise GraphError(
                f"the output {output!r} is not the name of a value",
                allowed="the name of a node",
                remedy="correct output",
            )
        value = values[output]
        if value.kind != "float" or not value.shape or value.shape[0] != n:
            raise GraphError(
                f"the output {output!r} has shape {value.shape} for {n} samples ({value.kind})",
                allowed="numbers, with the samples along the first axis",
                remedy="correct output",
            )
        shapes.append(value.shape[1:])
    if shapes[0] != shapes[1]:
        raise GraphError(
            f"the output has shape {shapes[0]} for samples of two, and {shapes[1]} for samples of three",
            allowed="as many outputs for each sample, whatever their number",
            remedy="keep samples apart",
        )
    return shapes[0]
