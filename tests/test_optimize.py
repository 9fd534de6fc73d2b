"""Line search and descents: where they end, that engines walk the same path, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.expressions import total

X = np.linspace(-1, 1, 9)
Y = 0.3 + 1.7 * X


def squares(backend: str, rows: slice | np.ndarray = slice(None)) -> ub.Function:
    return ub.Function(lambda p: total((p[0] + p[1] * X[rows] - Y[rows]) ** 2), backend=backend)


@pytest.mark.parametrize("minimum", [0.05, 0.5, 0.93])
def test_line_search_finds_the_minimum_of_a_valley(minimum: float) -> None:
    found = ub.optimize.line_search(lambda t: (t - minimum) ** 2, threshold=1e-6, iterations=60)
    assert found.minimum == pytest.approx(minimum, abs=2e-6)


def test_line_search_follows_the_three_rules() -> None:
    found = ub.optimize.line_search(lambda t: t, iterations=2)  # a is lowest: halve
    np.testing.assert_allclose(found.brackets, [[0, 0.33, 0.66, 1], [0, 0.165, 0.33, 0.5]])
    found = ub.optimize.line_search(lambda t: abs(t - 0.3), iterations=2)  # b below c: d moves
    np.testing.assert_allclose(found.brackets[1], [0, 0.22, 0.44, 0.66])
    found = ub.optimize.line_search(lambda t: -t, iterations=2)  # c below b: a moves
    np.testing.assert_allclose(found.brackets[1], [0.33, 0.33 + 0.67 / 3, 0.33 + 1.34 / 3, 1])


def test_fixed_step_follows_the_closed_form(backend: str) -> None:
    path = ub.optimize.descend(
        ub.Function(lambda p: (p[0] - 4) ** 2, backend=backend), np.array([-1.0]), steps=500, step_size=0.01
    )
    assert path.points.shape == (501, 1)
    np.testing.assert_allclose(path.points[:, 0], 4 - 5 * 0.98 ** np.arange(501), rtol=0, atol=1e-12)


def test_descents_reach_the_least_squares_solution(backend: str) -> None:
    by_line = ub.optimize.descend_by_line_search(squares(backend), np.zeros(2), steps=60)
    np.testing.assert_allclose(by_line.minimum, [0.3, 1.7], atol=1e-4)
    assert (np.diff(by_line.values) <= 1e-9).all()
    random = ub.optimize.descend_stochastically(
        lambda rows: squares(backend, rows), np.zeros(2), n=9, batch_size=3, steps=150, step_size=0.1
    )
    # The data lie on a line, so every batch has the same minimum and the noise dies out.
    np.testing.assert_allclose(random.minimum, [0.3, 1.7], atol=1e-4)


def test_whole_batch_is_plain_descent(backend: str) -> None:
    plain = ub.optimize.descend(squares(backend), np.zeros(2), steps=5, step_size=0.02)
    batch = ub.optimize.descend_stochastically(
        lambda rows: squares(backend, rows), np.zeros(2), n=9, batch_size=9, steps=5, step_size=0.02
    )
    np.testing.assert_allclose(batch.points, plain.points, rtol=1e-12)


def test_model_function_gradient_equals_differences(backend: str) -> None:
    model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64", seed=5)
    x = np.random.default_rng(0).standard_normal((4, 2))
    y = np.random.default_rng(1).standard_normal((4, 2))
    function = ub.optimize.ModelFunction(model, x, lambda f: total((f - y) ** 2), backend=backend)
    start = function.start()
    assert start.shape == (model.n_params,)
    assert function.at(start) == model
    gradient = function.gradient(start)
    for index in range(start.size):
        e = np.zeros_like(start)
        e[index] = 1e-6
        difference = (function.value(start + e) - function.value(start - e)) / 2e-6
        assert gradient[index] == pytest.approx(difference, abs=1e-7)
    with pytest.raises(ShapeError, match="parameter vector"):
        function.value(start[1:])


def test_bad_settings_are_named() -> None:
    function = ub.Function(lambda p: p[0] ** 2, backend="reference")
    with pytest.raises(OptionError, match="steps=0"):
        ub.optimize.descend(function, np.ones(1), steps=0, step_size=0.1)
    with pytest.raises(OptionError, match="threshold=0"):
        ub.optimize.line_search(abs, threshold=0)
    with pytest.raises(OptionError, match="batch_size=3"):
        ub.optimize.descend_stochastically(lambda rows: function, np.ones(1), n=2, batch_size=3, steps=1, step_size=0.1)
    with pytest.raises(ShapeError, match="vector"):
        ub.optimize.descend(function, np.ones((1, 1)), steps=1, step_size=0.1)
    with pytest.raises(NumericalError, match="smaller steps"):
        ub.optimize.descend(function, np.array([1e100]), steps=3, step_size=1e250)
