"""Where derivatives in a graph come from: truth values, whole numbers and `stop_gradient` pass none on."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from udlbridge.errors import ConversionError

if TYPE_CHECKING:
    from udlbridge.networks.graphs.graph import Graph


def check_followed(graph: Graph, names: Collection[str], words: str) -> None:
    """Refuse values, called `words`, that no path of numbers leads from to the output but through `stop_gradient`.

    Raises:
        ConversionError: all derivatives by them would be 0.
    """
    values = graph.values(2)
    reached = set(names)
    for node in graph.nodes:
        if values[node.name].kind == "float" and node.op != "stop_gradient" and not reached.isdisjoint(node.inputs):
            reached.add(node.name)
    if graph.output not in reached:
        raise ConversionError(
            f"the output of the graph has no derivative by {words}",
            allowed="outputs that a path of numbers, without stop_gradient, leads to",
            remedy="look for torch.no_grad() and .detach() in the module that it came from, or choose other params",
        )
