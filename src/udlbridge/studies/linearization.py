"""How far a network departs from its linearisation while it trains: less, the wider it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.displays import Displayed
from udlbridge.displays import draw as drawn
from udlbridge.errors import OptionError
from udlbridge.infinite.widening import checked_widths, widened
from udlbridge.kernels.derivatives import outputs
from udlbridge.kernels.expansions import linearize
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.inputs import checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_positive
from udlbridge.predict.rates import max_learning_rate
from udlbridge.predict.steps import gradient_descent
from udlbridge.reports import json_ready
from udlbridge.training.loop import train
from udlbridge.training.objectives import checked_targets
from udlbridge.words import EngineWord

MARKS = 8
"""Steps at which outputs are compared, besides the start."""


@dataclass(frozen=True, eq=False, repr=False)
class LinearizationStudy(Displayed):
    """Departures of outputs at the training samples, by engine: (widths, marks) each, after each of `steps` steps.

    `network`: |f - f_lin|_F / |y - f_0|_F between the network and the linearised one, both trained by the engine, as
    the root of the mean square over `draws` of the start. `closed_form`: the largest such distance between the
    linearised one and the closed form of its training, which should be rounding.

    Examples:
        >>> model, x = ub.Model([ub.Dense(2, 8, "tanh"), ub.Dense(8, 1)], dtype="float64"), np.eye(2)
        >>> study = ub.study_linearization(model, x, x[:, :1], widths=(8, 32), steps=4, draws=1, engines=["torch"])
        >>> study.widths, study.network["torch"].shape[0]
        ((8, 32), 2)
    """

    widths: tuple[int, ...]
    steps: tuple[int, ...]
    draws: int
    network: Mapping[str, Float[np.ndarray, "widths marks"]]
    closed_form: Mapping[str, Float[np.ndarray, "widths marks"]]

    def slope(self, engine: str) -> float:
        """The slope of the log of the largest departure against log width, by least squares: about -1/2."""
        return float(np.polyfit(np.log(self.widths), np.log(self.network[engine].max(axis=1)), 1)[0])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: departures by width, engine and step."""
        return [
            {
                "width": width, "engine": name, "step": step, "departure": float(self.network[name][row, mark]),
                "from closed form": float(self.closed_form[name][row, mark]),
            }
            for row, width in enumerate(self.widths)
            for name in self.network
            for mark, step in enumerate(self.steps)
        ]  # fmt: skip

    def headline(self) -> str:
        """The line over the table in a notebook: how departures fall with the width."""
        slopes = ", ".join(f"{name} {self.slope(name):.2f}" for name in self.network) if len(self.widths) > 1 else ""
        count, draws = len(self.widths), self.draws
        widths = f"departures at {count} width{'s' * (count != 1)}, from {draws} start{'s' * (draws != 1)} each"
        return f"{widths}; slope of their log by log width: {slopes} (-0.5 in the limit)" if slopes else widths

    def __str__(self) -> str:
        lines = [f"{'width':>8}  {'engine':<10}  largest departure  of the linearised one from its closed form"]
        for index, width in enumerate(self.widths):
            for name in self.network:
                far, near = (float(by[name][index].max()) for by in (self.network, self.closed_form))
                lines.append(f"{width:>8}  {name:<10}  {far:>17.2e}  {near:.1e}")
        if len(self.widths) > 1:
            slopes = ", ".join(f"{name} {self.slope(name):.2f}" for name in self.network)
            lines.append(f"slope of the log departure by log width: {slopes} (-0.5 in the limit)")
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Departures from the linearised network by step, on `ax` or a new figure; returns the Axes."""
        return drawn("linearization:draw_departures", ax, self)


def study_linearization(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    widths: Sequence[int] = (32, 128, 512),
    steps: int = 64,
    draws: int = 4,
    rate: float = 0.2,
    engines: str | Sequence[EngineWord] | None = None,
    seed: int = 0,
) -> LinearizationStudy:
    """Train a network and its linearisation by full-batch gradient descent on the mean squared error, width by width.

    Args:
        model: the architecture: its hidden layers get each of the `widths`, and its parameters are drawn anew.
        x: samples (n, *D), of the model's dtype.
        y: targets (n, O) or (n,).
        widths: neurons, or channels, of the hidden layers.
        steps: of gradient descent.
        draws: starts for each width.
        rate: learning rate, relative to the largest one for which the linearised network converges; it is below 1.
        engines: engines that train; None means all that can run here.
        seed: of the first start, which is the same for all engines; others have the seeds that follow.

    Raises:
        LayerError: a chain that does not end in weights.
        OptionError, InputError, ShapeError, BackendUnavailable: what is wrong with the rest.

    Source: Lee et al. (2019), figure 2 and theorem 2.1.

    Examples:
        >>> model, x = ub.Model([ub.Dense(2, 8, "tanh"), ub.Dense(8, 1)], dtype="float64"), np.eye(2)
        >>> study = ub.study_linearization(model, x, x[:, :1], widths=(8, 512), steps=4, draws=2, engines=["torch"])
        >>> bool(study.network["torch"][1].max() < study.network["torch"][0].max())
        True
    """
    counts = checked_widths(widths)
    steps, rate = checked_count("steps", steps, 1), checked_positive("rate", rate)
    draws, seed = checked_count("draws", draws, 1), checked_count("seed", seed, 0)
    if rate >= 1:
        raise OptionError(f"rate={rate:g}", allowed="below 1, where descent converges", remedy="as rate=0.5")
    batch = checked_batch(model, x)
    targets = checked_targets("mse", y, len(batch), output_size(model, batch.shape[1:]), model.dtype)
    marks = tuple(int(step) for step in np.unique(np.geomspace(1, steps, MARKS).round()))
    names = backends.one_or_more(engines)
    network = {name: np.zeros((len(counts), len(marks))) for name in names}
    closed = {name: np.zeros((len(counts), len(marks))) for name in names}
    for row, width in enumerate(counts):
        layers = widened(model.layers, width, batch.shape[1:])
        for draw in range(draws):
            start = Model(layers, seed=seed + draw, dtype=model.dtype)
            kernels = {name: ntk(start, batch, outputs="full", backend=name) for name in names}
            # The largest rate is that of 0.5 / (n O) sum (f - y)^2; the loss "mse" is twice that.
            own = rate * max_learning_rate(kernels[names[0]], size=targets.size) / 2
            for name, kernel in kernels.items():
                far, near = _departures(start, batch, targets, kernel, marks, own, name)
                network[name][row] += far**2 / draws
                closed[name][row] = np.maximum(closed[name][row], near)
    return LinearizationStudy(
        counts, marks, draws, {name: np.sqrt(squares) for name, squares in network.items()}, closed
    )


def _departures(
    start: Model,
    x: np.ndarray,
    y: np.ndarray,
    kernel: np.ndarray,
    marks: Sequence[int],
    rate: float,
    engine: EngineWord,
) -> tuple[Float[np.ndarray, " marks"], Float[np.ndarray, " marks"]]:
    """How far the network, and the closed form, are from the linearised network after so many steps."""
    settings: dict[str, Any] = {
        "epochs": marks[-1], "loss": "mse", "optimizer": ("sgd", {"lr": rate}), "backend": engine, "checkpoints": marks,
        "evaluate_every": 0, "progress": False,
    }  # fmt: skip
    real, linear = (train(start, x, y, linearized=flag, **settings) for flag in (False, True))
    expansion, f0 = linearize(start), outputs(start, x, backend=engine).astype(np.float64)
    descent = gradient_descent(kernel, y, learning_rate=2 * rate)
    size = float(np.linalg.norm(y - f0))
    far, near = [], []
    for step in marks:
        found = expansion.outputs(linear.checkpoints[step], x, backend=engine)
        far.append(float(np.linalg.norm(outputs(real.checkpoints[step], x, backend=engine) - found)) / size)
        near.append(float(np.linalg.norm(descent.after(step, f_train=f0).train - found)) / size)
    return np.array(far), np.array(near)
