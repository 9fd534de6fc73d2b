"""What the kernel of somebody's own network is checked against: sample by sample, differences, and a translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.analysis.spectra import spectrum
from udlbridge.backends.reduction import Outputs
from udlbridge.conversion.translating import translation
from udlbridge.errors import ConversionError, UDLBridgeError
from udlbridge.kernels.derivatives import input_jacobian, jacobian
from udlbridge.kernels.derivatives import outputs as evaluate
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import in_float64
from udlbridge.tolerances import relative_difference

STRUCTURED, PLAIN, DIFFERENCES = "structured", "plain", "differences"
METHODS = (STRUCTURED, PLAIN, DIFFERENCES)
"""The methods: the kernel from its sites; from per-sample Jacobians; derivatives by evaluating at other parameters."""

INPUTS = "input jacobian"

ALONG = "J w"
"""The derivative of the outputs along a random direction of all parameters but padding, of a copy in float64."""

DIFFERENCES_BUDGET = 1e-5
"""What differences may be off, relative to the largest entry: in float64 they are good to 1e-9 or so, and where a step
crosses the kink of a unit, to that unit's share of the step."""

STEP = float(np.finfo(np.float64).eps ** (1 / 3))
"""Of the differences, relative to the length of all parameters: there truncation and rounding are of one size."""

MARGIN = 10
"""Differences that are off by at most so many times what those of two steps differ by say nothing of a derivative."""

Results = dict[str, dict[str, np.ndarray]]
"""By the name of a way or an engine, what it found by the name of a quantity."""


def module_results(
    network: ForeignNetwork,
    x: np.ndarray,
    engines: str | Sequence[str] | None,
    reduction: Outputs,
    device: Any,
    told: Callable[[str], None],
) -> tuple[Results, dict[str, str]]:
    """What all methods and engines found, and why some were left out.

    `engines`: names of engines, of which the others than the module's own compute a translation; None means all that
    are usable, where there is a translation. `device`: where the module's own kernels are computed. `told` hears what
    is done next.

    Raises:
        ConversionError: engines were named, and the module has no translation.
    """
    others = None if engines is None else [name for name in backends.selected(engines) if name != network.engine]
    skipped: dict[str, str] = {}
    told("outputs and derivatives by the input")
    numbers: dict[str, np.ndarray] = {}
    try:
        numbers = {} if network.takes_tokens else {INPUTS: input_jacobian(network, x)}
    except ConversionError as error:  # it may be a readout of features that were computed without gradients
        skipped[INPUTS] = error.given
    values = evaluate(network, x)
    told("structured kernels")
    own = {"outputs": values, **_kernels(network, x, reduction, method="structured", device=device)}
    told("kernels of per-sample Jacobians")
    plain = {**_kernels(network, x, reduction, method="plain", device=device), **numbers}
    results: Results = {STRUCTURED: own, PLAIN: plain}
    told("differences")
    try:
        exact, along, uncertain = _along(network, x)
        if DIFFERENCES_BUDGET < relative_difference(along, exact) <= MARGIN * uncertain:
            skipped[DIFFERENCES] = (
                f"those of two steps differ by {uncertain:.1e}: forward rounds to less than float64, or has kinks there"
            )
        else:
            results[PLAIN][ALONG], results[DIFFERENCES] = exact, {ALONG: along}
    except UDLBridgeError as error:  # its forward may insist on the dtype that it has
        skipped[DIFFERENCES] = f"a copy in float64 fails: {error.given}"
    if others == []:
        return results, skipped
    told("translation")
    try:
        model = translation(network, x)
    except UDLBridgeError as error:
        if others is not None:
            raise
        reason = f"it has no translation: {error.given}"
        return results, {**skipped, **{name: reason for name in backends.engines() if name != network.engine}}
    computing = backends.computing(model)
    usable = [name for name in backends.usable() if name in computing and name != network.engine]
    for name in usable if others is None else others:
        told(name)
        results[name] = {
            "outputs": evaluate(model, x, backend=name),
            **_kernels(model, x, reduction, backend=name),
            **({INPUTS: input_jacobian(model, x, backend=name)} if numbers else {}),
        }
    if others is None:
        left_out = [name for name in backends.engines() if name not in (*usable, network.engine)]
        skipped |= {name: backends.availability(name).reason or "it does not compute such a graph" for name in left_out}
    return results, skipped


def _kernels(network: Any, x: np.ndarray, reduction: Outputs, **options: Any) -> dict[str, np.ndarray]:
    return {
        "full NTK": ntk(network, x, outputs="full", **options),
        "eigenvalues": spectrum(ntk(network, x, outputs=reduction, **options)).eigenvalues,
    }


def _along(network: ForeignNetwork, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """J w by the Jacobian and by central differences, in float64, and what these change by for twice the step."""
    double, samples = network, x
    if network.dtype != np.float64:
        double, samples = network.astype("float64"), in_float64(x)
    blocks = jacobian(double, samples)
    generator = np.random.default_rng(0)
    drawn = {name: generator.standard_normal(value.shape) for name, value in double.params.items()}
    for name, row in double.padding_rows().items():
        if name in drawn:
            drawn[name][row] = 0.0
    length = np.sqrt(sum(float((value**2).sum()) for value in double.params.values())) or 1.0
    unit = length / np.sqrt(sum(float((value**2).sum()) for value in drawn.values()))
    direction = {name: unit * value for name, value in drawn.items()}
    exact = sum(block.reshape(*block.shape[:2], -1) @ direction[name].ravel() for name, block in blocks.items())

    def at(step: float) -> np.ndarray:
        moved = {name: value + step * direction[name] for name, value in double.params.items()}
        return evaluate(double.with_params(moved), samples)

    along, twice = ((at(step) - at(-step)) / (2 * step) for step in (STEP, 2 * STEP))
    return np.asarray(exact), along, relative_difference(twice, along)
