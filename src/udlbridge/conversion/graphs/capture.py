"""A module's graph: what torch.export shows of it, translated operation by operation, and proved on the example."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from udlbridge.backends.pytorch.checks import TRANSLATED, check_inference
from udlbridge.backends.pytorch.copies import tensors_inside
from udlbridge.backends.pytorch.module_outputs import Choice
from udlbridge.backends.pytorch.module_values import check_values
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.conversion.graphs import axes, movement
from udlbridge.conversion.graphs.builder import (
    Builder,
    Call,
    Nothing,
    OtherDtype,
    Places,
    Rows,
    Unfit,
    Value,
    operation_name,
    refused,
)
from udlbridge.conversion.graphs.calling import called_plainly, checked_fields, settings_of
from udlbridge.conversion.graphs.exporting import SHAPED, exported
from udlbridge.conversion.graphs.proof import prove
from udlbridge.conversion.graphs.translations import TRANSLATIONS
from udlbridge.errors import ConversionError, GraphError
from udlbridge.networks.graphs.entries import value_name
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.values import PerSample
from udlbridge.networks.init import FLOATS
from udlbridge.texts import counted

WHOLE_SUMS = {
    *("add", "sub", "subtract", "rsub", "mul", "multiply", "neg", "abs", "square", "maximum", "minimum", "where"),
    *("clamp", "clip", "clamp_min", "clamp_max", "masked_fill", "sum", "cumsum", "amax", "amin"),
}
"""What gives whole numbers where it gets whole numbers or truth values."""

MOVES = {
    *axes.TRANSLATIONS,
    *movement.TRANSLATIONS,
    *(
        "clone",
        "contiguous",
        "alias",
        "index",
        "index_select",
        "gather",
        "slice_scatter",
        "select_scatter",
        "index_copy",
    ),
} - WHOLE_SUMS
"""What gives numbers that it gets."""

WITH_PLACES = {"max_unpool2d", "max_unpool3d"}
"""What takes the places of maxima."""

NUMBERS = (int, bool, PerSample, torch.SymInt, torch.SymBool)
"""What a node may give besides tensors: extents, and what is computed from them."""


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
    output = _followed(program, builder, environment)
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


def _followed(program: ExportedProgram, builder: Builder, environment: dict[fx.Node, Any]) -> str:
    """Translate node after node, of those that the output depends on; returns the name of the output."""
    live = _live(program)
    for node in program.graph.nodes:
        if node.op == "placeholder" or node not in live:
            continue
        if node.op == "output":
            results = _returned(program, node)
            if len(results) != 1:
                raise ConversionError(
                    f"forward gives {counted(len(results), 'output')}",
                    allowed="one tensor",
                    remedy="say which of them counts, as output='logits' or output=0",
                )
            found = builder.value(_argument(results[0], environment))
            made = {one.name for one in builder.nodes}  # an input alone, as output, is none of them
            if found not in made:
                found = builder.add("reshape", [found], {"shape": builder.shapes[found]}, builder.shapes[found], node)
            return str(found)
        environment[node] = _one(node, builder, environment)
    raise AssertionError("a program without an output")


def _returned(program: ExportedProgram, output: fx.Node) -> list[Any]:
    """What forward returns; what it leaves in inputs and buffers, which torch lists before, is for no other call."""
    both = zip(program.graph_signature.output_specs, output.args[0], strict=True)  # type: ignore[arg-type]
    return [result for spec, result in both if spec.kind == OutputKind.USER_OUTPUT]


def _live(program: ExportedProgram) -> set[fx.Node]:
    """The nodes that the output depends on: what checks, or what nobody uses, needs no translation."""
    nodes = list(program.graph.nodes)
    found = {node for node in nodes if node.op == "output"}
    for node in reversed(nodes):
        if node.op == "output":
            found.update(one for one in _returned(program, node) if isinstance(one, fx.Node))
        elif node in found:
            found.update(node.all_input_nodes)
    return found


def _one(node: fx.Node, builder: Builder, environment: dict[fx.Node, Any]) -> Any:
    """What a node gives: the name of a value, several of them, a constant, or a number."""
    if node.op == "get_attr":
        return getattr(node.graph.owning_module, str(node.target))  # a program inside
    if node.target is operator.getitem:
        found = _argument(node.args[0], environment)[node.args[1]]
        if found is None and node.users:
            raise refused(node, str(node.args[0]), "what it gives besides, as places, is asked for")
        return found
    target: Any = node.target
    seen = node.meta["seen"]
    schema = getattr(target, "_schema", None)
    if schema is None:
        if isinstance(seen, NUMBERS):
            return seen
        if getattr(target, "__name__", "") == "wrap_with_set_grad_enabled":
            return _inside(node, builder, environment)
        raise refused(node, getattr(node.target, "__name__", str(node.target)), "it is a program of its own")
    name = operation_name(node)
    if isinstance(seen, NUMBERS):
        return seen
    if isinstance(seen, Unfit):
        raise refused(node, name, str(seen))
    if node.meta.get("grows") and name not in SHAPED:
        raise refused(node, name, "its settings depend on the number of samples")
    args = [_argument(one, environment) for one in node.args]
    words = {key: _argument(one, environment) for key, one in node.kwargs.items()}
    if not _moves(args) and not _moves(words) and not node.meta.get("grows"):
        with torch.no_grad():
            return target(*args, **words)
    if any(isinstance(one, Rows) for one in args):
        return _of_rows(node, name, args[0])
    if name not in WITH_PLACES and any(isinstance(one, Places) for one in args):
        raise refused(node, name, "it computes with the places of a pool")
    if name not in TRANSLATIONS:
        raise refused(node, name, "no operation of graphs means the same")
    declared = schema.arguments
    defaults = {one.name: one.default_value for one in declared if one.has_default_value()}
    given = {one.name: value for one, value in zip(declared, args, strict=False)}
    ordered = {one.name: ({**defaults, **given, **words}).get(one.name) for one in declared}
    try:
        found = TRANSLATIONS[name](Call(builder, node, ordered))
        truth = getattr(seen, "kind", "") == "bool"
        if (
            not truth
            and all(map(builder.is_whole, ordered.values()))
            and (name in WHOLE_SUMS or (name in MOVES and builder.whole.intersection(_values(list(ordered.values())))))
        ):
            builder.whole.update(_values(found))
        _note(node, found, builder)
    except Unfit as reason:
        raise refused(node, name, reason) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:  # an overload of other arguments
        raise refused(node, name, f"it is called in a way that does not cross ({error!r})") from error
    return found


def _inside(node: fx.Node, builder: Builder, environment: dict[fx.Node, Any]) -> tuple[Any, ...]:
    """What a part gives for which forward turns gradients off, or on: values with derivative 0, or as they are."""
    enabled, part, *given = (_argument(one, environment) for one in node.args)
    own: dict[fx.Node, Any] = {}
    results: tuple[Any, ...] = ()
    entering = iter(given)
    for one in part.graph.nodes:
        if one.op == "placeholder":
            own[one] = next(entering)
        elif one.op == "output":
            results = tuple(_argument(result, own) for result in one.args[0])
        else:
            own[one] = _one(one, builder, own)
    return results if enabled else tuple(_still(result, builder, node) for result in results)


def _still(result: Any, builder: Builder, node: fx.Node) -> Any:
    """A value whose derivative is 0; whole numbers and truth values have none."""
    if not isinstance(result, Value) or builder.kinds.get(result, "float") != "float":
        return result
    found = builder.add("stop_gradient", [result], {}, builder.shapes[result], node)
    builder.kinds[found] = "float"
    if result in builder.whole:
        builder.whole.add(found)
    return found


def _of_rows(node: fx.Node, name: str, rows: Rows) -> Rows:
    """What an operation makes of the numbers of samples: they may get more axes.

    Raises:
        ConversionError: it computes with them.
    """
    seen = node.meta["seen"]
    if name not in MOVES or [size for size in seen.shape if size != 1] != [PerSample(1)]:
        raise refused(node, name, "it computes with the numbers of the samples")
    return Rows(seen.shape)


def _note(node: fx.Node, found: Any, builder: Builder) -> None:
    """Remember kind and shape of what came out, and refuse numbers of another dtype than the graph's."""
    values, all_seen = [found], [node.meta["seen"]]
    if isinstance(found, list | tuple):
        values, all_seen = list(found), list(node.meta["seen"])
    for value, seen in zip(values, all_seen, strict=True):
        if not isinstance(value, Value):
            continue
        if isinstance(seen, Unfit):
            raise seen
        if seen.kind == "float" and seen.dtype != builder.dtype and value not in builder.whole:
            raise OtherDtype(seen.dtype, builder.dtype)
        builder.known(value, seen)


def _moves(arguments: Any) -> bool:
    """Whether values of the graph, or extents that grow with the samples, are among the arguments."""
    if isinstance(arguments, Value | Rows | Places | Nothing | PerSample | Unfit):
        return True
    if isinstance(arguments, dict):
        return any(_moves(one) for one in arguments.values())
    return isinstance(arguments, list | tuple) and any(_moves(one) for one in arguments)


def _values(arguments: Any) -> list[Value]:
    """The values of the graph among the arguments."""
    if isinstance(arguments, list | tuple):
        return [value for one in arguments for value in _values(one)]
    return [arguments] if isinstance(arguments, Value) else []


def _argument(one: Any, environment: dict[fx.Node, Any]) -> Any:
    if isinstance(one, fx.Node):
        return environment[one]
    if isinstance(one, list | tuple):
        return [_argument(part, environment) for part in one]
    return one


def _needed(nodes: list[Node], output: str) -> list[Node]:
    """The nodes that the output depends on."""
    wanted, needed = {output}, []
    for node in reversed(nodes):
        if node.name in wanted:
            needed.append(node)
            wanted.update(node.inputs)
    return needed[::-1]
