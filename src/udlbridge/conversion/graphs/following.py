"""An exported program followed operation by operation, each of them translated where it depends on the samples."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

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
from udlbridge.conversion.graphs.exporting import SHAPED
from udlbridge.conversion.graphs.translations import TRANSLATIONS
from udlbridge.errors import ConversionError
from udlbridge.networks.graphs.values import PerSample
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


def followed(program: ExportedProgram, builder: Builder, environment: dict[fx.Node, Any]) -> str:
    """Translate node after node, of those that the output depends on; returns the name of the output.

    Raises:
        ConversionError: an operation has no translation, or forward gives several outputs.
    """
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
        if getattr(seen, "kind", "") != "bool" and _stays_whole(name, list(ordered.values()), builder):
            builder.whole.update(_values(found))
        _note(node, found, builder)
    except Unfit as reason:
        raise refused(node, name, reason) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:  # an overload of other arguments
        raise refused(node, name, f"it is called in a way that does not cross ({error!r})") from error
    return found


def _stays_whole(name: str, arguments: list[Any], builder: Builder) -> bool:
    """Whether an operation gives whole numbers, since it gets such and neither divides nor curves."""
    moved = name in MOVES and bool(builder.whole.intersection(_values(arguments)))
    return all(map(builder.is_whole, arguments)) and (name in WHOLE_SUMS or moved)


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
