"""What torch.export shows of a module: a program whose values have extents that may grow with the number of samples.

Where the exporter can leave that number open, it does. Some code fixes it, as `len(x)` does; then the module is
exported for two numbers of samples, and what differs between the two programs has to be a multiple of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.distributions import Distribution
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from udlbridge.conversion.graphs.builder import Unfit, operation_name
from udlbridge.conversion.graphs.in_place import without_writes
from udlbridge.conversion.graphs.quiet import quiet
from udlbridge.conversion.graphs.translations import TRANSLATIONS
from udlbridge.errors import ConversionError
from udlbridge.networks.graphs.values import Extent, PerSample

HARMLESS = {"detach_", "lift_fresh_copy"}
"""Operations of constants that torch counts among those that write."""

FEW, MORE = 3, 5
"""Numbers of samples of the two programs. For one, the exporter would take theirs for a constant."""

SHAPED = {
    *("view", "reshape", "_unsafe_view", "unflatten", "expand", "broadcast_to", "repeat", "tile"),
    *("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "arange", "affine_grid_generator"),
    *("conv1d", "conv2d", "conv3d", "convolution", "empty", "new_empty"),
}
"""Operations whose numbers are those of the shapes that come out or go in, which are known by themselves."""


@dataclass(frozen=True)
class Seen:
    """What is known of a tensor without its numbers."""

    shape: tuple[Extent, ...]
    dtype: torch.dtype

    @property
    def kind(self) -> str:
        """As graphs call it."""
        if self.dtype == torch.bool:
            return "bool"
        return "float" if self.dtype.is_floating_point else "int"


def exported(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """The program, with `meta["seen"]` of every node: `Seen`, several of them, a number, or what is against it.

    Args:
        module: called with the inputs by position.
        inputs: samples of each.

    Raises:
        ConversionError: the exporter cannot follow the module.
    """
    grows = {0: Dim.DYNAMIC}
    try:
        open_number = (grows,) if len(inputs) == 1 else {"inputs": (grows,) * len(inputs)}
        program = _program(module, _samples(inputs, FEW), open_number)
        for graph in graphs_of(program):
            for node in graph.nodes:
                node.meta["seen"] = _seen(node.meta.get("val"))
        return program
    except Exception:  # the exporter may fail in any way; if it was for the number of samples, there is another one
        pass
    try:
        return _merged(*(_program(module, _samples(inputs, count), None) for count in (FEW, MORE)))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConversionError(
            f"torch.export cannot capture {type(module).__name__} ({reason[:300] or type(error).__name__})",
            allowed="modules whose control flow and shapes depend neither on data nor on the number of samples",
            remedy="look at torch.export.export(module, (x,)), or use ub.ntk(module, x, backend='torch')",
        ) from error


def _samples(inputs: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    """As many samples of each, repeated where there are fewer."""
    return tuple(some.repeat(-(-count // len(some)), *[1] * (some.ndim - 1))[:count] for some in inputs)


def _program(module: nn.Module, example: tuple[Tensor, ...], dynamic: Any) -> ExportedProgram:
    """The program, without operations that write to what they get."""
    # With gradients, or parts of forward under no_grad would not stand out.
    with torch.enable_grad(), warnings.catch_warnings(), _weights_kept(module), _unchecked(), quiet():
        warnings.simplefilter("ignore")  # of the exporter's own workings
        program = export(module, example, dynamic_shapes=dynamic, strict=False)
        without_writes(program)
        table = _decompositions(program)
        writes = any(_writes(node) for graph in graphs_of(program) for node in graph.nodes)
        return program.run_decompositions(table) if table or writes else program


def _decompositions(program: ExportedProgram) -> dict[Any, Any]:
    """How torch itself writes operations by others: of all that have no translation, if there is such a one.

    What is made of constants alone stays as it is: by others it may be rounded otherwise.
    """
    nodes = [node for graph in graphs_of(program) for node in graph.nodes]
    moving = {node for node in nodes if node.op == "placeholder"}
    fixed: set[Any] = set()
    for node in nodes:
        if node.op == "call_function":
            if moving.intersection(node.all_input_nodes):
                moving.add(node)
            else:
                fixed.add(node.target)
    if all(_translated(node) for node in moving if node.op == "call_function"):
        return {}
    every: dict[Any, Any] = getattr(torch.export, "default_decompositions", dict)()  # from torch 2.6 on
    known = {target for target in every if target in fixed or _has_translation(target)}
    return {target: written for target, written in every.items() if target not in known}


def _translated(node: fx.Node) -> bool:
    """Whether there is a translation, or nothing to translate, as for extents."""
    return isinstance(node.meta.get("val"), int | torch.SymInt) or _has_translation(node.target)


def _has_translation(target: Any) -> bool:
    return getattr(target, "_schema", None) is None or target.overloadpacket.__name__ in TRANSLATIONS


@contextmanager
def _weights_kept(module: nn.Module) -> Iterator[None]:
    """Recurrent layers list their weights besides: torch 2.5 leaves the exporter's stand-ins in those lists."""
    recurrent = [part for part in module.modules() if isinstance(part, nn.RNNBase)]
    kept = [list(part._flat_weights) for part in recurrent]
    try:
        yield
    finally:
        for part, weights in zip(recurrent, kept, strict=True):
            part._flat_weights = weights


@contextmanager
def _unchecked() -> Iterator[None]:
    """Distributions ask their numbers whether these are allowed, which a module that is exported cannot answer."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and operation_name(node) not in HARMLESS


def graphs_of(program: ExportedProgram) -> Iterator[fx.Graph]:
    """The graph of a program, and of those inside, as of parts under `torch.no_grad`."""
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            yield part.graph


def _seen(value: Any) -> Any:
    """What a node gives, in the program whose number of samples is open."""
    try:
        if isinstance(value, Tensor):
            return Seen(tuple(_extent(size) for size in value.shape), value.dtype)
        if isinstance(value, list | tuple):
            return [_seen(one) for one in value]
        return _extent(value) if isinstance(value, torch.SymInt) else value
    except Unfit as reason:
        return reason


def _extent(size: Any) -> Extent:
    """A number, or a multiple of the number of samples."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_number:
        return int(expression)
    symbols = list(expression.free_symbols)
    if any(free_unbacked_symbols(size)):
        raise Unfit("an extent depends on numbers")
    count = expression / symbols[0]
    if len(symbols) != 1 or not count.is_number or not count.is_integer:
        raise Unfit(f"an extent is {expression}, which is not a multiple of the number of samples")
    return PerSample(int(count))


def _merged(few: ExportedProgram, more: ExportedProgram) -> ExportedProgram:
    """The first program, with extents that are known from both; `meta["grows"]` where its own numbers are not both's.

    Raises:
        ValueError: the programs differ in more than numbers.
    """
    ours, theirs = ([node for graph in graphs_of(one) for node in graph.nodes] for one in (few, more))
    if [(node.op, str(node.target)) for node in ours] != [(node.op, str(node.target)) for node in theirs]:
        raise ValueError("its operations depend on the number of samples")
    for one, other in zip(ours, theirs, strict=True):
        one.meta["seen"] = _seen_in_both(one.meta.get("val"), other.meta.get("val"))
        one.meta["grows"] = _literals(one.args) != _literals(other.args)
        one.meta["grows"] |= _literals(list(one.kwargs.values())) != _literals(list(other.kwargs.values()))
    constants = zip(few.constants.items(), more.constants.items(), strict=True)
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for (_, a), (_, b) in constants):
        raise ValueError("its constants depend on the number of samples")
    return few


def _seen_in_both(ours: Any, theirs: Any) -> Any:
    try:
        if isinstance(ours, Tensor):
            both = zip(ours.shape, theirs.shape, strict=True)
            return Seen(tuple(_multiple(int(a), int(b)) for a, b in both), ours.dtype)
        if isinstance(ours, list | tuple):
            return [_seen_in_both(a, b) for a, b in zip(ours, theirs, strict=True)]
        return ours
    except Unfit as reason:
        return reason


def _multiple(ours: int, theirs: int) -> Extent:
    if ours == theirs:
        return ours
    count = ours // FEW
    if ours != count * FEW or theirs != count * MORE:
        raise Unfit(f"an extent is {ours} for {FEW} samples and {theirs} for {MORE}")
    return PerSample(count)


def _literals(arguments: Sequence[Any]) -> list[Any]:
    """The arguments without the values among them."""
    found: list[Any] = []
    for one in arguments:
        if isinstance(one, list | tuple):
            found.append(_literals(one))
        elif not isinstance(one, fx.Node):
            found.append(one)
    return found
