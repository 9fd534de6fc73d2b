"""The steps of a network: what it gives after each layer, module or node, and which of two networks' correspond."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import attrs
import numpy as np

from udlbridge import backends
from udlbridge.analysis.node_values import node_values
from udlbridge.analysis.port_graphs import compare_graphs, graph_words, node_steps
from udlbridge.analysis.port_hints import Step, hints_of, reason_told
from udlbridge.analysis.port_matching import in_order, matched
from udlbridge.conversion.translating import as_model
from udlbridge.errors import ConversionError, OptionError, UDLBridgeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.layers import Activation, Conv1d, Conv2d, Dense, Dropout, Layer
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model
from udlbridge.tolerances import relative_difference
from udlbridge.words import EngineName, EngineWord


@dataclass(frozen=True)
class Correspondence:
    """The steps of two networks that correspond, in order, and hints.

    `settled`: the hints say all that is known of where the two part, so that nobody need look at arrays and settings.
    """

    sides: list[list[Step]]
    hints: list[str]
    settled: bool = False


def steps_of_both(
    networks: Sequence[Any],
    batches: Sequence[np.ndarray],
    names: Sequence[EngineName],
    pairs: Mapping[str, str] | None,
    limit: float,
) -> Correspondence:
    """The steps of both networks that correspond, and why there are none.

    Layers and modules by names, order or numbers, as long as these say where two networks part and why; nodes of their
    graphs else, and where one is a network in Julia that is no list of layers.

    `limit`: the difference up to which two steps agree, where numbers say which correspond.
    """
    if pairs is not None:
        return Correspondence(_named(networks, batches, names, pairs), [])
    found = _by_layers(networks, batches, names, limit)
    if found is not None and (_agree(found.sides, limit) or _reason_known(found, limit)):
        return found
    try:
        nodes = compare_graphs(networks, batches, names, limit)
    except UDLBridgeError as error:
        if found is not None:
            return found
        found = _matched(networks, batches, names, limit, "nothing else says what corresponds")
        return replace(found, hints=[*found.hints, f"not compared node by node: {error.given}"])
    if found is not None and not nodes.explained:
        return found
    alike = {type(network) for network in networks} == {Graph} and not _built_alike(*networks)
    reason = ["layers were matched by what they give and are: the graphs are not built alike"] if alike else []
    return Correspondence(nodes.steps, [*reason, *nodes.hints], settled=True)


def _agree(sides: Sequence[Sequence[Step]], limit: float) -> bool:
    """Whether there are steps, and each gives what the one beside it gives."""
    return bool(sides[0]) and len(sides[0]) == len(sides[1]) == _agreeing(sides, limit)


def _reason_known(found: Correspondence, limit: float) -> bool:
    """Whether settings and arrays of the first steps that differ show the mistake."""
    for index, (one, two) in enumerate(zip(*found.sides, strict=False)):
        if one.value.shape != two.value.shape or not relative_difference(one.value, two.value) <= limit:
            hints = hints_of(one, two, limit, found.sides[0][:index])
            return any(reason_told(hint, by_name=not found.hints) for hint in hints)
    return False


def _by_layers(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName], limit: float
) -> Correspondence | None:
    """Steps that are layers, modules, or nodes of graphs that are built alike; None where that says too little."""
    kinds = {type(network) for network in networks}
    if kinds == {Graph}:
        if not _built_alike(*networks):
            return None
        return Correspondence([_own_steps(*side) for side in zip(networks, batches, names, strict=True)], [])
    if len(kinds) == 1 and not kinds <= {Model} and networks[0].engine != "julia":
        return _of_modules(networks, batches, names, limit)
    if Graph in kinds:
        if any(isinstance(network, ForeignNetwork) and network.engine == "julia" for network in networks):
            return None
        found, left_out = _of_one_path(networks, batches, names)
        if found[0]:
            words = "left out, since the graph does not tell their calls apart: "
            return Correspondence(found, [words + ", ".join(left_out)] if left_out else [])
        return _matched(networks, batches, names, limit, "one is a graph")
    try:
        models = [as_model(network) for network in networks]
    except UDLBridgeError:
        return None
    foreign = [isinstance(network, ForeignNetwork) for network in networks]
    given = [name for name, own in zip(names, foreign, strict=True) if not own]
    engines = names if all(foreign) or not any(foreign) else given * 2
    return Correspondence([_model_steps(*side) for side in zip(models, batches, engines, strict=True)], [])


def _of_modules(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName], limit: float
) -> Correspondence:
    """The steps of two modules that correspond: by their names, in their order, or by what they give and are."""
    one, other = (_own_steps(*side) for side in zip(networks, batches, names, strict=True))
    named = {step.name: step for step in other}
    if {step.name for step in one} == set(named):
        return Correspondence([one, [named[step.name] for step in one]], [])
    if in_order(one, other) and _agreeing([one, other], limit) >= _agreeing(matched(one, other, limit), limit):
        return Correspondence([one, other], [])
    return _matched(networks, batches, names, limit, "the modules are called by other names")


def _agreeing(sides: Sequence[Sequence[Step]], limit: float) -> int:
    """How many steps give what the step beside them gives."""
    return sum(
        a.value.shape == b.value.shape and relative_difference(a.value, b.value) <= limit
        for a, b in zip(*sides, strict=True)
    )


def _built_alike(one: Graph, other: Graph) -> bool:
    """Whether two graphs have the same operations in the same order, on the same values by whatever names."""
    if len(one.nodes) != len(other.nodes):
        return False
    there, back = {INPUT: INPUT}, {INPUT: INPUT}
    for node, twin in zip(one.nodes, other.nodes, strict=True):
        if node.op != twin.op or len(node.inputs) != len(twin.inputs):
            return False
        for name, own in zip((*node.inputs, node.name), (*twin.inputs, twin.name), strict=True):
            if there.setdefault(name, own) != own or back.setdefault(own, name) != name:
                return False
    return True


def _matched(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName], limit: float, reason: str
) -> Correspondence:
    """The steps that correspond by what they give, and by what they are."""
    try:
        one, other = (_own_steps(*side) for side in zip(networks, batches, names, strict=True))
    except ConversionError as error:  # a model in Julia that is no chain
        return Correspondence([[], []], [f"there are no steps: {error.given}"])
    found = matched(one, other, limit)
    if not found[0]:
        return Correspondence(
            found, ["there are no steps: no layer of one corresponds to one of the other; see pairs="]
        )
    return Correspondence(found, [f"layers were matched by what they give and are: {reason}"])


def _of_one_path(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName]
) -> tuple[list[list[Step]], list[str]]:
    """Of a graph and a module, what both give after the same call of the same submodule, by the path of that.

    Besides, the paths of submodules whose calls the graph does not tell apart.
    """
    index = next(number for number, network in enumerate(networks) if isinstance(network, Graph))
    other = networks[1 - index]
    if not isinstance(other, ForeignNetwork) or other.engine == "julia":
        return [[], []], []
    steps = {step.name: step for step in _module_steps(other, batches[1 - index])}
    graph: Graph = networks[index]
    ends, left_out = _ends_of_calls(graph, list(steps), other.layer_aliases)
    held = {**graph.params, **graph.buffers}
    sides: list[list[Step]] = [[], []]
    for step in _graph_steps(graph, batches[index], names[index], set(ends)):
        call = steps[ends[step.name]]
        path = call.name.partition("#")[0]
        arrays = {name: held[f"{path}.{name}"] for name in call.arrays if f"{path}.{name}" in held}
        sides[0].append(replace(call, value=step.value, arrays=arrays))  # known by the same name, and words
        sides[1].append(call)
    return sides if index == 0 else sides[::-1], left_out


def _ends_of_calls(graph: Graph, calls: Sequence[str], aliases: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The call of a submodule whose result a node gives, by the node's name, and the paths of which that is not known.

    A graph has no nodes for calls whose result nobody used.
    """
    runs = _runs(graph, aliases)
    called: dict[str, list[str]] = {}
    for call in calls:
        called.setdefault(call.partition("#")[0], []).append(call)
    found: dict[str, str] = {}
    left_out = []
    for path, every in called.items():
        ends = _ends(runs.get(path, []), len(every))
        found |= zip(ends, every, strict=bool(ends))
        if not ends and path in runs:
            left_out.append(path)
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), left_out


def _runs(graph: Graph, aliases: Mapping[str, str]) -> dict[str, list[list[Node]]]:
    """The nodes of every submodule, by its path, in stretches without a node of another."""
    runs: dict[str, list[list[Node]]] = {}
    last = None
    for node in graph.nodes:
        path = aliases.get(node.source, node.source)
        if not path and not node.inputs:
            continue  # a constant, which belongs to whatever uses it
        own = runs.setdefault(path, [])
        if path != last:
            own.append([])
        own[-1].append(node)
        last = path
    return runs


def _ends(runs: Sequence[Sequence[Node]], count: int) -> list[str]:
    """The last node of every call, of as many as are known to be; none where that cannot be said.

    Other nodes lie between two calls, or one comes right after the other and does the same.
    """
    if len(runs) == count:
        return [run[-1].name for run in runs]
    nodes = [node for run in runs for node in run]
    size, left = divmod(len(nodes), count)
    blocks = [nodes[start : start + size] for start in range(0, len(nodes), size)] if size and not left else []
    alike = len({tuple(node.op for node in block) for block in blocks}) == 1
    return [block[-1].name for block in blocks] if alike else []


def _own_steps(network: Any, x: np.ndarray, backend: EngineName) -> list[Step]:
    """The steps of a network as it is."""
    if isinstance(network, Graph):
        return _graph_steps(network, x, backend)
    return _module_steps(network, x) if isinstance(network, ForeignNetwork) else _model_steps(network, x, backend)


def _named(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName], pairs: Mapping[str, str]
) -> list[list[Step]]:
    """The steps that the caller says are the same: layers, modules, or nodes of the graph of a network.

    Raises:
        OptionError: there is no step of such a name.
    """
    if not isinstance(pairs, Mapping) or not pairs:
        raise OptionError(f"pairs={pairs!r}", allowed="a dict of names of steps", remedy='as {"conv1": "0"}')
    chosen: list[list[Step]] = []
    for side, wanted in zip(
        zip(networks, batches, names, strict=True), (list(pairs), list(pairs.values())), strict=True
    ):
        by_name = _steps_by_name(*side, wanted)
        if unknown := [name for name in wanted if name not in by_name]:
            raise OptionError(
                f"pairs= with {unknown[0]!r} for the {'second' if chosen else 'first'} network",
                allowed=", ".join(by_name),
                remedy="use these names",
            )
        chosen.append([by_name[name] for name in wanted])
    return chosen


def _steps_by_name(network: Any, x: np.ndarray, backend: EngineName, wanted: Sequence[str]) -> dict[str, Step]:
    """The steps of a network as it is; those of its graph, too, where it has none or other names are wanted."""
    try:
        found = {step.name: step for step in _own_steps(network, x, backend)}
    except ConversionError:  # a model in Julia that is no chain
        found = {}
    if not isinstance(network, Graph) and not set(wanted) <= set(found):
        with suppress(UDLBridgeError):
            found |= {step.name: step for step in node_steps(network, x, backend)}
    return found


def _module_steps(network: ForeignNetwork, x: np.ndarray) -> list[Step]:
    """What the innermost modules give, or the layers of a chain in Julia, with the arrays that they have."""
    held = {**network.params, **network.buffers}
    owned = network.names_by_layer(held)
    kinds, settings = network.layer_kinds, network.layer_settings
    found = []
    for name, value in network.layer_outputs(x).items():
        path = name.partition("#")[0]
        arrays = {own.removeprefix(f"{path}."): held[own] for own in owned.get(path, ())}
        found.append(
            Step(name, f"{name} ({kinds[name]})", value, None, arrays, settings.get(path, ""), kinds[name], path)
        )
    return found


def _graph_steps(graph: Graph, x: np.ndarray, backend: EngineWord, chosen: Collection[str] | None = None) -> list[Step]:
    """What the nodes give that have a row of numbers for each sample, with the parameters that go into each.

    `chosen`: the names of those that count; None for all.
    """
    found = []
    values = node_values(graph, x, backend)
    for node in graph.nodes:
        if node.name not in values or (chosen is not None and node.name not in chosen):
            continue
        arrays = {f"input {index}": graph.params[own] for index, own in enumerate(node.inputs) if own in graph.params}
        found.append(
            Step(node.name, graph_words(node), values[node.name], None, arrays, kind=node.op, path=node.source)
        )
    return found


def _model_steps(model: Model, x: np.ndarray, backend: EngineWord) -> list[Step]:
    """What the layers give one after the other, each activation by itself."""
    found, h = [], x
    for name, step in _layers_alone(model):
        h = backends.get(backend).outputs(step, h)
        arrays = {name.removeprefix("0."): value for name, value in step.arrays.items()}
        found.append(Step(name, _describe(step.layers[0]), h, step.layers[0], arrays, kind=step.layers[0].kind))
    return found


def _layers_alone(model: Model) -> list[tuple[str, Model]]:
    """A network of one layer for every layer and for every activation, by name, without those that change nothing."""
    found = []
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Dropout) or (isinstance(layer, Activation) and layer.activation == "identity"):
            continue
        arrays = {f"0.{name}": value for name, value in model.layer_arrays(index).items()}
        activation = "identity"
        if isinstance(layer, Dense | Conv1d | Conv2d):
            activation, layer = layer.activation, attrs.evolve(layer, activation="identity")
        found.append((str(index), Model([layer], arrays, dtype=model.dtype)))
        if activation != "identity":
            step = Model([Activation(cast(ActivationWord, activation))], {}, dtype=model.dtype)
            found.append((f"{index}.activation", step))
    return found


def _describe(layer: Layer) -> str:
    """The layer's kind and its settings, without those that have their default and those that hold layers."""
    shown = []
    for field in attrs.fields(type(layer)):
        value = getattr(layer, field.name)
        if isinstance(value, str | int | float) or (
            isinstance(value, tuple) and all(isinstance(v, int) for v in value)
        ):
            if field.default is attrs.NOTHING:
                shown.append(str(value))
            elif value != field.default and value not in ((field.default,) * 2, (field.default,)):
                shown.append(f"{field.name}={value}")
    return f"{layer.kind}({', '.join(shown)})"
