"""The ensemble of infinitely wide networks that were trained from random starts: mean and covariance of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.displays import Displayed, draw, mean_lines
from udlbridge.errors import OptionError, ShapeError
from udlbridge.options import brief
from udlbridge.predict.flows import checked_times, relaxation
from udlbridge.predict.systems import System, check_symmetric, checked_kernel, training_system


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(Displayed):
    """Mean (m, O) of the outputs at test samples, and their covariance (m, m), the same for every output.

    The mean is (m,) where the targets came as (n,).
    """

    mean: np.ndarray
    covariance: np.ndarray

    def as_rows(self) -> Sequence[Mapping[str, Any]]:
        """What the table in a notebook shows: means and standard deviations by test sample."""
        return mean_lines(self.mean, self.covariance)

    def plot(self, ax: Any = None) -> Any:
        """Means with two standard deviations by test sample, on `ax` or a new figure; returns the Axes."""
        return draw("predictions:draw_means", ax, self.mean, self.covariance, "ensemble")

    def headline(self) -> str:
        """The line over the table in a notebook."""
        return f"{self.mean.shape[0]} test samples"


def infinite_ensemble(
    nngp_train: object,
    nngp_test: object,
    nngp_test_test: object,
    y: object,
    *,
    ntk_train: object = None,
    ntk_test: object = None,
    t: Any = math.inf,
    diag_reg: float = 0.0,
) -> Ensemble:
    """Outputs at test samples after gradient flow for a time `t`, over all random starts of infinitely wide networks.

    With the NTK, all layers are trained; without it, the last one alone, whose kernel is the NNGP kernel: at infinite
    time that is exact Bayesian inference. The loss is 0.5 / (n O) sum (f - y)^2, with learning rate 1.

    Args:
        nngp_train, nngp_test, nngp_test_test: the NNGP kernel, the covariance of outputs at the start: (n, n), (m, n)
            and (m, m).
        y: targets (n, O) or (n,).
        ntk_train, ntk_test: the NTK, (n, n) and (m, n); None means that the last layer alone is trained.
        t: a number of at least 0, or math.inf.
        diag_reg: added to the diagonal of the kernel that is trained with, relative to its mean.

    Raises:
        OptionError: a negative time, or one of the NTK's kernels without the other.
        InputError, ShapeError: what is wrong with the kernels.
        NumericalError: a kernel that is not positive semidefinite or, for infinite time, singular.

    Source: Lee et al. (2019), equations 14 to 16.
    """
    if (ntk_train is None) != (ntk_test is None):
        raise OptionError("one of ntk_train and ntk_test", allowed="both or neither", remedy="give the other one too")
    if np.ndim(t) != 0:
        raise OptionError(
            f"t={brief(t)}", allowed="one number of at least 0", remedy="ask for one time after the other"
        )
    time = float(checked_times(t))
    nngp = training_system(nngp_train, y, diag_reg if ntk_train is None else 0.0)
    trained = nngp if ntk_train is None else training_system(ntk_train, y, diag_reg)
    for system in (nngp, trained):
        if system.coupled:
            raise ShapeError("a kernel (n, n, O, O)", allowed="(n, n)", remedy="give the kernel of one output")
    cross, _ = nngp.test_matrix(nngp_test)
    towards, _ = trained.test_matrix(nngp_test if ntk_test is None else ntk_test)
    own = checked_kernel("nngp_test_test", nngp_test_test)
    if own.shape != (len(cross), len(cross)) or len(towards) != len(cross):
        raise ShapeError(
            f"kernels of shapes {cross.shape}, {towards.shape} and {own.shape}",
            allowed="(m, n), (m, n) and (m, m) of the same m test samples",
            remedy="compute them on the same samples",
        )
    check_symmetric("nngp_test_test", own)
    mean = trained.shown(towards @ _relaxed(trained, time, trained.y))
    if ntk_train is None:
        # Parameters of the last layer alone move: what was random of the training outputs decays at twice the rate.
        covariance = own - cross @ _relaxed(nngp, 2 * time, cross.T)
    else:
        step = towards @ _relaxed(trained, time, np.eye(len(trained.matrix)))
        mixed = step @ cross.T
        covariance = own + step @ nngp.matrix @ step.T - mixed - mixed.T
    return Ensemble(mean, covariance)


def _relaxed(system: System, time: float, right: np.ndarray) -> np.ndarray:
    """K^-1 (1 - exp(-K t / (n O))) right."""
    if math.isinf(time):
        return system.solve(right)
    return system.filtered(lambda values: relaxation(values, time / system.y.size), right)
