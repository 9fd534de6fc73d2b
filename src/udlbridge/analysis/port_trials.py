"""Mistakes that ports are known for, as changes of a node: which of them makes two networks equal there?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from udlbridge.analysis.port_hints import AXES, changes, column_orders
from udlbridge.analysis.port_norms import norm_trials
from udlbridge.analysis.port_sides import Side, Trial
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.values import PerSample

ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "relu": ("relu", {}),
    "GELU in the erf form": ("gelu", {"form": "erf"}),
    "GELU in the tanh form": ("gelu", {"form": "tanh"}),
    "SiLU (swish)": ("silu", {}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "leaky relu with slope 0.01": ("leaky_relu", {"slope": 0.01}),
    "leaky relu with slope 0.2": ("leaky_relu", {"slope": 0.2}),
    "ELU": ("elu", {"alpha": 1.0, "scale": 1.0}),
    "SELU": ("selu", {}),
    "softplus": ("softplus", {"beta": 1.0, "threshold": float("inf")}),
    "mish": ("mish", {}),
    "softsign": ("softsign", {}),
    "relu6": ("hardtanh", {"low": 0.0, "high": 6.0}),
    "hardtanh": ("hardtanh", {"low": -1.0, "high": 1.0}),
    "hardsigmoid": ("hardsigmoid", {}),
    "hardswish": ("hardswish", {}),
    "logsigmoid": ("logsigmoid", {}),
}
"""Activations by what they are called, as operations with their usual settings."""

FORMS = {name for name, _ in ACTIVATIONS.values()}
REDUCTIONS = ("sum", "mean", "max", "min")


def trials(side: Side, name: str, own: str, targets: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Changes of a node, the likely ones first. `own` is "first" or "second"; `targets` are what it may have to give.

    The words say how the two sides differ.
    """
    node = side.by_name[name]
    yield from _of_settings(node, own)
    if node.op in ("layer_norm", "rms_norm", "group_norm", "batch_norm"):
        yield from norm_trials(side, node, own, targets)
    yield from _of_order(side, node, own)
    yield from _of_arrays(side, node, own)
    yield from _without(side, node, own)


def both(own: str, mine: str, theirs: str) -> str:
    """What the two have, the first first."""
    one, other = (mine, theirs) if own == "first" else (theirs, mine)
    return f"the first has {one}, the second {other}"


def _instead(kind: str, words: str, node: Node, *before: Node, **changed: Any) -> Trial:
    """With other settings or another operation, after further nodes."""
    return Trial(kind, words, {node.name: (*before, replace(node, **changed))})


def _of_settings(node: Node, own: str) -> Iterator[Trial]:
    """Other settings, and other operations that give values of the same shape."""
    settings = dict(node.attributes)
    if node.op in FORMS:
        yield from _of_activations(node, own)
    for flag, (on, off) in {
        "ceil_mode": ("sizes of the pool rounded up (ceil_mode)", "rounded down"),
        "count_padding": ("a mean that counts the padding", "one that does not"),
        "causal": ("attention that does not look ahead", "attention that looks everywhere"),
    }.items():
        if flag in settings:
            here, there = (on, off) if settings[flag] else (off, on)
            other = {**settings, flag: not settings[flag]}
            yield _instead(flag, both(own, here, there), node, attributes=other)
    if node.op in REDUCTIONS and len(node.inputs) == 1:
        kept = {"axes": settings["axes"], "keep": settings["keep"]}
        for op in REDUCTIONS:
            if op != node.op:
                ties = {"ties": "share"} if op in ("max", "min") else {}
                words = both(own, f"the {node.op} over the axes {settings['axes']}", f"the {op}")
                yield _instead("reduction", words, node, op=op, attributes={**kept, **ties})
    if node.op == "variance":
        words = both(own, f"a variance with correction {settings['correction']}", str(1 - settings["correction"]))
        yield _instead("correction", words, node, attributes={**settings, "correction": 1 - settings["correction"]})
    if node.op in ("max_pool", "mean_pool"):
        yield from _of_pools(node, own)
    if node.op in ("softmax", "log_softmax"):
        for axis in range(1, 4):
            if axis != settings["axis"]:
                words = both(own, f"{node.op} over axis {settings['axis']}", f"over axis {axis}")
                yield _instead("axis", words, node, attributes={"axis": axis})
        other_op = "log_softmax" if node.op == "softmax" else "softmax"
        yield _instead("softmax", both(own, node.op, other_op), node, op=other_op)
    if node.op == "attention":
        for scale in (1.0, settings["scale"] ** 2, settings["scale"] ** 0.5):
            words = both(own, f"attention with scale {settings['scale']:.4g}", f"{scale:.4g}")
            yield _instead("scale", words, node, attributes={**settings, "scale": scale})
    if node.op == "pad":
        for mode in ("constant", "reflect", "replicate", "circular"):
            if mode != settings["mode"]:
                words = both(own, f"padding of the mode {settings['mode']!r}", repr(mode))
                yield _instead("padding", words, node, attributes={**settings, "mode": mode})
    if node.op == "conv" and any(settings["padding"]):
        pads = ((0, 0), (0, 0), *((size, size) for size in settings["padding"]))
        for mode in ("reflect", "replicate", "circular"):
            padded = Node(f"{node.name}.padded", "pad", node.inputs[:1], {"pads": pads, "mode": mode, "value": 0.0})
            yield _instead(
                "padding", both(own, "padding of zeros", f"of the mode {mode!r}"), node, padded,
                inputs=(padded.name, *node.inputs[1:]),
                attributes={**settings, "padding": tuple(0 for _ in settings["padding"])},
            )  # fmt: skip


def _of_activations(node: Node, own: str) -> Iterator[Trial]:
    """Other activations."""
    mine = next((words for words, form in ACTIVATIONS.items() if form == (node.op, node.attributes)), node.op)
    gelu = mine.startswith("GELU")
    for words, (op, attributes) in sorted(ACTIVATIONS.items(), key=lambda item: gelu != item[0].startswith("GELU")):
        if (op, attributes) != (node.op, node.attributes):
            told = both(own, mine, words).replace(
                ", the second GELU in", ", the second in" if gelu else ", the second GELU in"
            )
            yield _instead("activation", told, node, op=op, attributes=attributes)
    if gelu:
        factor, scaled, gate = (f"{node.name}.{part}" for part in ("factor", "scaled", "gate"))
        before = (
            Node(factor, "fill", (), {"shape": (), "value": 1.702}),
            Node(scaled, "multiply", (node.inputs[0], factor)),
            Node(gate, "sigmoid", (scaled,)),
        )
        words = both(own, mine, "x sigmoid(1.702 x)")
        yield _instead("gelu", words, node, *before, op="multiply", inputs=(node.inputs[0], gate), attributes={})


def _of_pools(node: Node, own: str) -> Iterator[Trial]:
    """The largest for the mean, and the mean for the largest."""
    shared = {key: node.attributes[key] for key in ("kernel", "stride", "padding", "ceil_mode")}
    if node.op == "max_pool":
        for counts in (True, False):
            words = both(own, "a maximum of each window", "a mean")
            yield _instead("pool", words, node, op="mean_pool", attributes={**shared, "count_padding": counts})
    else:
        ones = {"dilation": tuple(1 for _ in shared["kernel"])}
        words = both(own, "a mean of each window", "a maximum")
        yield _instead("pool", words, node, op="max_pool", attributes={**shared, **ones})


def _of_order(side: Side, node: Node, own: str) -> Iterator[Trial]:
    """Axes, entries and operands in another order."""
    settings = node.attributes
    value = side.values.get(node.inputs[0]) if node.inputs else None
    other = "second" if own == "first" else "first"
    per_sample = node.op == "reshape" and settings["shape"] and settings["shape"][0] == PerSample()
    if per_sample and value is not None and 3 <= value.ndim <= 5:
        for axes in permutations(range(1, value.ndim)):
            if list(axes) == sorted(axes):
                continue
            if value.ndim == 4:
                order = f"({', '.join(AXES[a - 1] for a in axes)})", "(C, H, W)"
            else:
                order = str(axes), str(tuple(range(1, value.ndim)))
            turned = Node(f"{node.name}.turned", "permute", node.inputs, {"axes": (0, *axes)})
            words = f"the {other} flattens in the order {order[0]}, the {own} in {order[1]}"
            yield _instead("flatten", words, node, turned, inputs=(turned.name,))
    if node.op == "permute" and len(settings["axes"]) <= 5:
        for axes in permutations(settings["axes"]):
            if axes != settings["axes"]:
                words = both(own, f"axes in the order {settings['axes']}", f"in the order {axes}")
                yield _instead("permute", words, node, attributes={"axes": axes})
    if node.op == "concatenate" and 2 <= len(node.inputs) <= 4:
        for places in permutations(range(len(node.inputs))):
            if list(places) != sorted(places):
                words = (
                    f"the {other} puts the parts one after the other in the order {places}, counted from 0 in the {own}"
                )
                yield _instead("concatenate", words, node, inputs=tuple(node.inputs[k] for k in places))
    if node.op in ("subtract", "divide"):
        sign = "-" if node.op == "subtract" else "/"
        yield _instead("operands", both(own, f"a {sign} b", f"b {sign} a"), node, inputs=node.inputs[::-1])
    if node.op == "slice" and value is not None and settings["stop"] - settings["start"] == 1:
        size = value.shape[settings["axis"]]
        for place in {0, size - 1} - {settings["start"]}:
            words = both(own, f"entry {settings['start']} of axis {settings['axis']}, of {size}", f"entry {place}")
            yield _instead("entry", words, node, attributes={**settings, "start": place, "stop": place + 1})


def _of_arrays(side: Side, node: Node, own: str) -> Iterator[Trial]:
    """Parameters and buffers as mistakes make them."""
    other = "second" if own == "first" else "first"
    for name, array in side.arrays_of(node.name).items():
        if array.dtype.kind != "f":
            continue
        found = [*changes(name, array, own, other), *column_orders(array, _flattened(side, node), own, other)]
        if node.op in ("linear", "conv", "conv_transpose", "add"):
            found.append((f"left out, as the {other} does", np.zeros_like(array)))
        for number, (reason, changed) in enumerate(found):
            if changed.shape == array.shape and np.array_equal(changed, array):
                continue
            new = f"_tried.{node.name}.{name}.{number}"
            nodes = {
                part: (replace(old, inputs=tuple(new if one == name else one for one in old.inputs)),)
                for part in side.feeding(node.name)
                if name in (old := side.by_name[part]).inputs
            }
            words = f"{name} of the {own} differs from what the {other} has; it is equal when {reason}"
            yield Trial(reason, words, nodes, {new: np.ascontiguousarray(changed)})


def _flattened(side: Side, node: Node) -> tuple[int, ...] | None:
    """The shape of the image that a node's input was before it was flattened."""
    before = side.by_name.get(node.inputs[0]) if node.inputs else None
    while before is not None and before.op == "reshape":
        value = side.values.get(before.inputs[0])
        if value is not None and value.ndim == 4:
            return value.shape[1:]
        before = side.by_name.get(before.inputs[0])
    return None


def _without(side: Side, node: Node, own: str) -> Iterator[Trial]:
    """Nothing in its place."""
    mine = side.values.get(node.name)
    if mine is None or node.op in ("reshape", "permute", "expand"):
        return
    other = "second" if own == "first" else "first"
    for name in dict.fromkeys(node.inputs):
        value = side.values.get(name)
        if value is not None and value.shape == mine.shape:
            words = f"the {other} leaves something out that the {own} has: {node.op}"
            same = Node(node.name, "reshape", (name,), {"shape": (PerSample(), *mine.shape[1:])}, node.source)
            yield Trial("without", words, {node.name: (same,)}, beyond=True, instead=name)
