"""Outputs of a linearised network under gradient descent with steps of finite size."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.displays import Displayed
from udlbridge.errors import UDLBridgeWarning
from udlbridge.options import checked_count, checked_positive
from udlbridge.predict.flows import Prediction
from udlbridge.predict.systems import System, training_system
from udlbridge.texts import counted


class GradientDescent(Displayed):
    """The path of outputs under full-batch gradient descent; `gradient_descent` makes it."""

    def __init__(self, system: System, rate: float) -> None:
        self._system = system
        self._rate = rate

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        n, outputs = self._system.y.shape
        return [{"training samples": n, "outputs": outputs, "learning rate": self._rate}]

    def __repr__(self) -> str:
        n, outputs = self._system.y.shape
        data = f"{counted(n, 'training sample')} and {counted(outputs, 'output')}"
        return f"GradientDescent of {data}: .after(steps) is where it leads"

    def after(self, steps: Any, f_train: object = None, f_test: object = None, k_test: object = None) -> Prediction:
        """Outputs after so many steps; the other arguments are those of `GradientFlow.at`.

        Raises:
            OptionError: `steps` is not a whole number of at least 0.
            InputError, ShapeError, NumericalError: as `GradientFlow.at`.
        """
        count = checked_count("steps", steps, 0)
        system = self._system
        start = system.initial("f_train", f_train, len(system.y))
        share = self._rate / system.y.size
        rest = system.columns(system.y - start)
        train = system.shown(
            start + system.outputs(system.filtered(lambda values: progress(share * values, count), rest))
        )
        if k_test is None:
            return Prediction(train, None, np.array(count))
        matrix, samples = system.test_matrix(k_test)
        weights = system.filtered(lambda values: _progress_by(values, share, count), rest)
        test = system.initial("f_test", f_test, samples) + system.outputs(matrix @ weights)
        return Prediction(train, system.shown(test), np.array(count))


def progress(step: Float[np.ndarray, " size"], count: int) -> Float[np.ndarray, " size"]:
    """1 - (1 - step)^count, with all its digits where steps are small."""
    inside = step < 1  # beyond, the factor is negative and has no logarithm
    return np.where(inside, -np.expm1(count * np.log1p(-np.where(inside, step, 0.0))), 1 - (1 - step) ** count)


def _progress_by(values: np.ndarray, share: float, count: int) -> np.ndarray:
    """progress / lambda, whose limit for lambda = 0 is share * count."""
    positive = np.where(values > 0, values, 1.0)
    return np.where(values > 0, progress(share * values, count) / positive, share * count)


def gradient_descent(k_train: object, y: object, *, learning_rate: float, diag_reg: float = 0.0) -> GradientDescent:
    """How outputs change under full-batch gradient descent on 0.5 / (n O) sum (f - y)^2, in closed form.

    Args:
        k_train, y, diag_reg: as for `gradient_flow`.
        learning_rate: of each step. `udlbridge.train` with loss "mse", which is twice this loss, takes the same steps
            with half of it.

    Raises:
        OptionError, InputError, ShapeError: as `gradient_flow`.

    Warns:
        UDLBridgeWarning: the rate is above the largest one for which outputs converge.

    Source: Lee et al. (2019), section 2.2, for steps of finite size.
    """
    rate = checked_positive("learning_rate", learning_rate)
    system = training_system(k_train, y, diag_reg)
    largest = float(system.eigen[0][-1])
    limit = 2.0 * system.y.size / largest if largest > 0 else np.inf
    if rate > limit:
        warnings.warn(
            UDLBridgeWarning(f"learning_rate={rate:g} is above {limit:.6g}, from which on outputs diverge"),
            stacklevel=2,
        )
    return GradientDescent(system, rate)
