"""How large activations and gradients are in every layer: do they vanish or explode?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.arrays import as_array
from udlbridge.displays import Displayed, draw
from udlbridge.errors import DTypeError, InputError, ShapeError
from udlbridge.kernels.request import as_network, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.reports import json_ready
from udlbridge.texts import counted
from udlbridge.words import EngineWord


@dataclass(frozen=True)
class LayerSignal:
    """One layer: standard deviation of its outputs, and of the loss gradient at its preactivation (or output).

    `layer`: its number; of a module its path. `kind`: of layer; of a module its class.
    """

    layer: int | str
    kind: str
    activation_std: float
    gradient_std: float


@dataclass(frozen=True, repr=False)
class SignalReport(Displayed):
    """The size of the signals per layer; prints as a table.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)])
        >>> len(ub.signal_report(model, np.eye(2, dtype="float32")).rows)
        2
    """

    rows: tuple[LayerSignal, ...]

    @property
    def activation_std(self) -> list[float]:
        """Standard deviation of every layer's outputs."""
        return [row.activation_std for row in self.rows]

    @property
    def gradient_std(self) -> list[float]:
        """Standard deviation of the loss gradient at every layer."""
        return [row.gradient_std for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data; a size that has left the range of the dtype is None."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [
            {"layer": row.layer, "kind": row.kind, "of outputs": row.activation_std, "of gradients": row.gradient_std}
            for row in self.rows
        ]

    def headline(self) -> str:
        """The line over the table in a notebook: between which sizes the signals are."""
        parts = []
        for what, sizes in (("outputs", self.activation_std), ("gradients", self.gradient_std)):
            parts.append(f"{what} from {min(sizes):.3g} to {max(sizes):.3g}" if sizes else f"no {what}")
        return f"standard deviations in {counted(len(self.rows), 'layer')}: {', '.join(parts)}"

    def plot(self, ax: Any = None) -> Any:
        """Sizes by layer on a logarithmic scale, on `ax` or a new figure; returns the Axes."""
        return draw("signals:draw_signals", ax, self)

    def __str__(self) -> str:
        width = max((len(str(row.layer)) for row in self.rows), default=0)
        width = max(width, 5)
        lines = [f"{'layer':>{width}}  kind              std activation   std gradient"]
        lines += [
            f"{row.layer:>{width}}  {row.kind:<16}  {row.activation_std:>14.6g}  {row.gradient_std:>13.6g}"
            for row in self.rows
        ]
        return "\n".join(lines)


def signal_report(
    model: Model | Any, x: Any, y: Any = None, *, backend: EngineWord | None = None, output: Any = None
) -> SignalReport:
    """Standard deviations, over samples and units, of every layer's outputs and of the gradients that reach it.

    The loss is the sum of squares, sum (f(x) - y)^2. The gradient is taken at the preactivation of a Dense layer, and
    at the output of any other layer. The layers of a `torch.nn.Module` are those of `udlbridge.features`, with all
    gradients at their outputs. Where a signal has left the range of the model's dtype, its size is inf; float64 reaches
    further than float32.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        y: targets of the shape of f(x); None means zeros.
        backend: the engine; None is the default one.
        output: which of the outputs of a module counts, as for `udlbridge.as_network`.

    Raises:
        ShapeError: `y` does not have the shape of f(x).
        OptionError: `model` is not a network.
        InputError, DTypeError: what is wrong with `x` or `y`.
        ConversionError: a module whose outputs cannot be followed to its parameters.

    Source: Prince, Understanding Deep Learning (2023), section 7.5.

    Examples:
        >>> model = ub.models.lenet5()
        >>> x = np.zeros((2, 1, 28, 28), dtype="float32")
        >>> bool(ub.signal_report(model, x).activation_std[0] < 1)
        True
    """
    network = as_network(model, output=output)
    name = checked_engine(network, backend)
    batch = checked_samples(network, x)
    if isinstance(network, ForeignNetwork):
        network.check_derivatives(network.param_shapes())
    shape = (len(batch), *network.output_shape(batch.shape[1:]))
    targets = np.zeros(shape) if y is None else as_array(y, "targets", wanted=np.float64)
    if targets.dtype.kind not in "biuf":
        raise DTypeError(f"targets of dtype {targets.dtype}", allowed="real numbers", remedy="convert them")
    if targets.shape != shape:
        raise ShapeError(f"targets of shape {targets.shape}", allowed=f"{shape}, as f(x)", remedy="reshape them")
    with np.errstate(over="ignore", invalid="ignore"):
        targets = targets.astype(network.dtype)
        if not np.isfinite(targets).all():
            raise InputError(
                f"a target is NaN, infinite, or too large for {network.dtype}",
                allowed="finite numbers",
                remedy="clean the targets",
            )
        if isinstance(network, ForeignNetwork):
            found = network.layer_signals(batch, targets)
            kinds = network.layer_kinds
            return SignalReport(tuple(LayerSignal(p, kinds[p], _size(a), _size(e)) for p, (a, e) in found.items()))
        activations, errors = backends.get(name).signals(network, batch, targets)
        rows = [
            LayerSignal(index, layer.kind, _size(a), _size(e))
            for index, (layer, a, e) in enumerate(zip(network.layers, activations, errors, strict=True))
        ]
    return SignalReport(tuple(rows))


def _size(signal: np.ndarray) -> float:
    """The standard deviation; inf if any entry overflowed, or became NaN because an earlier one overflowed."""
    return float(np.std(signal, dtype=np.float64)) if np.isfinite(signal).all() else math.inf
