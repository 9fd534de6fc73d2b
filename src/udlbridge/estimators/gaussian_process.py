"""The NTK of an infinite network as a kernel of scikit-learn's Gaussian processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from udlbridge.estimators.pairwise import network_kernel

STEP = 1e-5
"""The relative step of the central difference for the gradient: its error is about 1e-10."""


class NTKKernel(Kernel):  # type: ignore[misc]
    """NTK of infinitely wide hidden layers, with `w_std` and `b_std` as hyperparameters.

    Args:
        depth, activation: of the network, as for `network_kernel`.
        w_std, b_std: standard deviations of weights, times sqrt(fan_in), and of biases.
        w_std_bounds, b_std_bounds: where they are searched for, or "fixed".

    Raises:
        As `network_kernel`, when it is called.

    Example: `GaussianProcessRegressor(NTKKernel() + WhiteKernel())`.
    """

    def __init__(
        self,
        depth: int = 2,
        activation: str = "relu",
        w_std: float = 2.0**0.5,
        b_std: float = 0.1,
        w_std_bounds: Any = (0.1, 10.0),
        b_std_bounds: Any = (1e-3, 10.0),
    ) -> None:
        self.depth = depth
        self.activation = activation
        self.w_std = w_std
        self.b_std = b_std
        self.w_std_bounds = w_std_bounds
        self.b_std_bounds = b_std_bounds

    @property
    def hyperparameter_w_std(self) -> Hyperparameter:
        """The scale of weights."""
        return Hyperparameter("w_std", "numeric", self.w_std_bounds)

    @property
    def hyperparameter_b_std(self) -> Hyperparameter:
        """The scale of biases."""
        return Hyperparameter("b_std", "numeric", self.b_std_bounds)

    def __call__(self, X: np.ndarray, Y: np.ndarray | None = None, eval_gradient: bool = False) -> Any:
        """The kernel (n, m), and with `eval_gradient` its derivative (n, n, free) by logarithms of free parameters."""
        k = self._at(X, Y, self.w_std, self.b_std)
        if not eval_gradient:
            return k
        free = [h.name for h in self.hyperparameters if not h.fixed]
        gradient = np.empty((*k.shape, len(free)))
        for index, name in enumerate(free):
            values = [{"w_std": self.w_std, "b_std": self.b_std} for _ in range(2)]
            for one, factor in zip(values, (np.exp(STEP), np.exp(-STEP)), strict=True):
                one[name] *= factor
            gradient[..., index] = (self._at(X, None, **values[0]) - self._at(X, None, **values[1])) / (2 * STEP)
        return k, gradient

    def diag(self, X: np.ndarray) -> np.ndarray:
        """The diagonal of the kernel of X with itself, (n,), one sample at a time."""
        return np.array([self._at(x[None], None, self.w_std, self.b_std)[0, 0] for x in np.asarray(X)])

    def is_stationary(self) -> bool:
        """It depends on the samples themselves, and not on their differences alone."""
        return False

    def _at(self, x: np.ndarray, y: np.ndarray | None, w_std: float, b_std: float) -> np.ndarray:
        return network_kernel(
            np.atleast_2d(x), None if y is None else np.atleast_2d(y), depth=self.depth, activation=self.activation,
            w_std=w_std, b_std=b_std,
        )  # fmt: skip
