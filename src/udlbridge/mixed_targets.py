"""Fitting values at some points and slopes at others: a loss on a network and on its derivatives by the input."""

from __future__ import annotations

import numpy as np

from udlbridge import backends
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.inputs import checked_batch, output_size
from udlbridge.kernel import input_jacobian, jacobian, outputs
from udlbridge.model import Model
from udlbridge.optimize import ParameterVector


class SobolevFunction(ParameterVector):
    """sum (f - y)^2 + weight sum (df/dx - s)^2 over what was observed, as a function of all parameters in one vector.

    It has `value` and `gradient` at a vector, so the descents of `udlbridge.optimize` take it; `start()` gives the
    first vector and `at(vector)` the model. Made by `udlbridge.losses.sobolev`.
    """

    def __init__(
        self, model: Model, x: np.ndarray, y: np.ndarray, slopes: np.ndarray, weight: float, backend: str | None
    ) -> None:
        super().__init__(model)
        self.x, self.backend, self.weight = checked_batch(model, x), backend, weight
        shape = (len(self.x), output_size(model, self.x))
        self.y = _observed("values", y, shape)
        self.slopes = _observed("slopes", slopes, (*shape, *self.x.shape[1:]))
        if np.isnan(self.y).all() and np.isnan(self.slopes).all():
            raise InputError("targets without any observation", allowed="at least one number", remedy="NaN means none")
        if not (np.isfinite(weight) and weight > 0):
            raise OptionError(f"weight={weight}", allowed="a positive number", remedy="correct it")

    def value(self, vector: np.ndarray) -> float:
        """The loss at the parameters `vector` (P,)."""
        gaps = self._gaps(self.at(vector))
        return float(np.sum(gaps[0] ** 2) + self.weight * np.sum(gaps[1] ** 2))

    def gradient(self, vector: np.ndarray) -> np.ndarray:
        """Its gradient, (P,): second derivatives of the network, by one parameter and one input each, come in."""
        model = self.at(vector)
        by_value, by_slope = self._gaps(model)
        blocks = jacobian(model, self.x, backend=self.backend)
        cotangent = np.ascontiguousarray(2 * self.weight * by_slope, dtype=model.dtype)
        mixed = backends.get(self.backend).slope_gradient(model, self.x, cotangent)
        parts = [np.tensordot(2 * by_value, block, axes=2) + mixed[name] for name, block in blocks.items()]
        return np.concatenate([part.ravel() for part in parts])

    def _gaps(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        """f - y and df/dx - s; 0 where nothing was observed."""
        values = outputs(model, self.x, backend=self.backend) - self.y
        slopes = input_jacobian(model, self.x, backend=self.backend) - self.slopes
        return np.nan_to_num(values, nan=0.0), np.nan_to_num(slopes, nan=0.0)


def _observed(what: str, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != shape:
        raise ShapeError(f"{what} of shape {array.shape}", allowed=f"{shape}, NaN where none", remedy="reshape them")
    if np.isinf(array).any():
        raise InputError(f"{what} that are infinite", allowed="numbers, NaN where none", remedy="clean the data")
    return array
