"""Whether one network is a port of another: both run on the same samples, and are compared step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import attrs
import numpy as np

from udlbridge import backends
from udlbridge.errors import DTypeError, ShapeError
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.inputs import check_model, checked_batch, output_size
from udlbridge.networks.layers import Activation, Conv1d, Conv2d, Dense, Dropout, Layer
from udlbridge.networks.model import Model
from udlbridge.reports import json_ready
from udlbridge.tolerances import budget, relative_difference


@dataclass(frozen=True)
class StepComparison:
    """How far two networks are apart behind one step, relative to the largest number there.

    `first` and `second` say what the step is in each. `difference` is None where the two do not have the same shape.
    """

    first: str
    second: str
    difference: float | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class PortReport:
    """What `compare_models` found. Prints as a table.

    `steps`: behind every layer, and behind its activation by itself. `parted`: the number of the first step behind
    which the two differ by more than `budget`, else None. `outputs` and `kernel`: how far f(x) and the kernel are
    apart, None where shapes differ. `hints`: what is known of the reason.
    """

    steps: tuple[StepComparison, ...]
    parted: int | None
    outputs: float | None
    kernel: float | None
    hints: tuple[str, ...]
    budget: float
    dtype: str
    n: int
    backend: str

    @property
    def ok(self) -> bool:
        """Whether outputs and kernels agree within the budget."""
        return all(gap is not None and gap <= self.budget for gap in (self.outputs, self.kernel))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data; a difference that is not finite is None."""
        return {**json_ready(self), "ok": self.ok}

    def __str__(self) -> str:
        width = max((len(step.first) for step in self.steps), default=4)
        lines = [f"{'behind':<{width + 5}}  difference"]
        for index, step in enumerate(self.steps):
            gap = "another shape" if step.difference is None else f"{step.difference:.2e}"
            other = "" if step.first == step.second else f"  ({step.second} in the second)"
            mark = "  <- they part here" if index == self.parted else ""
            lines.append(f"{index:>3}  {step.first:<{width}}  {gap}{other}{mark}")
        for what, found in (("outputs", self.outputs), ("kernel", self.kernel)):
            words = "not comparable" if found is None else f"{found:.2e} {'ok' if found <= self.budget else 'DIFF'}"
            lines.append(f"     {what:<{width}}  {words}")
        verdict = "the same network" if self.ok else "NOT the same network"
        lines.append(f"{verdict}: budget {self.budget:.0e} ({self.dtype}, n = {self.n}, on {self.backend})")
        return "\n".join([*lines, *self.hints])


def compare_models(first: Model, second: Model, x: np.ndarray, *, backend: str | None = None) -> PortReport:
    """Say whether two networks are the same function with the same kernel, and if not, behind which layer they part.

    Every network runs by itself, layer after layer, and an activation is a step of its own; so a layer that comes with
    its activation may be compared with one that has it behind. Layers that change nothing (Dropout, identity) are left
    out.

    Args:
        first, second: the networks, of the same dtype; as two files that `Model.load` reads, one of them from Julia.
        x: samples (n, *D) that both take.
        backend: the engine that evaluates both; None is the default one.

    Returns:
        A frozen report: `.ok`, `.parted`, `.hints`, and a table when printed.

    Raises:
        DTypeError: one network is float32, the other float64.
        InputError, ShapeError: what is wrong with `x`.
        UnknownBackend, BackendUnavailable: what is wrong with `backend`.
    """
    for network in (first, second):
        check_model(network)
    if first.dtype != second.dtype:
        raise DTypeError(
            f"networks of dtype {first.dtype} and {second.dtype}",
            allowed="two of the same dtype",
            remedy=f'second.astype("{first.dtype}")',
        )
    batch = checked_batch(first, x)
    checked_batch(second, x)
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    limit = budget(first.dtype)
    own, other = _steps(first), _steps(second)
    steps, hints = [], []
    parted: int | None = None
    h = [batch, batch]
    for index, pair in enumerate(zip(own, other, strict=False)):
        h = [backends.get(name).outputs(step, value) for step, value in zip(pair, h, strict=True)]
        same = h[0].shape == h[1].shape
        gap = relative_difference(h[0], h[1]) if same else None
        words = [_describe(step.layers[0]) for step in pair]
        steps.append(StepComparison(words[0], words[1], gap, (h[0].shape[1:], h[1].shape[1:])))
        if parted is None and (gap is None or not gap <= limit):
            parted = index
            hints += _hints(*pair)
        if not same:
            hints.append(f"behind step {index} one has the shape {h[0].shape[1:]}, the other {h[1].shape[1:]}")
            break
    if len(own) != len(other):
        hints.append(f"the first has {len(own)} steps, the second {len(other)}")
    return PortReport(
        steps=tuple(steps),
        parted=parted,
        outputs=_gap([backends.get(name).outputs(model, batch) for model in (first, second)]),
        kernel=_kernel_gap(first, second, batch, name),
        hints=tuple(hints),
        budget=limit,
        dtype=first.dtype.name,
        n=len(batch),
        backend=name,
    )


def _gap(values: list[np.ndarray]) -> float | None:
    return relative_difference(values[0], values[1]) if values[0].shape == values[1].shape else None


def _kernel_gap(first: Model, second: Model, x: np.ndarray, backend: str) -> float | None:
    """The gap of the traces; None for networks that have no kernel, as their outputs are not vectors."""
    try:
        output_size(first, x.shape[1:]), output_size(second, x.shape[1:])
    except ShapeError:
        return None
    return _gap([ntk(model, x, backend=backend) for model in (first, second)])


def _steps(model: Model) -> list[Model]:
    """A network of one layer for every layer and for every activation, without those that change nothing."""
    found = []
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Dropout) or (isinstance(layer, Activation) and layer.activation == "identity"):
            continue
        arrays = {f"0.{name}": value for name, value in model.layer_arrays(index).items()}
        activation = "identity"
        if isinstance(layer, Dense | Conv1d | Conv2d):
            activation, layer = layer.activation, attrs.evolve(layer, activation="identity")
        found.append(Model([layer], arrays, dtype=model.dtype.name))
        if activation != "identity":
            found.append(Model([Activation(activation)], {}, dtype=model.dtype.name))
    return found


def _describe(layer: Layer) -> str:
    """The layer's kind and its settings, without those that are as by default and those that hold layers."""
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


def _hints(first: Model, second: Model) -> list[str]:
    """What is known of the reason why two steps differ, from their settings and arrays."""
    found = []
    if first.layers[0] != second.layers[0]:
        found.append(f"the layers themselves differ: {_describe(first.layers[0])}, {_describe(second.layers[0])}")
    for name, value in first.arrays.items():
        other = second.arrays.get(name)
        if other is None or other.shape != value.shape:
            continue
        gap = relative_difference(value, other)
        if gap <= budget(first.dtype):
            continue
        words = f"{name.removeprefix('0.')} differs by {gap:.2e} of its largest entry"
        reasons = [
            reason
            for reason, changed in _changes(other)
            if changed.shape == value.shape and relative_difference(value, changed) <= budget(first.dtype)
        ]
        found.append(words + "".join(f"; it is equal when {reason}" for reason in reasons))
    if not found:
        found.append("settings and arrays of this step are equal: the difference comes from before it, or is rounding")
    return found


def _changes(value: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Mistakes that ports are known for, with an array as it would be without them."""
    spatial = tuple(range(2, value.ndim))
    found = []
    if value.ndim == 2:
        found.append(("transposed", value.T))
    if spatial:
        found.append(("flipped: Flux's Conv flips its kernel, CrossCor does not", np.flip(value, spatial)))
    if len(spatial) == 2:
        found.append(("height and width change places", value.swapaxes(2, 3)))
        found.append(("flipped, and height and width change places", np.flip(value, spatial).swapaxes(2, 3)))
    found.append(("its sign changes", -value))
    return found
