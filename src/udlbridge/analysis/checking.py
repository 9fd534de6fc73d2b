"""Every engine against every other on the same network, end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.analysis.first_differences import first_difference
from udlbridge.analysis.module_checks import ALONG, DIFFERENCES_BUDGET, METHODS, module_results
from udlbridge.analysis.spectra import spectrum
from udlbridge.analysis.vanishing import vanishing
from udlbridge.backends.reduction import Outputs, check_matrix, checked_reduction
from udlbridge.calls import explained
from udlbridge.displays import Displayed, draw
from udlbridge.errors import OptionError
from udlbridge.kernels.derivatives import input_jacobian, jacobian
from udlbridge.kernels.derivatives import outputs as evaluate
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.request import as_network, checked_engine, device_name
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import checked_samples, output_size
from udlbridge.networks.model import Model
from udlbridge.progress import step_progress
from udlbridge.reports import json_ready
from udlbridge.tolerances import budget, relative_difference
from udlbridge.words import EngineName, EngineWord


@dataclass(frozen=True)
class Comparison:
    """One quantity from two engines: the largest difference relative to the largest entry, and its budget."""

    quantity: str
    first: str
    second: str
    difference: float
    budget: float

    @property
    def ok(self) -> bool:
        """Whether the difference is within the budget."""
        return self.difference <= self.budget

    def to_dict(self) -> dict[str, Any]:
        """All of it, and whether it is within the budget."""
        return {**asdict(self), "ok": self.ok}

    def as_row(self) -> dict[str, Any]:
        """What a table in a notebook shows of it."""
        return {**asdict(self), "within": self.ok}


@dataclass(frozen=True, repr=False)
class CheckReport(Displayed):
    """What `check` found. Prints as a table.

    `engines`: what was compared; of a module also the methods "structured", "plain" and "differences".

    `skipped` says of each engine that was left out why it was. `alone` says, per quantity, which engine disagrees with
    all others while those agree among themselves. `parted` says, for each pair whose outputs differ, after which
    layer they first do. `device`: what was asked for. `vanishing`: Jacobian blocks that are zero but for rounding, as
    that of a key's bias in attention, whose difference is one of the largest entry of all blocks of their module.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> report = ub.check(model, np.eye(2), backends=["torch", "reference"])
        >>> report.engines, bool(report.worst < 1e-12)
        (('torch', 'reference'), True)
    """

    comparisons: tuple[Comparison, ...]
    engines: tuple[str, ...]
    skipped: dict[str, str]
    alone: dict[str, str]
    versions: dict[str, str]
    dtype: str
    n: int
    parted: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    vanishing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether at least two engines were compared, and every comparison is within its budget."""
        return bool(self.comparisons) and all(row.ok for row in self.comparisons)

    @property
    def worst(self) -> float:
        """The largest relative difference of all comparisons; NaN where there was nothing to compare."""
        return max((row.difference for row in self.comparisons), default=float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data; a difference that is not finite is None."""
        rows = [row.to_dict() for row in self.comparisons]
        return dict(json_ready({**asdict(self), "comparisons": rows, "ok": self.ok, "worst": self.worst}))

    def __str__(self) -> str:
        pairs = list(dict.fromkeys((row.first, row.second) for row in self.comparisons))
        quantities = list(dict.fromkeys(row.quantity for row in self.comparisons))
        cells = {(row.quantity, row.first, row.second): row for row in self.comparisons}
        width = max([len(q) for q in quantities] + [8])
        heads = [f"{a} - {b}" for a, b in pairs]
        lines = [" " * width + "".join(f"  {head:>18}" for head in heads)]
        for quantity in quantities:
            row = [cells.get((quantity, *pair)) for pair in pairs]
            shown = ["" if c is None else f"{c.difference:>12.2e} {'ok' if c.ok else 'DIFF'}" for c in row]
            widths = [max(len(head), 18) for head in heads]
            lines.append(f"{quantity:<{width}}" + "".join(f"  {c:<{w}}" for c, w in zip(shown, widths, strict=True)))
        return "\n".join([*lines, *self._findings()])

    def headline(self) -> str:
        """The verdict and what was found besides."""
        return "; ".join(self._findings())

    def _findings(self) -> list[str]:
        place = "" if self.device is None else f", kernels on {self.device}"
        verdict = "agree" if self.ok else "DISAGREE" if self.comparisons else "nothing to compare"
        lines = [
            f"{', '.join(self.engines)}: {verdict}; worst {self.worst:.2e} of the largest entry, "
            f"budget {budget_in(self.dtype):.0e} ({self.dtype}, n = {self.n}{place})"
        ]
        lines += [f"{engine} is alone in {quantity}: the others agree" for quantity, engine in self.alone.items()]
        lines += [f"{pair} first differ after {layer}" for pair, layer in self.parted.items()]
        lines += [f"{name} is zero but for rounding" for name in self.vanishing]
        return [*lines, *(f"{engine} was not compared: {reason}" for engine, reason in self.skipped.items())]

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [row.as_row() for row in self.comparisons]

    def plot(self, ax: Any = None) -> Any:
        """Differences by quantity with the budget, on `ax` or a new figure; returns the Axes."""
        return draw("reports:draw_check", ax, self)


@explained(backend='several engines are compared: backends="torch,reference"')
def check(
    model: Model | Any,
    x: Any,
    *,
    backends: str | Sequence[EngineWord] | None = None,  # shadows the module, as the public name should
    outputs: Outputs = "trace",
    output: Any = None,
    device: Any = None,
    progress: bool | None = False,
) -> CheckReport:
    """Compare outputs, Jacobian blocks, the full NTK, its eigenvalues and input Jacobians between engines.

    Every engine computes everything by itself, and every pair is compared against the budget of the model's dtype:
    1e-12 (float64) or 1e-5 (float32) of the largest entry; of a module in half precision ten units of its rounding.

    Of a `torch.nn.Module` the structured kernel is compared with the one of per-sample Jacobians ("plain"), and the
    derivative along a random direction of the parameters with differences of outputs, in float64 and within 1e-5; and
    all of these with the other engines where `udlbridge.from_torch` has a translation, as a `Model` or else as a
    `Graph`; `skipped` says where not, and why.

    Args:
        model: the network; of a `Graph`, the engines that compute graphs are compared.
        x: samples (n, *D), of the model's dtype. The full kernel holds n^2 O^2 numbers, the Jacobian n O P.
        backends: names, in a list or with commas in between; None and "all" mean all that are usable here. "torch" is
            what computes a module itself.
        outputs: the reduction whose eigenvalues are compared (one of those that give an (n, n) matrix).
        output: of a module, as for `udlbridge.as_network`.
        device: where kernels are computed by the engines that know devices of that kind, as "cuda" for torch; the
            others compute on the CPU. None means where a module is, or the CPU.
        progress: a line that says what is being computed; None means if standard error is a terminal.

    Returns:
        A frozen report: `.ok`, `.worst`, `.to_dict()`, and a table when printed.

    Raises:
        OptionError: fewer than two backends were named, for a `Model`; a device that none of them knows, or that is
            not there.
        OutputsError: a reduction that does not exist, or keeps the outputs apart.
        ConversionError: other backends were named for a module that has no translation.
        UnknownBackend, BackendUnavailable: a named backend does not exist or cannot run.
        InputError, ShapeError, DTypeError: what is wrong with `x`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> ub.check(model, np.eye(2), backends=["torch", "reference"]).ok
        True
    """
    backends = None if isinstance(backends, str) and backends.strip() == "all" else backends
    network = as_network(model, output=output)
    batch = checked_samples(network, x)
    wanted = None if device is None else str(device_name(device))
    check_matrix(checked_reduction(outputs, output_size(network, batch.shape[1:])))
    if isinstance(network, ForeignNetwork) and not isinstance(network, Graph):
        _places([checked_engine(network, None)], device)
        with step_progress("check", show=progress) as told:
            results, skipped = module_results(network, batch, backends, outputs, device, told)
        engines = [checked_engine(network, None), *(name for name in results if name not in METHODS)]
        report = _report(results, skipped, engines, network.computes_in, len(batch))
        return replace(report, device=wanted)
    names, skipped = _engines(backends, network if isinstance(network, Graph) else None)
    places = _places(names, device)
    with step_progress("check", show=progress) as told:
        results = {name: _everything(network, batch, name, outputs, places[name], told) for name in names}
    report = _report(results, skipped, names, network.dtype.name, len(batch))
    parted = {
        f"{row.first} and {row.second}": first_difference(network, batch, row.first, row.second)
        for row in report.comparisons
        if row.quantity == "outputs" and not row.ok
    }
    return replace(report, parted=parted, device=wanted)


def budget_in(dtype: str) -> float:
    """The budget of what is computed in a dtype: of half precision ten units of its rounding."""
    return HALF_BUDGETS[dtype] if dtype in HALF_BUDGETS else budget(dtype)


HALF_BUDGETS = {"float16": 1e-2, "bfloat16": 1e-1}
"""What ways to compute a module in half precision may differ by: each rounds differently, and every number to this."""


def _report(
    results: Mapping[str, Mapping[str, np.ndarray]],
    skipped: dict[str, str],
    engines: Sequence[str],
    dtype: str,
    n: int,
) -> CheckReport:
    """Every two of the results compared in the quantities that both have."""
    rows: list[Comparison] = []
    zeros: set[str] = set()
    for first, second in combinations(results, 2):
        scales = vanishing(results[first], results[second])
        zeros.update(scales)
        for quantity, value in results[first].items():
            if quantity not in results[second]:
                continue
            other = results[second][quantity]
            if quantity in scales:
                gap = float(np.abs(value - other).max()) / scales[quantity]
            else:
                gap = relative_difference(value, other)
            limit = DIFFERENCES_BUDGET if quantity == ALONG else budget_in(dtype)
            rows.append(Comparison(quantity, first, second, gap, limit))
    return CheckReport(
        comparisons=tuple(rows),
        engines=tuple(results),
        skipped=skipped,
        alone=_alone(rows),
        versions=_versions(engines),
        dtype=dtype,
        n=n,
        vanishing=tuple(name for name in next(iter(results.values()), {}) if name in zeros),
    )


def _engines(asked: str | Sequence[str] | None, graph: Graph | None) -> tuple[list[EngineName], dict[str, str]]:
    names = backends.selected(asked)
    if graph is not None and asked is not None:
        for name in names:
            checked_engine(graph, name)
    elif graph is not None:
        names = [name for name in names if name in backends.computing(graph)]
    if asked is not None:
        if len(names) < 2:
            raise OptionError(
                f"backends={asked if isinstance(asked, str) else list(asked)}",
                allowed="at least two different ones",
                remedy="leave it out to compare all",
            )
        return names, {}
    left_out = [name for name in backends.engines() if name not in names]
    return names, {name: backends.availability(name).reason or "it does not compute such a graph" for name in left_out}


def _places(names: Sequence[EngineName], device: Any) -> dict[EngineName, str | None]:
    """Where each engine computes kernels: on the device if it knows such; None where it does anyway.

    Raises:
        OptionError: no engine of these knows such a device, or it is not there.
    """
    places: dict[EngineName, str | None] = dict.fromkeys(names)
    if device is None:
        return places
    wanted, refusals = device_name(device), []
    for name in names:
        try:
            places[name] = backends.checked_device(name, wanted)
        except OptionError as refusal:
            refusals.append(refusal)
        else:
            backends.get(name).check_device(wanted)
    if len(refusals) == len(names):
        raise refusals[0]
    return places


def _everything(
    model: Model | Graph,
    x: np.ndarray,
    backend: EngineWord,
    reduction: Outputs,
    device: str | None,
    told: Callable[[str], None],
) -> dict[str, np.ndarray]:
    told(f"{backend}, outputs and Jacobian")
    blocks = jacobian(model, x, backend=backend)
    values = evaluate(model, x, backend=backend)
    told(f"{backend}, kernels")
    kernels = {
        "full NTK": ntk(model, x, outputs="full", backend=backend, device=device),
        "eigenvalues": spectrum(ntk(model, x, outputs=reduction, backend=backend, device=device)).eigenvalues,
    }
    told(f"{backend}, derivatives by the input")
    return {
        "outputs": values,
        **{f"jacobian {name}": block for name, block in blocks.items()},
        **kernels,
        # Tokens have no derivative.
        **({} if model.takes_tokens else {"input jacobian": input_jacobian(model, x, backend=backend)}),
    }


def _alone(rows: Sequence[Comparison]) -> dict[str, str]:
    """Per quantity, the engine that differs from all others while all others agree; needs three engines."""
    found = {}
    for quantity in dict.fromkeys(row.quantity for row in rows):
        own = [row for row in rows if row.quantity == quantity]
        names = dict.fromkeys(name for row in own for name in (row.first, row.second))
        for name in names if len(names) > 2 else ():
            with_it = [row for row in own if name in (row.first, row.second)]
            without = [row for row in own if row not in with_it]
            if not any(row.ok for row in with_it) and all(row.ok for row in without):
                found[quantity] = name
    return found


def _versions(names: Sequence[str]) -> dict[str, str]:
    return {part: version for name in names for part, version in backends.get(name).versions().items()}
