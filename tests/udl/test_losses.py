"""Likelihoods against SciPy's distributions, in every engine; gradients; stability; bad observations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax

import udlbridge as ub
from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError
from udlbridge.udl.expressions import program
from udlbridge.udl.losses import Bernoulli, Categorical, Distribution, Gaussian

RNG = np.random.default_rng(3)
F = RNG.standard_normal((6, 3))
CASES: dict[str, tuple[Distribution, np.ndarray, np.ndarray, float]] = {
    "gaussian": (Gaussian(0.7), F, F[::-1], -stats.norm(F, 0.7).logpdf(F[::-1]).sum()),
    "heteroscedastic": (
        Gaussian(None),
        F[:, :2],
        F[:, 2],
        -stats.norm(F[:, 0], np.exp(F[:, 1] / 2)).logpdf(F[:, 2]).sum(),
    ),
    "bernoulli": (Bernoulli(), F, (F[::-1] > 0) * 1, -stats.bernoulli(expit(F)).logpmf((F[::-1] > 0) * 1).sum()),
    "categorical": (
        Categorical(),
        F,
        np.array([0, 2, 1, 1, 0, 0]),
        -np.log(softmax(F, axis=1)[np.arange(6), [0, 2, 1, 1, 0, 0]]).sum(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_equals_scipy_and_gradient_equals_differences(name: str, backend: str) -> None:
    distribution, f, y, expected = CASES[name]
    value = ub.losses.negative_log_likelihood(distribution, f, y, backend=backend)
    assert value == pytest.approx(expected, rel=1e-13)
    assert ub.losses.likelihood(distribution, f, y, backend=backend) == pytest.approx(math.exp(-expected), rel=1e-12)
    gradient = ub.losses.negative_log_likelihood_gradient(distribution, f, y, backend=backend)
    for index in np.ndindex(f.shape):
        e = np.zeros_like(f)
        e[index] = 1e-6
        up = ub.losses.negative_log_likelihood(distribution, f + e, y, backend=backend)
        down = ub.losses.negative_log_likelihood(distribution, f - e, y, backend=backend)
        assert gradient[index] == pytest.approx((up - down) / 2e-6, abs=1e-7)


def test_sum_of_squares(backend: str) -> None:
    assert ub.losses.sum_of_squares(F, F[::-1], backend=backend) == pytest.approx(((F - F[::-1]) ** 2).sum(), rel=1e-14)


def test_extreme_logits_are_exact(backend: str) -> None:
    assert ub.losses.negative_log_likelihood(Bernoulli(), np.array([800.0]), np.array([0]), backend=backend) == 800.0
    nll = ub.losses.negative_log_likelihood(Bernoulli(), np.array([-40.0]), np.array([0]), backend=backend)
    assert nll == pytest.approx(math.exp(-40), rel=1e-12)
    wide = np.array([[900.0, -900.0]])
    assert ub.losses.negative_log_likelihood(Categorical(), wide, np.array([1]), backend=backend) == 1800.0
    assert ub.losses.negative_log_likelihood(Categorical(), wide, np.array([0]), backend=backend) == 0.0


def test_bad_observations_are_named() -> None:
    with pytest.raises(ShapeError, match="nothing is broadcast"):
        ub.losses.sum_of_squares(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ShapeError, match="a last axis of 2"):
        ub.losses.likelihood(Gaussian(None), np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(InputError, match="neither 0 nor 1"):
        ub.losses.likelihood(Bernoulli(), np.zeros(2), np.array([0, 2]))
    with pytest.raises(InputError, match="0 to 2"):
        ub.losses.likelihood(Categorical(), np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(InputError, match="NaN"):
        ub.losses.likelihood(Gaussian(), np.zeros(2), np.array([0, np.nan]))
    with pytest.raises(OptionError, match="sigma=-1"):
        Gaussian(-1)


@pytest.mark.usefixtures("untyped")
def test_what_is_no_distribution_and_no_number_is_named() -> None:
    with pytest.raises(OptionError, match="make one, with parentheses"):
        ub.losses.likelihood(Bernoulli, np.zeros(2), np.zeros(2))
    with pytest.raises(DTypeError, match=r"the observations of dtype <U1.*turn words into numbers"):
        ub.losses.likelihood(Gaussian(), np.zeros(2), np.array(["a", "b"]))


def test_densities_beyond_the_floats_are_infinite(backend: str) -> None:
    assert ub.losses.likelihood(Gaussian(1e-3), np.ones(200), np.ones(200), backend=backend) == math.inf
    assert ub.losses.likelihood(Gaussian(1e-3), np.zeros(2), np.ones(2), backend=backend) == 0


def test_a_categorical_formula_does_not_grow_with_the_classes() -> None:
    lengths = []
    for classes in (3, 300):
        f, y = np.zeros((4, classes)), np.array([0, 1, 2, classes - 1])
        encoded = Categorical().encoded(f, y)
        assert encoded.sum() == 4
        lengths.append(len(program(lambda out, encoded=encoded: Categorical().negative_log(out, encoded))))
    assert lengths[0] == lengths[1] < 10
