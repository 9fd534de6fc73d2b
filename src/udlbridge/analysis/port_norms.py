"""Mistakes that norms are known for: another epsilon, one that is added elsewhere, a variance with a correction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from udlbridge.analysis.port_sides import SAMPLES, Side, Trial
from udlbridge.networks.graphs.node import Node


def norm_trials(side: Side, node: Node, own: str, targets: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Other epsilons, such that one of the `targets` comes out, or elsewhere; and other statistics."""
    here, other = node.attributes["epsilon"], "second" if own == "first" else "first"
    for epsilon in _epsilons(side, node, targets):
        told = (f"{here:.6g}", f"{epsilon:.6g}") if own == "first" else (f"{epsilon:.6g}", f"{here:.6g}")
        words = f"the epsilon of the norm is {told[0]} in the first, {told[1]} in the second"
        if side.against == "julia" and node.op == "layer_norm" and epsilon and abs(here**2 / epsilon - 1) < 1e-3:
            words += ", its square: LayerNorm of Flux, up to 0.16.10, adds the square of its epsilon to the variance"
        yield Trial(f"epsilon {epsilon}", words, _with_epsilon(node, epsilon))
    if node.op == "layer_norm":
        if node.inputs[0] not in side.values:
            return
        for correction, outside in ((1, False), (0, True), (1, True)):
            told_variance = "the variance with Bessel's correction (n - 1)" if correction else ""
            told_epsilon = "epsilon added to the deviation, not to the variance" if outside else ""
            words = f"the {other} takes {' and '.join(filter(None, (told_variance, told_epsilon)))}"
            yield Trial(words, words, {node.name: _written_out(side, node, correction, outside)})
    if node.op == "batch_norm":
        variance = side.graph.buffers.get(node.inputs[2], side.graph.params.get(node.inputs[2]))
        if variance is None:
            return
        root = np.sqrt(np.maximum(variance, 0))
        for words, changed in (
            (f"the {other} divides by the variance, the {own} by its root", (variance + here) ** 2 - here),
            (f"the {other} divides by the variance without an epsilon, the {own} by its root", variance**2 - here),
            (f"the {other} adds epsilon to the deviation, the {own} to the variance", (root + here) ** 2 - here),
            (f"the {other} has no epsilon", variance - here),
        ):
            if (changed + here > 0).all():
                new = f"_tried.{node.name}.variance"
                inputs = (*node.inputs[:2], new, *node.inputs[3:])
                yield Trial(words, words, {node.name: (replace(node, inputs=inputs),)}, {new: changed})


def _with_epsilon(node: Node, epsilon: float) -> dict[str, tuple[Node, ...]]:
    return {node.name: (replace(node, attributes={**node.attributes, "epsilon": epsilon}),)}


def _epsilons(side: Side, node: Node, targets: Sequence[np.ndarray]) -> list[float]:
    """The epsilons with which the norm might give each of some values, from the entry that shows it best.

    With p the norm's value less its shift, (p(e) / p(e'))^2 = (v + e') / (v + e): two epsilons say what v is there,
    and the target then what its epsilon is. Rounded ones come first.
    """
    here = float(node.attributes["epsilon"])
    shown = [side.again(Trial("", "", _with_epsilon(node, e)), node.name) for e in (here, here + 1.0, 1e200)]
    mine, more, shift = shown
    if mine is None or more is None or shift is None or side.graph.dtype == np.float32:
        return [e for e in (1e-3, 1e-5, 1e-6, 1e-8, 1e-12, here**2, here**0.5) if e != here]
    found: dict[float, None] = {}
    with np.errstate(all="ignore"):
        ratio = ((mine - shift) / (more - shift)) ** 2
        variance = (here + 1.0 - ratio * here) / (ratio - 1.0)
        for target in targets:
            few = target[:SAMPLES]
            if few.shape != mine.shape:
                continue
            every = ((mine - shift) / (few - shift)) ** 2 * (variance + here) - variance
            place = np.nanargmax(np.where(np.isfinite(every), np.abs(few - mine), -1.0))
            value = float(every.ravel()[place])
            if np.isfinite(value) and value > -1e-9:
                found |= dict.fromkeys([float(f"{max(value, 0.0):.{digits}g}") for digits in (1, 2, 3, 6)] + [value])
    return [e for e in found if e >= 0 and e != here]


def _written_out(side: Side, node: Node, correction: int, outside: bool) -> tuple[Node, ...]:
    """A norm over the last axes by simpler operations."""
    x, *others = node.inputs
    count = side.values[x].ndim
    axes = {"axes": tuple(range(count - node.attributes["axes"], count)), "keep": True}
    added: list[Node] = []

    def add(op: str, *inputs: str, **attributes: object) -> str:
        added.append(Node(f"{node.name}.{len(added)}", op, inputs, attributes, node.source))
        return added[-1].name

    epsilon = add("fill", shape=(), value=node.attributes["epsilon"])
    centred = add("subtract", x, add("mean", x, **axes))
    variance = add("variance", x, correction=correction, **axes)
    root = add("add", add("sqrt", variance), epsilon) if outside else add("sqrt", add("add", variance, epsilon))
    y = add("divide", centred, root)
    for op, other in zip(("multiply", "add"), others, strict=False):
        y = add(op, y, other)
    return (*added[:-1], replace(added[-1], name=node.name))
