"""Losses of networks as functions of all their parameters in one vector, for the descents of `optimize`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.arrays import as_array
from udlbridge.backends.programs import Program
from udlbridge.errors import DTypeError, ShapeError, UDLBridgeWarning
from udlbridge.kernels.derivatives import outputs
from udlbridge.networks.inputs import checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.training.endings import NOT_AFTER, ending
from udlbridge.training.loop import loss_gradient
from udlbridge.training.objectives import Loss
from udlbridge.udl.expressions import Expression
from udlbridge.udl.function import Function
from udlbridge.words import EngineWord


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
            DTypeError, InputError: no real numbers.
        """
        vector = _as_vector(vector, self.model)
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

    Raises:
        InputError, DTypeError, OptionError: as `udlbridge.Function`, of the formula.

    Warns:
        UDLBridgeWarning: the formula applies softmax or sigmoid to outputs that are probabilities already.
    """

    def __init__(
        self,
        model: Model,
        x: np.ndarray,
        loss: Callable[[Expression], Expression],
        *,
        backend: EngineWord | None = None,
    ) -> None:
        super().__init__(model)
        self.x, self.backend = x, backend
        self._loss = Function(loss, backend=backend)
        _warn_of_twice(model, self._loss.program)

    def value(self, x: np.ndarray) -> float:
        """The loss of the model with parameters `x` (P,).

        Raises:
            NumericalError: it is not finite.
            InputError, DTypeError, ShapeError: as `gradient`.
        """
        return self._loss.value(outputs(self.at(x), self.x, backend=self.backend))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """sum_ia (dL/df_ia) (df_a(x_i)/dtheta), (P,): one backward pass of the engine, and no Jacobian.

        Raises:
            NumericalError: the loss, or its derivative with respect to an output, is not finite.
            InputError, DTypeError, ShapeError: the network cannot take the samples, or `x` is not its parameters.
        """
        model = self.at(x)
        batch = checked_batch(model, self.x)
        output_size(model, batch.shape[1:])
        slope = self._loss.gradient(outputs(model, batch, backend=self.backend))
        blocks = backends.get(self.backend).pull(model, batch, slope)
        return np.concatenate([blocks[name].ravel() for name in model.params])


class LossFunction(ParameterVector):
    """A training loss over all samples as a function of all the parameters in one vector.

    Args:
        model, x, y, loss, backend: as for `udlbridge.train`.

    Raises:
        As `udlbridge.train`, when it is evaluated.
    """

    def __init__(
        self,
        model: Model,
        x: np.ndarray,
        y: np.ndarray,
        *,
        loss: Loss = "cross_entropy",
        backend: EngineWord | None = None,
    ) -> None:
        super().__init__(model)
        self.x, self.y, self.loss, self.backend = x, y, loss, backend
        self._last: tuple[bytes, float, np.ndarray] | None = None

    def value(self, x: np.ndarray) -> float:
        """The loss of the model with parameters `x` (P,)."""
        return self._at(x)[0]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Its derivative with respect to them, (P,)."""
        return self._at(x)[1]

    def _at(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Engines give both at once, and descents ask for both at the same point: the last one is kept."""
        vector = _as_vector(x, self.model)
        key = vector.tobytes()
        if self._last is None or self._last[0] != key:
            value, blocks = loss_gradient(self.at(vector), self.x, self.y, loss=self.loss, backend=self.backend)
            self._last = key, value, np.concatenate([block.ravel() for block in blocks.values()])
        return self._last[1:]


def _warn_of_twice(model: Model, program: Program) -> None:
    """Say so where a formula for logits, as of `losses.Categorical`, is taken of probabilities."""
    end = ending(model)
    symbol = {number for number, step in enumerate(program) if step.operation == "input"}
    applied = {step.operation for step in program if symbol & set(step.arguments)}
    for loss, operations in (("cross_entropy", {"logsumexp"}), ("binary_cross_entropy", {"softplus", "sigmoid"})):
        if end is not None and end.kind in NOT_AFTER[loss] and applied & operations:
            warnings.warn(
                UDLBridgeWarning(
                    f"the formula takes the {', '.join(sorted(applied & operations))} of the outputs, as of logits, "
                    f"and layer {end.layer} of the network ends in {end.kind}. Leave that out, or say in the formula "
                    "what you want of probabilities"
                ),
                stacklevel=3,
            )


def _as_vector(vector: object, model: Model) -> np.ndarray:
    """Parameters in any container as an array of real numbers; of what has no dtype, in the model's."""
    array = as_array(vector, "the parameter vector", wanted=model.dtype)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"a parameter vector of dtype {array.dtype}", allowed="real numbers", remedy="use start()")
    return array
