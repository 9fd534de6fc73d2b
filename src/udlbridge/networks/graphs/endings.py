"""What a graph ends in: whether its outputs are logits, or what softmax and the like made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from udlbridge.networks.graphs.graph import Graph

ENDINGS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "sigmoid"}
"""Operations that make probabilities, or their logarithms, of logits."""


def ending_of(graph: Graph) -> str | None:
    """What makes the outputs of logits, one distribution for each sample; None for other graphs.

    Reshapes that keep the shape, as flattening (n, O) does, change nothing.
    """
    values = graph.values(2)
    shape = values[graph.output].shape
    nodes = {node.name: node for node in graph.nodes}
    node = nodes.get(graph.output)
    while node is not None and node.op == "reshape" and values[node.inputs[0]].shape == shape:
        node = nodes.get(node.inputs[0])
    return None if node is None or len(shape) != 2 else ENDINGS.get(node.op)
