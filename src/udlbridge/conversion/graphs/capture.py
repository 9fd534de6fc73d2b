"""A module's graph: what torch.export shows of it, translated operation by operation, and proved on the example."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from udlbridge.backends.pytorch.checks import TRANSLATED, check_inference
from udlbridge.backends.pytorch.copies import tensors_inside
from udlbridge.backends.pytorch.module_outputs import Choice
from udlbridge.backends.pytorch.module_values import check_values
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.conversion.graphs.builder import Builder, Value
from udlbridge.conversion.graphs.calling import called_plainly, checked_fields, settings_of
from udlbridge.conversion.graphs.exporting import exported
from udlbridge.conversion.graphs.following import followed
from udlbridge.conversion.graphs.proof import prove
from udlbridge.errors import ConversionError, GraphError
from udlbridge.networks.graphs.entries import value_name
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.init import FLOATS


def captured(module: nn.Module, x: Any, *, inference: bool, output: Choice = None) -> Graph:
    """As `udlbridge.from_torch` with an example.

    Raises:
        ConversionError, InputError, ShapeError, DTypeError: as `udlbridge.from_torch`.
    """
    if not inference:
        check_inference(module, TRANSLATED)
    check_values(module)
    _check_parameters(module)
    # The caller's is neither changed nor put into another mode. What forward computed and kept, as the weights of
    # torch.nn.utils.weight_norm, torch does not copy.
    kept = {id(value): value.detach().clone() for value in tensors_inside(module) if not value.is_leaf}
    # Parameters are not written to, and a function in a module may reach the caller's around the copy.
    kept.update({id(value): value for value in module.parameters() if value.device.type == "cpu"})
    own = copy.deepcopy(module, kept).cpu().eval()
    network = ModuleNetwork(own, output)
    batch = network.checked_batch(x, "x")
    inputs = network.inputs(batch[:5], "cpu")
    # What forward keeps while it is exported, as a mask for the next call, is the exporter's, and has no numbers.
    shown = copy.deepcopy(network.module, {id(value): value for value in network.module.parameters()})
    with called_plainly(shown, list(inputs), output, network.name):
        program = exported(shown, list(inputs.values()))
    graph = _translated(network.module, program, batch)
    prove(graph, network, batch)
    return graph


def _check_parameters(module: nn.Module) -> None:
    """Refuse parameters of several dtypes, of half precision, or that are not finite; a buffer may be infinite."""
    first: tuple[str, torch.dtype] | None = None
    for name, value in module.named_parameters():
        dtype = str(value.dtype).removeprefix("torch.")
        first = first or (name, value.dtype)
        if dtype not in FLOATS or value.dtype != first[1]:
            besides = f", {first[0]} {str(first[1]).removeprefix('torch.')}" if value.dtype != first[1] else ""
            raise ConversionError(
                f"{name} has dtype {dtype}{besides}",
                allowed=f"{' or '.join(FLOATS)}, the same for all",
                remedy="convert the module with module.float(), or module.double()",
            )
        if not value.is_meta and not torch.isfinite(value).all():
            raise ConversionError(f"{name} is not finite", allowed="finite numbers", remedy="clean the weights")


def _translated(module: nn.Module, program: ExportedProgram, batch: np.ndarray) -> Graph:
    """The graph of a program, with the names that the module's arrays have."""
    every = dict(module.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in every.items():
        first.setdefault(id(parameter), name)
    trained = {name: value for name, value in every.items() if value.requires_grad}
    fixed = {name: value for name, value in every.items() if not value.requires_grad and first[id(value)] == name}
    held = {**fixed, **dict(module.named_buffers())}
    dtype = next((value.dtype for value in every.values()), torch.get_default_dtype())
    builder = Builder(dtype, {id(value): name for name, value in held.items()})
    environment: dict[fx.Node, Any] = {}
    fields = checked_fields(batch, dtype)
    names = iter(map(value_name, fields))
    # A function that was made in __init__ may reach a parameter past all modules, and the exporter takes it as it lies.
    places = {_place(value): first[id(value)] for value in trained.values() if value.numel()}
    for spec, node in zip(program.graph_signature.input_specs, _placeholders(program), strict=True):
        if spec.kind == InputKind.USER_INPUT:
            environment[node] = Value(next(names))
            builder.known(environment[node], node.meta["seen"])
        elif spec.kind.name == "TOKEN":  # of checks in their order
            environment[node] = None
        elif spec.kind == InputKind.PARAMETER and every[str(spec.target)].requires_grad:
            name = first[id(every[str(spec.target)])]
            environment[node] = Value(name)
            builder.known(name, node.meta["seen"])
        else:
            found = _constant(program, spec, every, held)
            name = places.get(_place(found), "") if found.is_floating_point() else ""
            environment[node] = Value(name) if name else found
            if name:
                builder.known(name, node.meta["seen"])
    output = followed(program, builder, environment)
    params = {name: value.detach().cpu().numpy() for name, value in trained.items() if first[id(value)] == name}
    converted = {name: _converted(value, dtype) for name, value in held.items()}
    buffers = {name: value for name, value in converted.items() if value.dtype in (dtype, torch.int64, torch.bool)}
    nodes = _needed(builder.nodes, output)
    used = {name for node in nodes for name in node.inputs}
    constants = {name: value for name, value in builder.constants.items() if name in used}
    try:
        return Graph(
            nodes,
            output,
            params=params,
            buffers={**{name: value.numpy() for name, value in buffers.items()}, **constants},
            **settings_of(fields),
            dtype=np.dtype(str(dtype).removeprefix("torch.")),
            aliases={name: first[id(value)] for name, value in trained.items() if first[id(value)] != name},
        )
    except GraphError as error:
        raise ConversionError(
            error.given, allowed="what crosses as a graph", remedy="use ub.ntk(module, x, backend='torch')"
        ) from error


def _converted(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in the dtype of the graph, whole numbers as int64, truth values as they are."""
    value = buffer.detach().cpu()
    value = value.to_dense() if value.layout != torch.strided else value
    if value.is_floating_point():
        return value.to(dtype)
    return value if value.dtype == torch.bool or value.is_complex() else value.long()


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where the numbers of a tensor lie, and how."""
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())


def _placeholders(program: ExportedProgram) -> list[fx.Node]:
    return [node for node in program.graph.nodes if node.op == "placeholder"]


def _constant(program: ExportedProgram, spec: Any, every: dict[str, Any], held: dict[str, Tensor]) -> Tensor:
    """A frozen parameter, a buffer, or a tensor that was made in forward."""
    target = str(spec.target)
    for source in (held, every, program.constants, program.state_dict):
        found = source.get(target)
        if isinstance(found, Tensor):
            return found
    raise ConversionError(
        f"{target} is not a tensor", allowed="parameters, buffers and tensors", remedy="make it a buffer"
    )


def _needed(nodes: list[Node], output: str) -> list[Node]:
    """The nodes that the output depends on."""
    wanted, needed = {output}, []
    for node in reversed(nodes):
        if node.name in wanted:
            needed.append(node)
            wanted.update(node.inputs)
    return needed[::-1]
