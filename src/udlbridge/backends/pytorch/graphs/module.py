"""A graph as a `torch.nn.Module`, with parameters and buffers under the names that the graph has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch.graphs import layers, operations
from udlbridge.networks.graphs.entries import value_name
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.values import concrete

RULES = {**operations.RULES, **layers.RULES}
"""The rule of every operation but `fill` and `cast`, which have to know a dtype."""


class GraphModule(nn.Module):
    """The network of a graph: f(x) with its own axes, (n, *D) -> (n, *out), in inference mode.

    Args:
        graph: the network, of one input; `graph_module` makes that of any.
        aliases: whether a shared parameter has all of its names, as in a state dict.
    """

    def __init__(self, graph: Graph, *, aliases: bool = False) -> None:
        super().__init__()
        shared = {name: nn.Parameter(torch.tensor(value)) for name, value in graph.params.items()}
        further = {name: shared[own] for name, own in graph.aliases.items()} if aliases else {}
        for name, parameter in {**shared, **further}.items():
            owner, own = self._owner(name)
            owner.register_parameter(own, parameter)
        for name, value in graph.buffers.items():
            owner, own = self._owner(name)
            owner.register_buffer(own, torch.tensor(value))
        self._run = _interpreter(graph)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        return self._computed({"": x})

    def _computed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """f of the inputs by name."""
        arrays = {**dict(self.named_parameters(remove_duplicate=False)), **dict(self.named_buffers())}
        return self._run(arrays, inputs)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module inside that a name belongs to, made where it is not there, and the rest of the name."""
        *path, own = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        return owner, own


class ModuleOfSeveral(GraphModule):
    """The network of a graph of several inputs, called as the module that it came from: by position, or by name."""

    def __init__(self, graph: Graph, *, aliases: bool = False) -> None:
        super().__init__(graph, aliases=aliases)
        self._fields = tuple(graph.inputs)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """f of all inputs.

        Raises:
            TypeError: others than the graph has.
        """
        positions = sorted(filter(str.isdigit, self._fields), key=int)
        given = {**dict(zip(positions, inputs, strict=False)), **named}
        if set(given) != set(self._fields) or len(inputs) != len(positions):
            names = [field for field in self._fields if not field.isdigit()]
            raise TypeError(
                f"forward got {len(inputs)} inputs by position, and {', '.join(named) or 'none'} by name; it takes "
                f"{len(positions)} by position, and {', '.join(names) or 'none'} by name"
            )
        return self._computed(given)


def graph_module(graph: Graph, *, aliases: bool = False) -> GraphModule:
    """The graph as a module; arguments as for `GraphModule`."""
    return (ModuleOfSeveral if graph.takes_several else GraphModule)(graph, aliases=aliases)


def _interpreter(graph: Graph) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]:
    """The nodes as one function; as such, copies of the module share it."""
    nodes, output, dtype = graph.nodes, graph.output, getattr(torch, graph.dtype.name)

    def run(arrays: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(inputs.values()))
        n, device = len(first), first.device
        values = {**arrays, **{value_name(field): value for field, value in inputs.items()}}
        for node in nodes:
            found = [values[name] for name in node.inputs]
            if node.op == "fill":
                shape, value = concrete(node.attributes["shape"], n), node.attributes["value"]
                values[node.name] = torch.full(shape, value, dtype=dtype, device=device)
            elif node.op == "cast":
                values[node.name] = found[0].to(dtype)
            else:
                values[node.name] = RULES[node.op](node.attributes, n, *found)
        return values[output]

    return run
