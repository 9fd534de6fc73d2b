"""Which steps of two networks correspond: as the caller says, by layers and modules, or node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from udlbridge.analysis.port_calls import of_one_path
from udlbridge.analysis.port_graphs import compare_graphs, node_steps
from udlbridge.analysis.port_hints import Step, hints_of, reason_told
from udlbridge.analysis.port_matching import in_order, matched
from udlbridge.analysis.port_steps import model_steps, own_steps
from udlbridge.conversion.translating import as_model
from udlbridge.errors import ConversionError, OptionError, UDLBridgeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.arrays import INPUT
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model
from udlbridge.tolerances import relative_difference
from udlbridge.words import EngineName


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
        return Correspondence([own_steps(*side) for side in zip(networks, batches, names, strict=True)], [])
    if len(kinds) == 1 and not kinds <= {Model} and networks[0].engine != "julia":
        return _of_modules(networks, batches, names, limit)
    if Graph in kinds:
        if any(isinstance(network, ForeignNetwork) and network.engine == "julia" for network in networks):
            return None
        found, left_out = of_one_path(networks, batches, names)
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
    return Correspondence([model_steps(*side) for side in zip(models, batches, engines, strict=True)], [])


def _of_modules(
    networks: Sequence[Any], batches: Sequence[np.ndarray], names: Sequence[EngineName], limit: float
) -> Correspondence:
    """The steps of two modules that correspond: by their names, in their order, or by what they give and are."""
    one, other = (own_steps(*side) for side in zip(networks, batches, names, strict=True))
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
        one, other = (own_steps(*side) for side in zip(networks, batches, names, strict=True))
    except ConversionError as error:  # a model in Julia that is no chain
        return Correspondence([[], []], [f"there are no steps: {error.given}"])
    found = matched(one, other, limit)
    if not found[0]:
        return Correspondence(
            found, ["there are no steps: no layer of one corresponds to one of the other; see pairs="]
        )
    return Correspondence(found, [f"layers were matched by what they give and are: {reason}"])


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
        found = {step.name: step for step in own_steps(network, x, backend)}
    except ConversionError:  # a model in Julia that is no chain
        found = {}
    if not isinstance(network, Graph) and not set(wanted) <= set(found):
        with suppress(UDLBridgeError):
            found |= {step.name: step for step in node_steps(network, x, backend)}
    return found
