"""Outputs of an infinitely wide, or linearised, network under gradient flow: training with infinitely small steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.special import softmax

from udlbridge.arrays import as_array
from udlbridge.displays import Displayed, draw, output_lines
from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.options import brief, checked_not_negative
from udlbridge.predict.systems import System, checked_numbers, training_system
from udlbridge.texts import counted

Slope = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Outputs f (n, O) and targets y (n, O) to the derivative of the loss with respect to f, (n, O)."""

ACCURACY = 1e-10
"""Relative error that the solver of differential equations allows itself for each step."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Displayed):
    """Outputs of training samples, and of test samples where `k_test` was given: (n, O), or (T, n, O) for T times.

    Where the targets came as (n,), there is no axis O.

    `times`: the time of the flow, or the steps of the descent, that they are at: a number, or (T,).
    """

    train: np.ndarray
    test: np.ndarray | None
    times: np.ndarray | None = None

    def as_rows(self) -> Sequence[Mapping[str, Any]]:
        """What the table in a notebook shows: a row for each sample and time, test samples first."""
        times = None if self.times is None else np.atleast_1d(self.times)
        return output_lines(self.by_samples(), **({} if times is None else {"time": times}))

    def by_samples(self) -> dict[str, Float[np.ndarray, "*times samples outputs"]]:
        """Outputs by the name of their samples, "test" first; with an axis O also where the targets had none."""
        found = {"test": self.test, "train": self.train}
        flat = self.train.ndim - np.ndim(0 if self.times is None else self.times) == 1
        return {name: values[..., None] if flat else values for name, values in found.items() if values is not None}

    def headline(self) -> str:
        """The line over the table in a notebook: of how many samples, and when."""
        counts = {name: values.shape[-2:] for name, values in self.by_samples().items()}
        samples, outputs = counts["train"]
        said = f"{counted(outputs, 'output')} of {counted(samples, 'training sample')}"
        said += f" and {counted(counts['test'][0], 'test sample')}" if "test" in counts else ""
        if self.times is None:
            return said
        times = [f"{time:g}" for time in np.ravel(self.times)]
        return f"{said} at t = {', '.join(times if len(times) < 6 else [*times[:4], '...', times[-1]])}"

    def plot(self, ax: Any = None) -> Any:
        """Outputs by sample, or by time where there are several, on `ax` or a new figure; returns the Axes.

        Of the test samples, where there are any.
        """
        return draw("predictions:draw_outputs", ax, self)


class _Path(NamedTuple):
    """How far training outputs have moved, and the weights a(t) with which others move: f_test + k_test a(t).

    a' = -dL/df, a(0) = 0, and training outputs move by K a(t).
    """

    moved: np.ndarray
    weights: np.ndarray


class GradientFlow(Displayed):
    """The path of outputs under gradient flow; `gradient_flow` makes it."""

    def __init__(self, system: System, slope: Slope | None, momentum: float | None) -> None:
        self._system = system
        self._slope = slope
        self._momentum = momentum

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        n, outputs = self._system.y.shape
        solved = "in closed form" if self._slope is None and self._momentum is None else "as a differential equation"
        return [{"training samples": n, "outputs": outputs, "momentum": self._momentum, "solved": solved}]

    def __repr__(self) -> str:
        n, outputs = self._system.y.shape
        data = f"{counted(n, 'training sample')} and {counted(outputs, 'output')}"
        return f"GradientFlow of {data}: .at(t) is where it leads"

    def at(self, t: Any, f_train: object = None, f_test: object = None, k_test: object = None) -> Prediction:
        """Outputs at time `t`.

        Args:
            t: a number of at least 0, an array (T,) of them, or math.inf (for "mse").
            f_train: outputs of the training samples at time 0, (n, O); None means zero.
            f_test: outputs of the test samples at time 0, (m, O); None means zero.
            k_test: the kernel of test samples against training samples, (m, n) or (m, n, O, O).

        Raises:
            OptionError: a time that is negative or NaN, infinite for a loss without a closed form, or `f_test` without
                `k_test`.
            InputError, ShapeError: what is wrong with the arrays.
            NumericalError: the kernel is not positive semidefinite or, for infinite time, singular.
        """
        times = checked_times(t)
        system = self._system
        start = system.initial("f_train", f_train, len(system.y))
        if k_test is None and f_test is not None:
            raise OptionError(
                "f_test without k_test", allowed="both", remedy="give k_test=ub.ntk(model, x_test, x_train)"
            )
        paths = self._paths(times.reshape(-1), start)

        def outputs(initial: np.ndarray, moved: list[np.ndarray]) -> np.ndarray:
            found = np.stack([initial + system.outputs(one) for one in moved])
            return system.shown(found.reshape(*times.shape, *initial.shape))

        train = outputs(start, [path.moved for path in paths])
        if k_test is None:
            return Prediction(train, None, times)
        matrix, count = system.test_matrix(k_test)
        test = outputs(system.initial("f_test", f_test, count), [matrix @ path.weights for path in paths])
        return Prediction(train, test, times)

    def _paths(self, times: np.ndarray, start: np.ndarray) -> list[_Path]:
        if self._slope is None and (self._momentum is None or np.isinf(times).all()):
            return [self._closed_form(time, start) for time in times]
        if not np.isfinite(times).all():
            raise OptionError(
                "an infinite time for a loss without a closed form", allowed="finite times", remedy="give a large one"
            )
        return self._integrated(times, start)

    def _closed_form(self, time: float, start: np.ndarray) -> _Path:
        system = self._system
        rest = system.columns(system.y - start)
        if math.isinf(time):
            return _Path(rest, system.solve(rest))
        scaled = time / system.y.size
        # Not matrix @ weights: where eigenvalues vanish, weights are large, and their digits would be lost.
        return _Path(
            system.filtered(lambda values: -np.expm1(-values * scaled), rest),
            system.filtered(lambda values: relaxation(values, scaled), rest),
        )

    def _integrated(self, times: np.ndarray, start: np.ndarray) -> list[_Path]:
        system, momentum = self._system, self._momentum
        _ = system.eigen  # outputs of a kernel that is not PSD would run away, or look right
        slope = mse_slope if self._slope is None else self._slope
        size = system.columns(start).size

        def derivative(_: float, state: np.ndarray) -> np.ndarray:
            moved = state[:size].reshape(len(system.matrix), -1)
            f = start + system.outputs(system.matrix @ moved)
            downhill = -_checked_slope(slope(f, system.y), f).reshape(-1)
            if momentum is None:
                return downhill
            velocity = state[size:]
            return np.concatenate([velocity, (momentum - 1.0) * velocity + downhill])

        order = np.argsort(times)
        initial = np.zeros(size if momentum is None else 2 * size)
        end = float(times.max(initial=0.0))
        if end == 0.0:
            still = np.zeros((len(system.matrix), size // len(system.matrix)))
            return [_Path(still, still) for _ in times]
        done = solve_ivp(
            derivative, (0.0, end), initial, method="LSODA", t_eval=times[order], rtol=ACCURACY, atol=ACCURACY * 1e-2
        )
        if not done.success:
            raise NumericalError(
                f"the differential equation could not be solved up to t = {end:g} ({done.message})",
                allowed="a loss with a continuous derivative",
                remedy="ask for smaller times, or check the loss",
            )
        found = np.empty((len(times), size))
        found[order] = done.y[:size].T
        weights = [one.reshape(len(system.matrix), -1) for one in found]
        return [_Path(system.matrix @ one, one) for one in weights]


def gradient_flow(
    k_train: object, y: object, *, loss: str | Slope = "mse", momentum: float | None = None, diag_reg: float = 0.0
) -> GradientFlow:
    """How outputs change when a linearised network with this kernel is trained by gradient flow, df/dt = -K dL/df.

    Args:
        k_train: the kernel of the training samples, (n, n), which acts on every output by itself, or (n, n, O, O) as
            outputs="full" gives it. For the former, what theory calls the NTK of a network with several outputs is the
            kernel of one of them, outputs="mean".
        y: targets (n, O), or (n,) for one output. For "cross_entropy", probabilities of the classes.
        loss: "mse", 0.5 / (n O) sum (f - y)^2, in closed form; "cross_entropy", the mean over samples of
            -sum_a y_a log softmax(f)_a; or a function of f (n, O) and y (n, O) that gives the derivative of a loss by
            f, (n, O). The latter two are solved as differential equations.
        momentum: of stochastic gradient descent with small steps: f'' = (momentum - 1) f' - K dL/df, where one step of
            learning rate h is a time of sqrt(h); None means none, and one step is a time of h.
        diag_reg: added to the diagonal of the kernel, relative to its mean.

    Raises:
        OptionError: a loss that does not exist, a momentum outside [0, 1), a negative `diag_reg`.
        InputError, ShapeError: what is wrong with the arrays; a kernel that is not symmetric.

    Source: Jacot, Gabriel, Hongler (2018); Lee et al. (2019), sections 2.2 and 2.3.
    """
    momentum = None if momentum is None else checked_not_negative("momentum", momentum)
    if momentum is not None and momentum >= 1:
        raise OptionError(
            f"momentum={brief(momentum)}", allowed="None, or a number from 0 to below 1", remedy="correct it"
        )
    slope: Slope | None
    if callable(loss):
        slope = loss
    elif isinstance(loss, str) and loss in SLOPES:
        slope = SLOPES[loss]
    else:
        raise OptionError(
            f"loss={brief(loss)}", allowed=f"{', '.join(SLOPES)}, or a function", remedy="use one of these names"
        )
    return GradientFlow(training_system(k_train, y, diag_reg), slope, momentum)


def relaxation(values: Float[np.ndarray, " size"], scaled: float) -> Float[np.ndarray, " size"]:
    """(1 - exp(-lambda t)) / lambda, whose limit for lambda = 0 is t."""
    positive = np.where(values > 0, values, 1.0)
    return np.where(values > 0, -np.expm1(-values * scaled) / positive, scaled)


def mse_slope(f: Float[np.ndarray, "n outputs"], y: Float[np.ndarray, "n outputs"]) -> Float[np.ndarray, "n outputs"]:
    """The derivative of 0.5 / (n O) sum (f - y)^2 with respect to f."""
    return (f - y) / y.size


def cross_entropy_slope(
    f: Float[np.ndarray, "n outputs"], y: Float[np.ndarray, "n outputs"]
) -> Float[np.ndarray, "n outputs"]:
    """The derivative of the mean over samples of -sum_a y_a log softmax(f)_a with respect to f."""
    return (softmax(f, axis=1) * y.sum(axis=1, keepdims=True) - y) / len(y)


SLOPES: dict[str, Slope | None] = {"mse": None, "cross_entropy": cross_entropy_slope}
"""The derivative, with respect to the outputs, of every loss with a name; None is the closed form of "mse"."""


def checked_times(t: object) -> np.ndarray:
    """Times of at least 0, infinity too, as float64. Raises `OptionError` for anything else."""
    times = as_array(t, "t")
    if times.dtype.kind not in "iuf" or times.ndim > 1 or times.size == 0 or not (times >= 0).all():
        raise OptionError(
            f"t={brief(t)}", allowed="a number of at least 0, or an array (T,) of them", remedy="correct t"
        )
    return times.astype(np.float64)


def _checked_slope(slope: object, f: np.ndarray) -> np.ndarray:
    found = checked_numbers("the derivative of the loss", slope)
    if found.shape != f.shape:
        raise ShapeError(
            f"the loss gave a derivative of shape {found.shape}",
            allowed=f"{f.shape}, that of the outputs",
            remedy="return dL/df, not L",
        )
    return found
