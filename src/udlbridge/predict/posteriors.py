"""Gaussian process regression with a kernel: the posterior, and how likely the targets are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.displays import Displayed, draw, mean_lines
from udlbridge.errors import ShapeError
from udlbridge.predict.systems import as_matrix, check_symmetric, checked_kernel, training_system


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Displayed):
    """Mean (m, O) and covariance (m, m), the same for every output, or (m, O, m, O) where outputs are coupled.
    The mean is (m,) where the targets came as (n,).

    `log_marginal_likelihood` is log p(y), summed over outputs. `covariance` is None unless the kernel of the test
    samples was given.
    """

    mean: np.ndarray
    covariance: np.ndarray | None
    log_marginal_likelihood: float

    def as_rows(self) -> Sequence[Mapping[str, Any]]:
        """What the table in a notebook shows: means and standard deviations by test sample."""
        return mean_lines(self.mean, self.covariance)

    def plot(self, ax: Any = None) -> Any:
        """Means with two standard deviations by test sample, on `ax` or a new figure; returns the Axes."""
        return draw("predictions:draw_means", ax, self.mean, self.covariance, "posterior")

    def headline(self) -> str:
        """The line over the table in a notebook."""
        return f"{self.mean.shape[0]} test samples; log p(y) = {self.log_marginal_likelihood:.6g}"


def posterior(k_train: object, k_test: object, k_test_test: object, y: object, *, diag_reg: float = 0.0) -> Posterior:
    """The posterior of a Gaussian process with this kernel at test samples, given targets at training samples.

    Args:
        k_train: (n, n), or (n, n, O, O) for coupled outputs.
        k_test: test against training samples, (m, n) or (m, n, O, O).
        k_test_test: (m, m) or (m, m, O, O); None leaves the covariance out.
        y: targets (n, O) or (n,).
        diag_reg: the variance of the noise in y, relative to the mean diagonal of the kernel.

    Raises:
        InputError, ShapeError, OptionError: what is wrong with the arguments.
        NumericalError: the training kernel is singular.

    Source: Rasmussen and Williams (2006), algorithm 2.1.
    """
    system = training_system(k_train, y, diag_reg)
    matrix, count = system.test_matrix(k_test)
    targets = system.columns(system.y)
    weights = system.solve(targets)
    right = targets.shape[1]
    likelihood = -0.5 * float((targets * weights).sum()) - 0.5 * right * (
        system.log_determinant + len(targets) * math.log(2 * math.pi)
    )
    covariance = None
    if k_test_test is not None:
        own = as_matrix(checked_kernel("k_test_test", k_test_test))
        if own.shape != (len(matrix), len(matrix)):
            raise ShapeError(
                f"k_test_test is {own.shape} as a matrix",
                allowed=f"the kernel of the {count} test samples with themselves",
                remedy="compute it as ub.ntk(model, x_test)",
            )
        check_symmetric("k_test_test", own)
        covariance = own - matrix @ system.solve(matrix.T)
        if system.coupled:
            outputs = system.y.shape[1]
            covariance = covariance.reshape(count, outputs, count, outputs)
    return Posterior(system.shown(system.outputs(matrix @ weights)), covariance, likelihood)
