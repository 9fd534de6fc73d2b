"""Minimising a function of a parameter vector: line search and gradient descent, with the whole path kept.

The functions come from `udlbridge.Function` or `ModelFunction`, so their gradients come from the chosen engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.kernels.derivatives import jacobian, outputs
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_positive
from udlbridge.training.loop import loss_gradient
from udlbridge.training.objectives import Loss
from udlbridge.udl.expressions import Expression
from udlbridge.udl.function import Function, checked_argument
from udlbridge.udl.linesearch import LineSearch as LineSearch
from udlbridge.udl.linesearch import line_search as line_search


class Differentiable(Protocol):
    """Anything with a value and a gradient at a vector."""

    def value(self, x: np.ndarray, /) -> float:
        """f(x)."""

    def gradient(self, x: np.ndarray, /) -> np.ndarray:
        """df/dx."""


@dataclass(frozen=True)
class Descent:
    """The path of a descent: `points` (steps + 1, p) and the function's `values` (steps + 1,) there."""

    points: Float[np.ndarray, "k p"]
    values: Float[np.ndarray, " k"]

    @property
    def minimum(self) -> np.ndarray:
        """The last point, (p,)."""
        return self.points[-1]


class ParameterVector:
    """The parameters of a model in one vector: in their order, each in C order."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def start(self) -> Float[np.ndarray, " p"]:
        """The model's own parameters as a vector."""
        return np.concatenate([value.ravel() for value in self.model.params.values()])

    def at(self, vector: np.ndarray) -> Model:
        """The model with the parameters of `vector`.

        Raises:
            ShapeError: another number of parameters.
        """
        if vector.shape != (self.model.n_params,):
            raise ShapeError(
                f"a parameter vector of shape {vector.shape}", allowed=f"({self.model.n_params},)", remedy="use start()"
            )
        params, first = {}, 0
        for name, value in self.model.params.items():
            params[name] = vector[first : first + value.size].reshape(value.shape).astype(self.model.dtype)
            first += value.size
        return self.model.with_params(params)


class ModelFunction(ParameterVector):
    """The loss of a model as a function of all its parameters in one vector.

    Args:
        model: the network.
        x: samples (n, *D).
        loss: from the symbol of the outputs (n, O) to a scalar expression.
        backend: the engine for outputs and derivatives; None is the default one.
    """

    def __init__(
        self, model: Model, x: np.ndarray, loss: Callable[[Expression], Expression], *, backend: str | None = None
    ) -> None:
        super().__init__(model)
        self.x, self.backend = x, backend
        self._loss = Function(loss, backend=backend)

    def value(self, x: np.ndarray) -> float:
        """The loss of the model with parameters `x` (P,)."""
        return self._loss.value(outputs(self.at(x), self.x, backend=self.backend))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """sum_ia (dL/df_ia) (df_a(x_i)/dtheta), (P,)."""
        model = self.at(x)
        slope = self._loss.gradient(outputs(model, self.x, backend=self.backend))
        blocks = jacobian(model, self.x, backend=self.backend)
        return np.concatenate([np.tensordot(slope, block, axes=2).ravel() for block in blocks.values()])


class LossFunction(ParameterVector):
    """A training loss over all samples as a function of all the parameters in one vector.

    Args:
        model, x, y, loss, backend: as for `udlbridge.train`.

    Raises:
        As `udlbridge.train`, when it is evaluated.
    """

    def __init__(
        self, model: Model, x: np.ndarray, y: np.ndarray, *, loss: Loss = "cross_entropy", backend: str | None = None
    ) -> None:
        super().__init__(model)
        self.x, self.y, self.loss, self.backend = x, y, loss, backend
        self._last: tuple[bytes, float, np.ndarray] | None = None

    def value(self, x: np.ndarray) -> float:
        """The loss of the model with parameters `x` (P,)."""
        return self._at(x)[0]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Its derivative by them, (P,)."""
        return self._at(x)[1]

    def _at(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Engines give both at once, and descents ask for both at the same point: the last one is kept."""
        key = x.tobytes()
        if self._last is None or self._last[0] != key:
            value, blocks = loss_gradient(self.at(x), self.x, self.y, loss=self.loss, backend=self.backend)
            self._last = key, value, np.concatenate([block.ravel() for block in blocks.values()])
        return self._last[1:]


def descend(function: Differentiable, start: np.ndarray, *, steps: int, step_size: float) -> Descent:
    """Gradient descent with a fixed step: x <- x - step_size * gradient.

    Args:
        function: what to minimise.
        start: first point (p,), float32 or float64; the whole path has its dtype.
        steps: number of them.
        step_size: the learning rate.

    Raises:
        OptionError: no steps, a `step_size` that is not positive, or a `function` without value and gradient.
        NumericalError: the path left the finite numbers.
    """
    _check_steps(steps, step_size)
    _checked_function(function)
    return _walk(start, steps, function.value, lambda x, step: x - step_size * function.gradient(x))


def descend_by_line_search(
    function: Differentiable, start: np.ndarray, *, steps: int, maximum: float = 1.0, iterations: int = 100
) -> Descent:
    """Gradient descent that finds the length of each step by `line_search` along the negative gradient.

    The values never rise: a step is taken only to a point that is lower. A step where the function cannot be computed
    (an overflow far away) is too long. Where even the shortest step promises less than rounding, the descent has
    arrived, and stays.

    Args:
        function, start, steps: as for `descend`.
        maximum: largest step size that is tried.
        iterations: of each line search at most; halvings of the interval count. 100 reach steps of 1e-16.

    Raises:
        As `descend` and `line_search`; NumericalError if no step that was tried leads downhill.
    """
    _check_steps(steps, maximum)
    _checked_function(function)

    def move(x: np.ndarray, step: int) -> np.ndarray:
        slope = function.gradient(x)
        here = function.value(x)
        tried: dict[float, float] = {}

        def along(distance: float) -> float:
            if distance == 0:
                return here
            tried[distance] = _value_or_infinity(function, _stepped(x, distance, slope))
            return tried[distance]

        found = line_search(along, maximum=maximum, iterations=iterations)
        if found.value < here:
            return _stepped(x, found.minimum, slope)
        length, size = (float(np.linalg.norm(v.astype(np.float64))) for v in (slope, x))
        # Values round, and so do points: a point that is off by its last digit is off by |gradient| |x| eps in value.
        visible = 100 * float(np.finfo(x.dtype).eps) * (abs(here) + length * size)
        if not _arrived(here, length**2, tried, visible):
            raise NumericalError(
                f"step {step}: no step size from {min(tried):g} to {maximum:g} along the negative gradient leads below "
                f"{here:g}",
                allowed="a function that falls along its negative gradient",
                remedy="take a smaller maximum or more iterations, or check the gradient",
            )
        return x

    return _walk(start, steps, function.value, move)


def _arrived(here: float, squared: float, tried: dict[float, float], visible: float) -> bool:
    """Whether a point that no step leads below is a minimum, as far as rounding lets one see.

    Args:
        here: the function there.
        squared: |gradient|^2; a short step t promises to fall by t |gradient|^2.
        tried: the function by step size.
        visible: the smallest difference of values that is more than rounding.
    """
    if min(tried) * squared > visible:
        return False  # a shorter step might do
    rises = ((step, value - here) for step, value in sorted(tried.items()) if value - here > visible)
    step, rise = next(rises, (0.0, math.inf))
    # Behind a minimum a rise that is seen first is due to curvature, and larger than what the gradient promises. A rise
    # of that very size means that the gradient points the wrong way.
    return step * squared < rise / 2


def _stepped(x: np.ndarray, distance: float, slope: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (x - distance * slope).astype(x.dtype)


def _value_or_infinity(function: Differentiable, point: np.ndarray) -> float:
    """The value, or +inf where it cannot be computed."""
    if not np.isfinite(point).all():
        return math.inf
    with np.errstate(all="ignore"):
        try:
            return function.value(point)
        except NumericalError:
            return math.inf


def descend_stochastically(
    function_of: Callable[[np.ndarray], Differentiable],
    start: np.ndarray,
    *,
    n: int,
    batch_size: int,
    steps: int,
    step_size: float,
    seed: int = 0,
) -> Descent:
    """Gradient descent on a new random batch at every step, drawn by NumPy so that all engines see the same ones.

    Args:
        function_of: the function restricted to the data of the given indices.
        start, steps, step_size: as for `descend`.
        n: number of data.
        batch_size: number of data in a batch, drawn without replacement.
        seed: for `numpy.random.default_rng`.

    Returns:
        The path, with the values of the function of all data.

    Raises:
        As `descend`; OptionError if the batch is empty or larger than the data.
    """
    _check_steps(steps, step_size)
    n = checked_count("n", n, 1)
    batch_size = checked_count("batch_size", batch_size, 1, n)
    generator = np.random.default_rng(checked_count("seed", seed, 0))
    batches = [generator.permutation(n)[:batch_size] for _ in range(steps)]

    def move(x: np.ndarray, step: int) -> np.ndarray:
        return x - step_size * function_of(batches[step]).gradient(x)

    return _walk(start, steps, _checked_function(function_of(np.arange(n))).value, move)


def _check_steps(steps: int, size: float) -> None:
    checked_count("steps", steps, 1)
    checked_positive("the size of a step", size)


def _checked_function(function: Differentiable) -> Differentiable:
    if callable(getattr(function, "value", None)) and callable(getattr(function, "gradient", None)):
        return function
    raise OptionError(
        f"a {type(function).__name__} without value(x) and gradient(x)",
        allowed="a udlbridge.Function, ModelFunction or LossFunction",
        remedy="ub.Function(lambda p: ...), with the functions of ub.expressions",
    )


def _walk(
    start: np.ndarray, steps: int, value: Callable[[np.ndarray], float], move: Callable[[np.ndarray, int], np.ndarray]
) -> Descent:
    first = checked_argument(start)
    if first.ndim != 1:
        raise ShapeError(f"a start of shape {first.shape}", allowed="a vector (p,)", remedy="start.ravel()")
    points = [first]
    for step in range(steps):
        point = move(points[-1], step).astype(first.dtype)
        if not np.isfinite(point).all():
            raise NumericalError(
                f"step {step} leads to {point}", allowed="finite points", remedy="take smaller steps or another start"
            )
        points.append(point)
    return Descent(np.stack(points), np.array([value(point) for point in points]))
