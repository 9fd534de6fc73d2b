"""Which tokens of a sample a graph looks up, and in tables of how many rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Int

from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.operations import OPERATIONS
from udlbridge.networks.graphs.values import Shape, Value

NOWHERE = -1
"""Stands where a value does not come from the sample."""


def token_bounds(
    nodes: Sequence[Node],
    buffers: Mapping[str, np.ndarray],
    values: Callable[[int], Mapping[str, Value]],
    inputs: Mapping[str, Shape],
) -> dict[str, Int[np.ndarray, "*sample"]]:
    """How many rows the smallest table has that the number at each position of a sample is looked up in; 0: in none.

    By the name of each input among the values.

    The numbers of the samples are followed through the operations that only move them, by doing the same with their
    positions.

    Args:
        nodes: in order of evaluation.
        buffers: the arrays that are not parameters.
        values: shape and kind of every value, for so many samples.
        inputs: the shapes of one sample of those that are whole numbers.
    """
    two, three = values(2), values(3)
    starts = np.cumsum([0, *(prod(shape) for shape in inputs.values())])
    bounds = np.zeros(starts[-1], dtype=np.int64)
    positions = {
        name: np.broadcast_to(np.arange(start, start + prod(shape)).reshape(shape), (2, *shape))
        for start, (name, shape) in zip(starts, inputs.items(), strict=False)
    }
    fixed = {name: value for name, value in buffers.items() if value.dtype.kind == "i"}
    for node in nodes:
        rows, looked_up = _table(node, two)
        # What is chosen from the samples themselves has no bound before their number is known.
        if looked_up in positions and rows == _table(node, three)[0]:
            found = np.unique(positions[looked_up])
            found = found[found != NOWHERE]
            bounds[found] = np.where(bounds[found] == 0, rows, np.minimum(bounds[found], rows))
        if not OPERATIONS[node.op].moves:
            continue
        shape = two[node.name].shape
        if all(name in fixed for name in node.inputs):
            fixed[node.name] = _moved(node, [fixed[name] for name in node.inputs], shape)
        elif node.op == "take" and node.inputs[0] in positions and node.inputs[1] in fixed:
            positions[node.name] = _moved(node, [positions[node.inputs[0]], fixed[node.inputs[1]]], shape)
        elif node.op != "take" and any(name in positions for name in node.inputs):
            given = [positions.get(name, np.full(two[name].shape, NOWHERE)) for name in node.inputs]
            positions[node.name] = _moved(node, given, shape)
    parts = np.split(bounds, starts[1:-1])
    return {name: part.reshape(shape) for part, (name, shape) in zip(parts, inputs.items(), strict=True)}


def _table(node: Node, values: Mapping[str, Value]) -> tuple[int, str]:
    """How many rows a node chooses from, and the name of the numbers that it chooses by; "" if it does not."""
    if node.op == "embedding":
        return values[node.inputs[0]].shape[0], node.inputs[1]
    if node.op == "take":
        return values[node.inputs[0]].shape[node.attributes["axis"]], node.inputs[1]
    return 0, ""


def _moved(node: Node, given: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return _MOVES[node.op](node.attributes, given, shape)


def _sliced(a: Mapping[str, Any], given: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    part = slice(a["start"], a["stop"], a["step"])
    return given[0][(slice(None),) * a["axis"] + (part,)]


_MOVES: dict[str, Callable[[Mapping[str, Any], Sequence[np.ndarray], Shape], np.ndarray]] = {
    "reshape": lambda a, given, shape: given[0].reshape(shape),
    "expand": lambda a, given, shape: np.broadcast_to(given[0], shape),
    "permute": lambda a, given, shape: given[0].transpose(a["axes"]),
    "slice": _sliced,
    "take": lambda a, given, shape: given[0].take(given[1], axis=a["axis"], mode="clip"),
    "concatenate": lambda a, given, shape: np.concatenate(given, axis=a["axis"]),
    "stop_gradient": lambda a, given, shape: given[0],
}
"""The operations that only move numbers, by name."""
