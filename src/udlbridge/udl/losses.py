"""Likelihoods of observations under a network's outputs, and the losses that they imply, in every engine.

A distribution turns outputs f and observations y into one expression, the negative log likelihood; each engine computes
and differentiates it by itself. Probabilities are never formed: Bernoulli and categorical losses work on logits.

Source: Prince, Understanding Deep Learning (2023), chapter 5.

Examples:
    >>> ub.losses.sum_of_squares(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    5.0
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError, UDLBridgeWarning
from udlbridge.options import brief, checked_positive
from udlbridge.texts import completion
from udlbridge.training.objectives import Sobolev
from udlbridge.udl.expressions import Expression, column, exp, logsumexp, softplus, total
from udlbridge.udl.function import Function, checked_argument
from udlbridge.words import EngineWord

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Gaussian",
    "Sobolev",
    "likelihood",
    "negative_log_likelihood",
    "negative_log_likelihood_gradient",
    "sobolev",
    "sum_of_squares",
]
__dir__ = completion(__all__)


class Distribution(ABC):
    """How observations are distributed, given the outputs of a network."""

    @abstractmethod
    def observations_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that observations must have for outputs of this shape."""

    @abstractmethod
    def negative_log(self, f: Expression, y: np.ndarray) -> Expression:
        """-log Pr(y | f), summed over the observations, which are `encoded`."""

    def encoded(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The observations as `negative_log` takes them; here as they are."""
        return y

    def check_observations(self, f: np.ndarray, y: np.ndarray) -> None:
        """Raise `ShapeError` or `InputError` if `y` cannot be observed together with the outputs `f`."""
        expected = self.observations_shape(f.shape)
        if y.shape != expected:
            raise ShapeError(
                f"observations of shape {y.shape} for outputs of shape {f.shape} under {self}",
                allowed=f"shape {expected}",
                remedy="reshape the observations: nothing is broadcast here",
            )
        if not np.isfinite(y).all():
            raise InputError("observations are NaN or infinite", allowed="finite numbers", remedy="clean the data")


@dataclass(frozen=True)
class Gaussian(Distribution):
    """Normal observations around the outputs, y ~ N(f, sigma^2), equations 5.7 to 5.11.

    `sigma=None` is the heteroscedastic case: f (..., 2) holds the mean and the logarithm of the variance.

    Raises:
        OptionError: a `sigma` that is not positive.
    """

    sigma: float | None = 1.0

    def __post_init__(self) -> None:
        if self.sigma is not None:
            object.__setattr__(self, "sigma", checked_positive("sigma", self.sigma))

    def observations_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As the outputs; without the last axis, which must be 2, in the heteroscedastic case."""
        if self.sigma is not None:
            return shape
        return _without_last(shape, 2, self)

    def negative_log(self, f: Expression, y: np.ndarray) -> Expression:
        """sum (y - f)^2 / (2 sigma^2) + log(sigma sqrt(2 pi))."""
        if self.sigma is not None:
            fixed = y.size * math.log(self.sigma * math.sqrt(2 * math.pi))
            return total((f - y) ** 2) / (2 * self.sigma**2) + fixed
        mean, log_variance = column(f, 0), column(f, 1)
        return 0.5 * total((mean - y) ** 2 * exp(-log_variance) + log_variance + math.log(2 * math.pi))


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """Observations 0 or 1, where the output f is the logit: Pr(y = 1) = sigmoid(f). Equations 5.17 to 5.20."""

    def observations_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As the outputs."""
        return shape

    def check_observations(self, f: np.ndarray, y: np.ndarray) -> None:
        """As for every distribution; observations are 0 or 1.

        Raises:
            InputError: an observation that is not.
            ShapeError: another shape than the outputs ask for.
        """
        super().check_observations(f, y)
        if not np.isin(y, (0, 1)).all():
            raise InputError("an observation that is neither 0 nor 1", allowed="0, 1", remedy="encode the two classes")

    def negative_log(self, f: Expression, y: np.ndarray) -> Expression:
        """sum softplus(f) - y f."""
        return total(softplus(f) - y * f)


@dataclass(frozen=True)
class Categorical(Distribution):
    """Observations 0 ... K-1, where the outputs f (..., K) are logits: Pr(y = k) = softmax(f)_k. Equation 5.24.

    Outputs of a network that ends in LogSoftmax are as good; for those of one that ends in Softmax there is a warning.
    """

    def observations_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As the outputs, without the axis of the classes."""
        return _without_last(shape, None, self)

    def check_observations(self, f: np.ndarray, y: np.ndarray) -> None:
        """As for every distribution; observations are class numbers.

        Raises:
            InputError: an observation that is not.
            ShapeError: another shape than the outputs ask for.
        """
        super().check_observations(f, y)
        if not np.isin(y, np.arange(f.shape[-1])).all():
            raise InputError(
                f"a class that is not among the {f.shape[-1]} of the outputs",
                allowed=f"0 to {f.shape[-1] - 1}",
                remedy="number the classes from 0",
            )
        if _are_probabilities(f):
            warnings.warn(
                UDLBridgeWarning(
                    "every row of the outputs sums to 1, as probabilities do, and Categorical takes logits: this is a "
                    "second softmax. Leave the Softmax out of the network"
                ),
                stacklevel=2,
            )

    def encoded(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One-hot, shaped as the outputs."""
        return np.equal(y[..., None], np.arange(f.shape[-1]))

    def negative_log(self, f: Expression, y: np.ndarray) -> Expression:
        """sum logsumexp(f) - y f, where y is one-hot."""
        return total(logsumexp(f)) - total(f * y)


def _are_probabilities(f: np.ndarray) -> bool:
    """Whether there are several rows, and each is positive and sums to 1: no logits do that by chance."""
    rows = f.reshape(-1, f.shape[-1])
    return len(rows) > 1 and bool((rows > 0).all() and np.allclose(rows.sum(axis=1), 1.0, rtol=0, atol=1e-5))


def _without_last(shape: tuple[int, ...], size: int | None, distribution: Distribution) -> tuple[int, ...]:
    if not shape or (size is not None and shape[-1] != size):
        raise ShapeError(
            f"outputs of shape {shape} under {distribution}",
            allowed=f"a last axis of {size or 'the classes'}",
            remedy="give the network that many outputs",
        )
    return shape[:-1]


def negative_log_likelihood(
    distribution: Distribution, f: np.ndarray, y: np.ndarray, *, backend: EngineWord | None = None
) -> float:
    """-log of the probability (density) of all observations together.

    Args:
        distribution: `Gaussian(sigma)`, `Gaussian(None)`, `Bernoulli()` or `Categorical()`.
        f: outputs of a network, float32 or float64; logits for the last two.
        y: observations: shaped as `f`, but without the last axis for `Gaussian(None)` and `Categorical()`.
        backend: the engine; None is the default one.

    Raises:
        OptionError: `distribution` is not a distribution.
        ShapeError, InputError, DTypeError: what is wrong with `f` or `y`.
    """
    f, y = _checked(distribution, f, y)
    return Function(lambda out: distribution.negative_log(out, y), backend=backend).value(f)


def negative_log_likelihood_gradient(
    distribution: Distribution, f: np.ndarray, y: np.ndarray, *, backend: EngineWord | None = None
) -> np.ndarray:
    """d(negative log likelihood)/df, shaped as `f`. Arguments and errors as `negative_log_likelihood`."""
    f, y = _checked(distribution, f, y)
    return Function(lambda out: distribution.negative_log(out, y), backend=backend).gradient(f)


def likelihood(distribution: Distribution, f: np.ndarray, y: np.ndarray, *, backend: EngineWord | None = None) -> float:
    """The probability (density) of all observations together; 0 where it is too small for a float, inf where too large.

    Computed from its logarithm. Arguments and errors as `negative_log_likelihood`.
    """
    try:
        return math.exp(-negative_log_likelihood(distribution, f, y, backend=backend))
    except OverflowError:
        return math.inf


def sum_of_squares(f: np.ndarray, y: np.ndarray, *, backend: EngineWord | None = None) -> float:
    """sum (f - y)^2 (equation 5.10). Arguments and errors as `negative_log_likelihood`."""
    f, y = _checked(Gaussian(), f, y)
    return Function(lambda out: total((out - y) ** 2), backend=backend).value(f)


def sobolev(slopes: np.ndarray, *, weight: float = 1.0) -> Sobolev:
    """Values of a network at some samples, and its input derivatives at others: a loss for `udlbridge.train`.

    It is the mean over samples of sum_a (f_a - y_a)^2 + weight sum_ad (d f_a / d x_d - slopes_ad)^2, over what was
    observed. The targets y (n, O) of `train` are NaN where no value was. The engine `reference` has it for Dense,
    Activation, Flatten and Dropout. Its gradient contains second derivatives of activations; at kinks
    every engine takes 0, as in `udlbridge.input_hessian`.

    Args:
        slopes: derivatives with respect to the input (n, O, *D), NaN where none was observed.
        weight: of the slopes.

    Returns:
        What `train`, `loss_gradient` and `optimize.LossFunction` take as `loss=`.

    Raises:
        OptionError: a weight that is not positive.

    Source: Czarnecki et al. (2017), equation 1.
    """
    return Sobolev(slopes, weight)


def _checked(distribution: Distribution, f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(distribution, Distribution):
        raise OptionError(
            f"{brief(distribution)} in the place of the distribution",
            allowed="Gaussian(sigma), Gaussian(None), Bernoulli(), Categorical()",
            remedy="make one, with parentheses",
        )
    outputs, observations = checked_argument(f), checked_observations(y)
    distribution.check_observations(outputs, observations)
    return outputs, distribution.encoded(outputs, observations)


def checked_observations(y: object) -> np.ndarray:
    """`y` as an array of float64.

    Raises:
        DTypeError: not real numbers.
    """
    array = as_array(y, "the observations", wanted=np.float64)
    if array.dtype.kind not in "biuf":
        raise DTypeError(
            f"observations of dtype {array.dtype}", allowed="real numbers", remedy="np.asarray(y, dtype=float)"
        )
    return array.astype(np.float64)
