"""How large activations and gradients are in every layer: do they vanish or explode?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.errors import ShapeError
from udlbridge.inputs import checked_batch
from udlbridge.model import Model


@dataclass(frozen=True)
class LayerSignal:
    """One layer: standard deviation of its outputs, and of the loss gradient at its preactivation (or output)."""

    layer: int
    kind: str
    activation_std: float
    gradient_std: float


@dataclass(frozen=True)
class SignalReport:
    """The size of the signals per layer; prints as a table."""

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
        """All of it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = ["layer  kind              std activation   std gradient"]
        lines += [
            f"{row.layer:>5}  {row.kind:<16}  {row.activation_std:>14.6g}  {row.gradient_std:>13.6g}"
            for row in self.rows
        ]
        return "\n".join(lines)


def signal_report(
    model: Model, x: np.ndarray, y: np.ndarray | None = None, *, backend: str | None = None
) -> SignalReport:
    """Standard deviations, over samples and units, of every layer's outputs and of the gradients that reach it.

    The loss is the sum of squares, sum (f(x) - y)^2. The gradient is taken at the preactivation of a Dense layer, and
    at the output of any other layer.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        y: targets of the shape of f(x); None means zeros.
        backend: the engine; None is the default one.

    Raises:
        ShapeError: `y` does not have the shape of f(x).
        InputError, DTypeError: what is wrong with `x` or `y`.

    Source: Prince, Understanding Deep Learning (2023), section 7.5.
    """
    batch = checked_batch(model, x)
    shape = (len(batch), *model.output_shape(batch.shape[1:]))
    targets = np.zeros(shape, dtype=model.dtype) if y is None else np.asarray(y, dtype=model.dtype)
    if targets.shape != shape:
        raise ShapeError(f"targets of shape {targets.shape}", allowed=f"{shape}, as f(x)", remedy="reshape them")
    activations, errors = backends.get(backend).signals(model, batch, targets)
    rows = [
        LayerSignal(index, layer.kind, float(np.std(a, dtype=np.float64)), float(np.std(e, dtype=np.float64)))
        for index, (layer, a, e) in enumerate(zip(model.layers, activations, errors, strict=True))
    ]
    return SignalReport(tuple(rows))
