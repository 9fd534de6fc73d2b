"""Whether one network is a port of another: both run on the same samples, and are compared step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.analysis.port_hints import hints_of
from udlbridge.analysis.port_pairs import Correspondence, steps_of_both
from udlbridge.analysis.spectra import spectrum
from udlbridge.displays import Displayed, draw
from udlbridge.errors import ConversionError, DTypeError, ShapeError
from udlbridge.kernels.derivatives import input_jacobian
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.request import as_network, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples, is_module, output_size
from udlbridge.networks.model import Model
from udlbridge.reports import json_ready
from udlbridge.texts import counted
from udlbridge.tolerances import budget, relative_difference
from udlbridge.words import EngineName, EngineWord


@dataclass(frozen=True)
class StepComparison:
    """How far two networks are apart after one step, relative to the largest number there.

    `first` and `second` say what the step is in each. `difference` is None where the two do not have the same shape.
    """

    first: str
    second: str
    difference: float | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, repr=False)
class PortReport(Displayed):
    """What `compare_models` found. Prints as a table.

    `steps`: after every layer, and after its activation by itself. `parted`: the number of the first step after
    which the two differ by more than `budget`, else None. `outputs`, `kernel`, its
    `eigenvalues` and `input_jacobian`: how far these are apart; None where shapes differ, and of Jacobians where
    samples are tokens. `hints`: what is known of the reason.

    Examples:
        >>> first, second = (ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], seed=seed) for seed in (0, 1))
        >>> report = ub.compare_models(first, second, np.eye(2, dtype=np.float32))
        >>> report.ok, report.parted, report.as_rows()[0]["first"]
        (False, 0, 'dense(2, 3)')
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
    eigenvalues: float | None = None
    input_jacobian: float | None = None

    @property
    def ok(self) -> bool:
        """Whether outputs and kernels agree within the budget, and input Jacobians where there are any."""
        jacobians = self.outputs if self.input_jacobian is None else self.input_jacobian
        return all(gap is not None and gap <= self.budget for gap in (self.outputs, self.kernel, jacobians))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data; a difference that is not finite is None."""
        return {**json_ready(self), "ok": self.ok}

    def __str__(self) -> str:
        width = max([len("eigenvalues"), *(len(step.first) for step in self.steps)])
        lines = [f"{'after':<{width + 5}}  difference"]
        for index, step in enumerate(self.steps):
            gap = "another shape" if step.difference is None else f"{step.difference:.2e}"
            other = "" if step.first == step.second else f"  ({step.second} in the second)"
            mark = "  <- the first difference" if index == self.parted else ""
            lines.append(f"{index:>3}  {step.first:<{width}}  {gap}{other}{mark}")
        for what, found in self._whole().items():
            words = "not comparable" if found is None else f"{found:.2e} {'ok' if found <= self.budget else 'DIFF'}"
            lines.append(f"     {what:<{width}}  {words}")
        return "\n".join([*lines, self.headline(), *self.hints])

    def headline(self) -> str:
        """The verdict."""
        verdict = "the same network" if self.ok else "NOT the same network"
        return f"{verdict}: budget {self.budget:.0e} ({self.dtype}, n = {self.n}, on {self.backend})"

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [
            {"step": index, "first": step.first, "second": step.second, "difference": step.difference}
            for index, step in enumerate(self.steps)
        ] + [
            {"step": None, "first": what, "second": what, "difference": found} for what, found in self._whole().items()
        ]

    def _whole(self) -> dict[str, float | None]:
        """Differences of the networks as wholes."""
        return {
            "outputs": self.outputs,
            "kernel": self.kernel,
            "eigenvalues": self.eigenvalues,
            "d f / d x": self.input_jacobian,
        }

    def plot(self, ax: Any = None) -> Any:
        """Differences after every layer with the budget, on `ax` or a new figure; returns the Axes."""
        return draw("reports:draw_port", ax, self)


def compare_models(
    first: Model | Any,
    second: Model | Any,
    x: Any,
    *,
    pairs: Mapping[str, str] | None = None,
    backend: EngineWord | None = None,
    output: Any = None,
) -> PortReport:
    """Say whether two networks are the same function with the same kernel, and if not, after which layer they differ.

    Every network runs by itself, layer after layer, and an activation is a step of its own; so a layer that comes with
    its activation may be compared with one that is followed by it. Layers that change nothing (Dropout, identity) are
    left out.

    The networks may be of any kind, in any pair: a `Model`, a `Graph`, a `torch.nn.Module`, a model in Julia
    (`udlbridge.julia_model`, or an object of juliacall). The steps of two modules are the innermost modules that they
    call, paired by path, or in the order of their calls where kinds and shapes are the same; those of two graphs that
    are built alike are their nodes, whatever the names; a graph and a module are compared after the calls of submodules
    that the graph's nodes come from; and two of other kinds as two `Model`s where both have that translation.

    Where these do not show why the networks part, and where there are none, both are taken as graphs, and compared
    node by node: values say which correspond, and how each network writes the same down does not matter. Then
    mistakes that ports are known for are tried on the first node that is apart, with nothing apart before it, until one
    gives what the other network has. With that one mended the next is looked for, and `hints` name them. A step is
    named by the path of the module or the layer that its node comes from. Where a network has no translation into a
    graph either, layers are matched by what they give and are, and a hint says so. Of samples that are too many to hold
    what all nodes give, the first are taken for this; outputs, kernels and Jacobians are those of all.

    Args:
        first, second: the networks, of the same dtype; as two files that `Model.load` reads, one of them from Julia.
        x: samples (n, *D) that both take; a model in Julia gets them with the samples last (`udlbridge.as_network`).
        pairs: which steps correspond, {name in the first: name in the second}, in the order of the table. The name of a
            step of a module is its path, that of a layer its number, "0" or "1.2", and that of a node its own, as in
            `from_torch(module, x).nodes`.
        backend: the engine that evaluates a `Model` or a `Graph`; None is the default one. A module is always evaluated
            by torch, a model in Julia by Julia.
        output: which of the outputs of a module counts, as for `udlbridge.as_network`; of both, where both are modules.

    Returns:
        A frozen report: `.ok`, `.parted`, `.hints`, and a table when printed.

    Raises:
        DTypeError: one network is float32, the other float64.
        InputError, ShapeError: what is wrong with `x`.
        OptionError: `pairs` name a step that is not there.
        UnknownBackend, BackendUnavailable: what is wrong with `backend`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> other = model.with_params({**model.params, "1.bias": np.ones(2)})
        >>> report = ub.compare_models(model, other, np.eye(2))
        >>> report.ok, report.steps[report.parted].first
        (False, 'dense(3, 2)')
    """
    networks = [as_network(network, output=output if is_module(network) else None) for network in (first, second)]
    if output is not None and not any(map(is_module, (first, second))):
        as_network(first, output=output)  # it says what output= is for
    one, other = networks
    if one.dtype != other.dtype:
        raise DTypeError(
            f"networks of dtype {one.dtype} and {other.dtype}",
            allowed="two of the same dtype",
            remedy=f'give ub.as_network(second).astype("{one.dtype}") in place of the second',
            shell=f"add --dtype {one.dtype}, which converts both",
        )
    names = [_engine(network, backend) for network in networks]
    batches = [checked_samples(network, x) for network in networks]
    both_steps = steps_of_both(networks, batches, names, pairs, budget(one.dtype))
    steps, parted, found = _compared(both_steps, budget(one.dtype), named=pairs is not None)
    both = list(zip(networks, batches, names, strict=True))
    kernels = _kernels(both)
    outputs = _gap([backends.get(name).outputs(network, batch) for network, batch, name in both])
    kernel = _gap(kernels)
    if outputs is not None and kernel is not None and outputs <= budget(one.dtype) < kernel:
        found = [*found, _other_parameters(one, other)]
    return PortReport(
        steps=steps,
        parted=parted,
        outputs=outputs,
        kernel=kernel,
        eigenvalues=_gap([spectrum(kernel).eigenvalues for kernel in kernels]),
        input_jacobian=_gap(_input_jacobians(both)),
        hints=(*both_steps.hints, *found),
        budget=budget(one.dtype),
        dtype=one.dtype.name,
        n=len(batches[0]),
        backend=" and ".join(dict.fromkeys(names)),
    )


Network = Model | ForeignNetwork


def _other_parameters(one: Network, other: Network) -> str:
    """What is known of networks with the same outputs and other kernels."""
    return (
        f"the outputs are the same by other parameters: the first has {one.n_params}, the second {other.n_params}; what"
        " is frozen in one, or two in the other, as the biases of torch's recurrent layers, makes another kernel"
    )


def _engine(network: Network, backend: EngineWord | None) -> EngineName:
    """The engine of the caller's choice for a `Model`, and its own for anything else."""
    own = network.engine if isinstance(network, ForeignNetwork) else None
    return checked_engine(network, backend) if own is None else own


def _compared(
    both: Correspondence, limit: float, *, named: bool
) -> tuple[tuple[StepComparison, ...], int | None, list[str]]:
    """Steps side by side, the first after which there is a gap, and hints.

    `named`: the caller said which are compared, so that other shapes do not end the table.
    """
    own, other = both.sides
    steps: list[StepComparison] = []
    hints: list[str] = []
    parted: int | None = None
    for index, (one, two) in enumerate(zip(own, other, strict=False)):
        same = one.value.shape == two.value.shape
        gap = relative_difference(one.value, two.value) if same else None
        steps.append(StepComparison(one.words, two.words, gap, (one.value.shape[1:], two.value.shape[1:])))
        if parted is None and (gap is None or not gap <= limit):
            parted = index
            hints += [] if both.settled else hints_of(one, two, limit, own[:index])
        if not same:
            shapes = one.value.shape[1:], two.value.shape[1:]
            hints.append(f"after step {index} one has the shape {shapes[0]}, the other {shapes[1]}")
            if not named:
                break
    if len(own) != len(other):
        hints.append(f"the first has {counted(len(own), 'step')}, the second {len(other)}")
    return tuple(steps), parted, hints


def _gap(values: list[np.ndarray]) -> float | None:
    """The difference of two arrays; None where there are none, or of two shapes."""
    if not values or values[0].shape != values[1].shape:
        return None
    return relative_difference(values[0], values[1])


def _kernels(both: Sequence[tuple[Any, np.ndarray, EngineName]]) -> list[np.ndarray]:
    """The traces; none for networks that have no kernel, since their outputs are not vectors."""
    try:
        for network, batch, _ in both:
            output_size(network, batch.shape[1:])
    except ShapeError:
        return []
    return [ntk(network, batch, backend=name) for network, batch, name in both]


def _input_jacobians(both: Sequence[tuple[Any, np.ndarray, EngineName]]) -> list[np.ndarray]:
    """d f / d x; none for tokens, outputs that are not vectors, and those that cannot be followed to the samples."""
    if any(network.takes_tokens for network, _, _ in both):
        return []
    try:
        return [input_jacobian(network, batch, backend=name) for network, batch, name in both]
    except (ShapeError, ConversionError):
        return []
