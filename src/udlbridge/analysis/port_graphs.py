"""Two networks as graphs, side by side: the first node after which they part, and which known mistake it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.analysis.node_values import samples_that_fit
from udlbridge.analysis.port_hints import Step, differing_arrays
from udlbridge.analysis.port_matching import agreeing, alike_in_order
from udlbridge.analysis.port_sides import SAMPLES, Side, Trial
from udlbridge.analysis.port_trials import trials
from udlbridge.conversion.translating import as_graph
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.operations import OPERATIONS
from udlbridge.texts import counted
from udlbridge.tolerances import relative_difference
from udlbridge.words import EngineName

EXAMPLES = 3
"""How many samples a network is shown that becomes a graph."""

MOST_CHANGES = 100
"""How many mistakes are looked for, one after the other, each with those before it mended."""

SIDES = ("first", "second")


@dataclass(frozen=True)
class GraphComparison:
    """The steps that correspond, in order, up to where they part equal; hints; and whether a mistake explains it."""

    steps: list[list[Step]]
    hints: list[str]
    explained: bool


@dataclass(frozen=True)
class _Found:
    """A mistake: whose node, what is changed there, and the other side's node that then agrees, if it is known."""

    own: int
    node: str
    trial: Trial
    partner: str | None


@dataclass(frozen=True)
class _State:
    """Which nodes of two sides agree, {name in the first: name in the second}, and of both those that do not."""

    sides: tuple[Side, Side]
    pairs: dict[str, str]
    apart: tuple[list[str], list[str]]

    def first_apart(self, index: int) -> list[str]:
        """The nodes that nothing comes to which is apart, among those with a row of numbers for each sample."""
        side, shown = self.sides[index], [name for name in self.apart[index] if name in self.sides[index].values]
        behind = side.after(shown)
        return [name for name in shown if name not in behind]


def compare_graphs(
    networks: Sequence[Any], batches: Sequence[np.ndarray], engines: Sequence[EngineName], limit: float
) -> GraphComparison:
    """Two networks of any kind, node by node.

    Values say which nodes correspond. A node is apart where neither it nor what comes of it agrees with any of the
    other network: so it does not matter how two write the same down. The first that is apart, with nothing apart
    before it, is where they part; known mistakes are tried on it until one gives what the other network has. That is
    taken over, and the next is looked for.

    Raises:
        UDLBridgeError: a network cannot be taken as a graph.
    """
    graphs = [as_graph(network, batch[:EXAMPLES]) for network, batch in zip(networks, batches, strict=True)]
    few = min(samples_that_fit(graph, len(batches[0])) for graph in graphs)
    one, other = (Side.of(graphs[k], batches[k][:few], engines[k], against=engines[1 - k]) for k in (0, 1))
    state = _state((one, other), limit)
    found = _mistake(state, limit, ())
    if found is None:
        return GraphComparison(_steps(state, found, {}, networks), _unexplained(state), explained=False)
    hints, mended = _told(state, found, limit)
    return GraphComparison(_steps(state, found, mended.pairs, networks), hints, explained=True)


def _state(sides: tuple[Side, Side], limit: float) -> _State:
    listed = [[Step(name, name, value, None, {}) for name, value in side.values.items()] for side in sides]
    names = [list(side.values) for side in sides]
    numbers, _ = agreeing(listed[0], listed[1], limit)
    pairs = {names[0][i]: names[1][j] for i, j in numbers.items()}
    ends = [side.values.get(side.graph.output) for side in sides]
    one, other = ends
    same = one is not None and other is not None and one.shape == other.shape
    if same and relative_difference(one, other) <= limit:  # type: ignore[arg-type]
        return _State(sides, pairs, ([], []))  # what has no partner changes nothing
    return _State(sides, pairs, (_apart(sides[0], set(pairs)), _apart(sides[1], set(pairs.values()))))


def _apart(side: Side, agreeing_ones: set[str]) -> list[str]:
    """The nodes that depend on the samples, and neither agree nor have anything come of them that does."""
    well = set(agreeing_ones)
    for node in reversed(side.graph.nodes):
        if node.name in well:
            well.update(node.inputs)
    return [node.name for node in side.graph.nodes if node.name in side.moving and node.name not in well]


def _mistake(state: _State, limit: float, kinds: Sequence[str]) -> _Found | None:
    """The known mistake that explains where two sides part; those of some kinds are tried first."""
    for own in (0, 1):
        side = state.sides[own]
        there = {
            name: value for name in state.apart[1 - own] if (value := state.sides[1 - own].values.get(name)) is not None
        }
        for goal in state.first_apart(own):
            hidden = [name for name in side.feeding(goal)[1:] if name in side.moving]
            for name in (goal, *hidden):
                targets = [value for value in there.values() if value.shape == side.values[goal].shape]
                listed = list(trials(side, name, SIDES[own], targets))
                for trial in sorted(listed, key=lambda trial: trial.kind not in kinds):
                    if (found := _explains(side, trial, goal, there, limit)) is not None:
                        return _Found(own, goal, trial, None if trial.beyond else found)
    return None


def _explains(side: Side, trial: Trial, goal: str, there: dict[str, np.ndarray], limit: float) -> str | None:
    """The node of the other side that agrees with what a change gives, of those that did not."""
    for name in side.shown_after(goal)[:2] if trial.beyond else [goal]:
        candidates = {other: value for other, value in there.items() if value.shape == side.values[name].shape}
        if not candidates:
            continue
        value = side.again(trial, name)
        if value is None:
            continue
        for other, wanted in candidates.items():
            few = wanted[:SAMPLES]
            if few.shape == value.shape and np.abs(few).max(initial=0.0) and relative_difference(value, few) <= limit:
                return other
    return None


def _told(state: _State, found: _Found, limit: float) -> tuple[list[str], _State]:
    """The mistake in words, and those that come to light when it is mended; and the sides with all of them mended."""
    hints, more = [found.trial.words], [found]
    places: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    now: _Found | None = found
    while now is not None and len(more) < MOST_CHANGES:
        sides = list(state.sides)
        sides[now.own] = sides[now.own].changed(now.trial)
        before, state = state, _state((sides[0], sides[1]), limit)
        if len(state.apart[now.own]) >= len(before.apart[now.own]):
            break  # it has not helped
        now = _mistake(state, limit, [known.trial.kind for known in more])
        if now is not None:
            more.append(now)
            places.setdefault(now.trial.kind, []).append(_described(sides[now.own], now.node))
            words.setdefault(now.trial.kind, now.trial.words)
    if len(more) > 1:
        told = [_at_places(words[kind], places[kind], known=kind == found.trial.kind) for kind in words]
        hints.append(f"with that mended, {counted(len(more) - 1, 'more difference')}: {'; '.join(told)}")
    if not state.apart[0] and not state.apart[1]:
        hints.append(f"with {'this' if len(more) == 1 else f'these {len(more)}'} mended, the two agree")
    elif now is None:
        ends = [_described(side, next(iter(state.first_apart(k)), None)) for k, side in enumerate(state.sides)]
        hints.append(f"with this mended, they part at {ends[0]}, {ends[1]} in the second, for another reason")
    return hints, state


def _at_places(words: str, places: Sequence[str], *, known: bool) -> str:
    """A mistake that was found at some places, in words; of one that is `known` already, the places alone."""
    further = places if known else places[1:]
    same = f"the same at {', '.join(further)}" if further else ""
    return same if known else "; ".join(filter(None, (words, same)))


def _described(side: Side, name: str | None) -> str:
    return "no node" if name is None else _place(side, side.by_name[name]) or name


def _unexplained(state: _State) -> list[str]:
    """What is to be seen where no known mistake explains it."""
    firsts = [next(iter(state.first_apart(k)), None) for k in (0, 1)]
    if None in firsts:
        return []
    nodes = [side.by_name[name] for side, name in zip(state.sides, firsts, strict=True) if name is not None]
    one, two = nodes
    found = []
    if one.op == two.op:
        settings = [{key: node.attributes[key] for key in node.attributes} for node in nodes]
        differing = [key for key in settings[0] if settings[0][key] != settings[1].get(key)]
        found += [
            f"the settings differ: {key} is {settings[0][key]} in the first, {settings[1].get(key)} in the second"
            for key in differing
        ]
        arrays = [side.arrays_of(node.name) for side, node in zip(state.sides, nodes, strict=True)]
        found += differing_arrays(*arrays)
    if not found:
        words = [_node_words(side, node) for side, node in zip(state.sides, nodes, strict=True)]
        found.append(f"no known mistake explains where they part: {words[0]} in the first, {words[1]} in the second")
    return found


def _node_words(side: Side, node: Node) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in node.attributes.items())
    return f"{_place(side, node) or node.name} ({node.op}{': ' if settings else ''}{settings})"


def _place(side: Side, node: Node) -> str:
    """The path that a node comes from: that of its parameters, where they are of one module inside its source."""
    paths = {name.rpartition(".")[0] for name in side.arrays_of(node.name)}
    path = paths.pop() if len(paths) == 1 else ""
    return path if path.startswith(node.source) and path else node.source


def graph_words(node: Node) -> str:
    """What a node of a graph is called that somebody gives: by its own name."""
    return f"{node.name} ({node.op}{f' in {node.source}' if node.source else ''})"


def _words(side: Side, network: Any) -> dict[str, str]:
    """What every node is called: by its place, and its own name where two are of one place and operation."""
    nodes = [node for node in side.graph.nodes if node.name in side.values]
    if isinstance(network, Graph):
        return {node.name: graph_words(node) for node in nodes}
    found = {node.name: (_place(side, node) or node.name, node.op) for node in nodes}
    many = Counter(found.values())
    return {name: f"{place} ({op}{f', {name}' if many[place, op] > 1 else ''})" for name, (place, op) in found.items()}


def node_steps(network: Any, x: np.ndarray, engine: EngineName) -> list[Step]:
    """What the nodes of a network's graph give, by their names.

    Raises:
        UDLBridgeError: it cannot be taken as a graph.
    """
    side = Side.of(as_graph(network, x[:EXAMPLES]), x, engine, engine)
    words = _words(side, network)
    return [_as_step(side, name, words[name]) for name in side.values]


def _steps(state: _State, found: _Found | None, mended: Mapping[str, str], networks: Sequence[Any]) -> list[list[Step]]:
    """The pairs of nodes for a table: those that agree, that where they part, and then those that are alike.

    `mended`: the pairs that agree once known mistakes are mended.
    """
    one, other = state.sides
    place = {name: number for number, name in enumerate(one.values)}
    apart = [
        [name for name in names if name in side.values] for side, names in zip(state.sides, state.apart, strict=True)
    ]
    moved = {name for name in place if OPERATIONS[one.by_name[name].op].moves and name != one.graph.output}
    rows = [(name, twin) for name, twin in state.pairs.items() if name not in moved]
    parted = _parted(state, found)
    if parted is not None:
        rows.append(parted)
        taken = [{row[k] for row in rows} for k in (0, 1)]
        then = [
            (name, twin)
            for name, twin in mended.items()
            if name not in moved
            and name in apart[0]
            and twin in apart[1]
            and name not in taken[0]
            and twin not in taken[1]
            if one.values[name].shape == other.values[twin].shape
        ]
        rows += then
        rest = [
            [
                _as_step(side, name)
                for name in names[(names.index(name_apart) + 1 if name_apart in names else 0) :]
                if name not in {row[k] for row in then}
            ]
            for k, (side, names, name_apart) in enumerate(zip(state.sides, apart, parted, strict=True))
        ]
        rows += alike_in_order(*rest).items()
    rows.sort(key=lambda row: place[row[0]])
    words = [_words(side, network) for side, network in zip(state.sides, networks, strict=True)]
    return [
        [_as_step(one, name, words[0][name]) for name, _ in rows],
        [_as_step(other, name, words[1][name]) for _, name in rows],
    ]


def _parted(state: _State, found: _Found | None) -> tuple[str, str] | None:
    """The two nodes after which the networks part, the first's and the second's; None where there are no such two."""
    if found is not None and found.partner is not None:
        return (found.node, found.partner) if found.own == 0 else (found.partner, found.node)
    if found is not None and found.trial.instead is not None:  # it stands beside what the other has without it
        twins = state.pairs if found.own == 0 else {twin: name for name, twin in state.pairs.items()}
        if (twin := twins.get(found.trial.instead)) is not None:
            return (found.node, twin) if found.own == 0 else (twin, found.node)
    values = [side.values for side in state.sides]
    theirs = [name for name in state.apart[1] if name in values[1]]
    starts = state.first_apart(1)
    for name in [*state.first_apart(0), *(name for name in state.apart[0] if name in values[0])]:
        fitting = [other for other in theirs if values[1][other].shape == values[0][name].shape]
        if not fitting:
            continue
        op = state.sides[0].by_name[name].op
        same = [other for other in fitting if other in starts and state.sides[1].by_name[other].op == op]
        return name, min(same or fitting, key=lambda other: relative_difference(values[0][name], values[1][other]))
    return None


def _as_step(side: Side, name: str, words: str = "") -> Step:
    node = side.by_name[name]
    return Step(
        name, words or name, side.values[name], None, side.arrays_of(name), kind=node.op, path=_place(side, node)
    )
