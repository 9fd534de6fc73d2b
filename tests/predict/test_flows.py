"""Gradient flow and gradient descent of linearised networks, against neural-tangents, simulation and closed forms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from helpers import GOLDENS
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError, UDLBridgeError, UDLBridgeWarning

RECORDED = GOLDENS / "neural_tangents"


def problem(seed: int, n: int = 6, m: int = 3, outputs: int = 2) -> dict[str, np.ndarray]:
    """A kernel of random features, of full rank, with targets and initial outputs."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n + m, 2 * n))
    k = features @ features.T / n
    return {
        "k": k[:n, :n],
        "k_test": k[n:, :n],
        "y": generator.standard_normal((n, outputs)),
        "f": generator.standard_normal((n, outputs)),
        "f_test": generator.standard_normal((m, outputs)),
    }


@pytest.mark.parametrize("name", ["predict_mse_reg0.0", "predict_mse_reg0.01"])
def test_mean_squared_error_as_neural_tangents_has_it(name: str) -> None:
    with np.load(RECORDED / f"{name}.npz") as z:
        flow = ub.predict.gradient_flow(z["k_train"], z["y"], diag_reg=json.loads(str(z["spec"]))["diag_reg"])
        finite = flow.at(z["t"], z["f_train_0"], z["f_test_0"], z["k_test_train"])
        infinite = flow.at(math.inf, z["f_train_0"], z["f_test_0"], z["k_test_train"])
        np.testing.assert_allclose(finite.train, z["f_train"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(finite.test, z["f_test"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(infinite.train, z["f_train_inf"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(infinite.test, z["f_test_inf"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "momentum"), [("predict_ce_plain", None), ("predict_ce_momentum", 0.9)])
def test_cross_entropy_as_neural_tangents_has_it(name: str, momentum: float | None) -> None:
    with np.load(RECORDED / f"{name}.npz") as z:
        flow = ub.predict.gradient_flow(z["k_train"], z["y"], loss="cross_entropy", momentum=momentum)
        found = flow.at(z["t"], z["f_train_0"], z["f_test_0"], z["k_test_train"])
        np.testing.assert_allclose(found.train, z["f_train"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.test, z["f_test"], rtol=0, atol=1e-6)


def test_the_solver_gives_the_closed_form() -> None:
    p = problem(0)
    closed = ub.predict.gradient_flow(p["k"], p["y"])
    solved = ub.predict.gradient_flow(p["k"], p["y"], loss=lambda f, y: (f - y) / y.size)
    times = np.array([3.0, 0.0, 0.5])  # in no order
    a = closed.at(times, p["f"], p["f_test"], p["k_test"])
    b = solved.at(times, p["f"], p["f_test"], p["k_test"])
    np.testing.assert_allclose(b.train, a.train, rtol=0, atol=1e-8)
    np.testing.assert_allclose(b.test, a.test, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(a.train[1], p["f"])


@given(seed=st.integers(0, 999), steps=st.integers(0, 30), rate=st.floats(0.01, 3.0))
def test_steps_of_finite_size_are_what_a_loop_gives(seed: int, steps: int, rate: float) -> None:
    p = problem(seed)
    rate = min(rate, 0.99 * ub.predict.max_learning_rate(p["k"], p["y"].size))
    f, f_test = p["f"], p["f_test"]
    for _ in range(steps):
        slope = (f - p["y"]) / p["y"].size
        f, f_test = f - rate * p["k"] @ slope, f_test - rate * p["k_test"] @ slope
    found = ub.predict.gradient_descent(p["k"], p["y"], learning_rate=rate).after(
        steps, p["f"], p["f_test"], p["k_test"]
    )
    np.testing.assert_allclose(found.train, f, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.test, f_test, rtol=0, atol=1e-10)


def test_above_the_largest_rate_outputs_diverge_and_a_warning_says_so() -> None:
    p = problem(1)
    limit = ub.predict.max_learning_rate(p["k"], p["y"].size)
    with pytest.warns(UDLBridgeWarning, match=f"{limit:.6g}"):
        descent = ub.predict.gradient_descent(p["k"], p["y"], learning_rate=1.05 * limit)
    assert np.abs(descent.after(2000).train).max() > 1e6
    assert np.abs(ub.predict.gradient_descent(p["k"], p["y"], learning_rate=0.99 * limit).after(9000).train).max() < 10


def test_small_steps_approach_the_flow() -> None:
    p = problem(2)
    flow = ub.predict.gradient_flow(p["k"], p["y"]).at(2.0, p["f"])
    steps = ub.predict.gradient_descent(p["k"], p["y"], learning_rate=1e-5).after(200_000, p["f"])
    np.testing.assert_allclose(steps.train, flow.train, rtol=0, atol=1e-4)


@pytest.mark.parametrize("t", [0.7, math.inf])
def test_coupled_outputs(t: float) -> None:
    """A kernel that is the same for every output, and couples none, gives what the (n, n) one gives."""
    p = problem(3)
    eye = np.eye(2)
    coupled = ub.predict.gradient_flow(p["k"][:, :, None, None] * eye, p["y"])
    found = coupled.at(t, p["f"], p["f_test"], p["k_test"][:, :, None, None] * eye)
    single = ub.predict.gradient_flow(p["k"], p["y"]).at(t, p["f"], p["f_test"], p["k_test"])
    np.testing.assert_allclose(found.train, single.train, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.test, single.test, rtol=0, atol=1e-12)


def test_outputs_that_are_coupled_move_together() -> None:
    """Against the exponential of the whole matrix, sample by sample and output by output."""
    from scipy.linalg import expm

    generator = np.random.default_rng(4)
    n, o = 4, 3
    jacobian = generator.standard_normal((n, o, 40))
    theta = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    y = generator.standard_normal((n, o))
    whole = np.array(
        [[jacobian[i, a] @ jacobian[j, b] for j in range(n) for b in range(o)] for i in range(n) for a in range(o)]
    )
    exact = y.reshape(-1) - expm(-whole * 0.3 / (n * o)) @ y.reshape(-1)
    found = ub.predict.gradient_flow(theta, y).at(0.3).train
    np.testing.assert_allclose(found.reshape(-1), exact, rtol=0, atol=1e-11)


def test_momentum_of_zero_is_friction_of_one() -> None:
    """f'' = -f' - K (f - y) / (n O), whose solution for one sample is a damped oscillation."""
    k, y = np.array([[5.0]]), np.array([[1.0]])
    found = ub.predict.gradient_flow(k, y, momentum=0.0).at(np.array([0.5, 2.0])).train[:, 0, 0]
    w = math.sqrt(5 - 0.25)
    exact = [1 - math.exp(-t / 2) * (math.cos(w * t) + math.sin(w * t) / (2 * w)) for t in (0.5, 2.0)]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-8)


def test_one_output_comes_back_without_an_axis() -> None:
    p = problem(5, outputs=1)
    flat = ub.predict.gradient_flow(p["k"], p["y"][:, 0]).at(np.array([1.0, 2.0]), k_test=p["k_test"])
    assert flat.train.shape == (2, 6)
    assert flat.test is not None
    assert flat.test.shape == (2, 3)
    whole = ub.predict.gradient_flow(p["k"], p["y"]).at(np.array([1.0, 2.0]), k_test=p["k_test"])
    np.testing.assert_array_equal(flat.train, whole.train[..., 0])


def test_a_singular_kernel_has_finite_times_and_no_infinite_one() -> None:
    k = np.ones((3, 3))
    flow = ub.predict.gradient_flow(k, np.arange(3.0))
    np.testing.assert_allclose(flow.at(1e4).train, np.ones(3), atol=1e-9)  # the mean: the only direction that moves
    with pytest.raises(NumericalError, match=r"singular.*diag_reg"):
        flow.at(math.inf)
    np.testing.assert_allclose(
        ub.predict.gradient_flow(k, np.arange(3.0), diag_reg=1e-3).at(math.inf).train, np.arange(3)
    )


ASYMMETRIC = np.array([[1.0, 2.0], [0.0, 1.0]])
INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ub.predict.gradient_flow(ASYMMETRIC, np.ones(2)), InputError, "not symmetric"),
        (lambda: ub.predict.gradient_flow(INDEFINITE, np.ones(2)).at(1.0), NumericalError, "not positive semidefinite"),
        (
            lambda: ub.predict.gradient_flow(INDEFINITE, np.eye(2), loss="cross_entropy").at(1.0),
            NumericalError,
            "not positive semidefinite",
        ),
        (
            lambda: ub.predict.gradient_flow(INDEFINITE, np.ones(2), momentum=0.5).at(1.0),
            NumericalError,
            "not positive semidefinite",
        ),
        (lambda: ub.predict.max_learning_rate(INDEFINITE), NumericalError, "not positive semidefinite"),
        (
            lambda: ub.predict.posterior(np.eye(2), np.eye(2), ASYMMETRIC, np.ones(2)),
            InputError,
            "k_test_test is not symmetric",
        ),
        (
            lambda: ub.predict.infinite_ensemble(np.eye(2), np.eye(2), ASYMMETRIC, np.ones(2)),
            InputError,
            "nngp_test_test is not",
        ),
        (
            lambda: ub.predict.gradient_flow(INDEFINITE, np.ones(2)).at(math.inf),
            NumericalError,
            "semidefinite: its smallest",
        ),
        (lambda: ub.predict.gradient_flow(np.full((2, 2), np.nan), np.ones(2)), InputError, "nan at"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(3)), ShapeError, "target for each"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones((2, 2, 2))), ShapeError, "target for each"),
        (lambda: ub.predict.gradient_flow(np.eye(2), ["cat", "dog"]), InputError, "numbers"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2), diag_reg=-1), OptionError, "diag_reg"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2), loss="hinge"), OptionError, "mse, cross_entropy"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2), momentum=1.0), OptionError, "below 1"),
        (lambda: ub.predict.gradient_flow(np.ones((2, 3)), np.ones(2)), ShapeError, "themselves"),
        (lambda: ub.predict.gradient_flow(np.ones((2, 2, 3)), np.ones(2)), ShapeError, "full"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(-1.0), OptionError, "at least 0"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(math.nan), OptionError, "at least 0"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at("soon"), InputError, "array of numbers"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, f_test=np.ones(1)), OptionError, "k_test"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, np.ones(3)), ShapeError, "f_train"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, k_test=np.ones((1, 3))), ShapeError, "k_test"),
        (
            lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, f_test=np.ones(2), k_test=np.ones((1, 2))),
            ShapeError,
            "f_test",
        ),
        (
            lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, k_test=np.full((1, 2), np.nan)),
            InputError,
            "k_test is nan at",
        ),
        (
            lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at(1, np.array([0.0, np.inf])),
            InputError,
            "f_train is inf at",
        ),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.array([0.0, np.nan])), InputError, "y is nan at"),
        (lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2)).at([1.0, -1.0]), OptionError, "at least 0"),
        (lambda: ub.predict.gradient_descent(ASYMMETRIC, np.ones(2), learning_rate=1), InputError, "not symmetric"),
        (
            lambda: ub.predict.gradient_descent(INDEFINITE, np.ones(2), learning_rate=1),
            NumericalError,
            "not positive semidefinite",
        ),
        (lambda: ub.predict.gradient_descent(np.eye(2), ["cat", "dog"], learning_rate=1), InputError, "numbers"),
        (lambda: ub.predict.gradient_descent(np.eye(2), np.ones(2), learning_rate=math.nan), OptionError, "above 0"),
        (
            lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2), loss="cross_entropy").at(math.inf),
            OptionError,
            "infinite",
        ),
        (
            lambda: ub.predict.gradient_flow(np.eye(2), np.ones(2), loss=lambda f, y: 1.0).at(1.0),
            ShapeError,
            "return dL/df",
        ),
        (lambda: ub.predict.gradient_descent(np.eye(2), np.ones(2), learning_rate=-1), OptionError, "above 0"),
        (lambda: ub.predict.gradient_descent(np.eye(2), np.ones(2), learning_rate=1).after(-1), OptionError, "steps"),
    ],
)
def test_what_cannot_be_is_refused(
    untyped: None, call: Callable[[], object], error: type[UDLBridgeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        call()


def test_kernels_near_the_end_of_the_range() -> None:
    k = 1e307 * (9 * np.eye(3) + 1)
    y = np.array([1.0, -1.0, 2.0])
    for time in (1e-307, np.inf):
        found = ub.predict.gradient_flow(k, y).at(time).train
        np.testing.assert_allclose(found, ub.predict.gradient_flow(k / 1e307, y).at(time * 1e307).train, rtol=1e-12)
    np.testing.assert_allclose(ub.predict.posterior(k, k, None, y).mean, y, rtol=1e-12)
    with pytest.raises(NumericalError, match="k_train"):
        ub.predict.gradient_flow(1.7e308 * np.eye(3), y, diag_reg=1.0)


def test_how_flows_show_themselves() -> None:
    k, y = np.eye(3), np.ones((3, 2))
    assert repr(ub.predict.gradient_flow(k, y)).startswith("GradientFlow of 3 training samples and 2 outputs")
    steps = ub.predict.gradient_descent(k, y, learning_rate=0.1)
    assert repr(steps).startswith("GradientDescent of 3 training samples and 2 outputs")
