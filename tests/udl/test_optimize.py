"""Line search and descents: where they end, that engines walk the same path, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.udl.expressions import exp, total

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


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=9), st.integers(1, 30))
def test_line_search_never_ends_above_its_start(coefficients: list[float], iterations: int) -> None:
    def waves(t: float) -> float:
        return sum(c * math.sin((k + 1) * t) for k, c in enumerate(coefficients))

    found = ub.optimize.line_search(waves, maximum=4.0, iterations=iterations)
    assert found.value == waves(found.minimum) <= 0
    assert (np.diff(found.brackets, axis=1) > 0).all()


def test_line_search_ends_at_the_source_answer_where_that_is_lowest() -> None:
    found = ub.optimize.line_search(lambda t: (t - 0.3) ** 2, iterations=1)
    # After one iteration the bracket is [0, 0.66], and the middle of b and c is 0.33, which was looked at already.
    assert found.minimum == pytest.approx(0.33)


def dips(t: float) -> float:
    """The function of the source's line search."""
    return 1 - 0.5 * math.exp(-((t - 0.65) ** 2) / 0.1) - 0.45 * math.exp(-((t - 0.35) ** 2) / 0.02)


def test_the_rule_of_the_source_gives_the_middle_of_the_last_bracket() -> None:
    found = ub.optimize.line_search(dips, threshold=1e-4, iterations=10, rule="source")
    assert round(found.minimum, 3) == 0.383
    assert found.value == dips(found.minimum)
    assert round(found.value, 3) == 0.329
    assert ub.optimize.line_search(dips, iterations=10).value < found.value
    # Halving: the middle is (0.33 + 0.66) / 2 of what is left, though 0 is lower.
    rising = ub.optimize.line_search(abs, iterations=3, rule="source")
    assert (rising.minimum, rising.value) == (pytest.approx(0.495 / 8), pytest.approx(0.495 / 8))


def test_the_rule_of_the_source_halves_the_points_themselves_and_stops_at_a_distance() -> None:
    def steep(t: float) -> float:  # c below b: a moves to 0.33; then a is lowest
        return {0.0: 3.0, 0.33: 1.0, 0.66: 0.5}.get(t, 2.0)

    found = ub.optimize.line_search(steep, iterations=3, rule="source")
    np.testing.assert_allclose(found.brackets[2], [0.33, *np.array([0.33 + 0.67 / 3, 0.33 + 1.34 / 3, 1.0]) / 2])
    assert len(ub.optimize.line_search(lambda t: t, maximum=1e-6, iterations=15, rule="source").brackets) == 0
    assert len(ub.optimize.line_search(lambda t: -t, rule="source").brackets) == 15


def test_line_search_takes_a_tie_as_the_source_does() -> None:
    found = ub.optimize.line_search(lambda t: 2.0, iterations=3)  # argmin finds a first: rule 1
    np.testing.assert_allclose(found.brackets[:, 3], [1, 0.5, 0.25])
    assert (found.minimum, found.value) == (0.0, 2.0)


def test_line_search_takes_an_overflow_for_a_large_value() -> None:
    found = ub.optimize.line_search(lambda t: (t - 0.05) ** 2 if t < 0.3 else math.inf, iterations=60)
    assert found.minimum == pytest.approx(0.05, abs=1e-5)
    assert ub.optimize.line_search(lambda t: t**2 if t == 0 else math.nan).minimum == 0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_line_search_is_as_exact_at_every_scale(scale: float) -> None:
    found = ub.optimize.line_search(lambda t: (t / scale - 0.4) ** 2, maximum=100 * scale, iterations=100)
    assert found.minimum / scale == pytest.approx(0.4, rel=1e-4)


@pytest.mark.usefixtures("untyped")
def test_line_search_refuses_what_has_no_answer() -> None:
    for f in (lambda t: math.nan, lambda t: math.inf, lambda t: -math.inf if t else 0.0):
        with pytest.raises(NumericalError, match="function of the line search"):
            ub.optimize.line_search(f)
    for maximum in (math.inf, math.nan, -1.0, "1"):
        with pytest.raises(OptionError, match="maximum="):
            ub.optimize.line_search(abs, maximum=maximum)
    with pytest.raises(OptionError, match=r"iterations=2\.5"):
        ub.optimize.line_search(abs, iterations=2.5)


def test_descent_by_line_search_never_climbs(backend: str) -> None:
    # The best step is about 3e-8, a ten-millionth of the interval that is searched.
    x = np.linspace(0, 1000, 50)
    function = ub.Function(lambda p: total((p[0] + p[1] * x - 2 - 3 * x) ** 2), backend=backend)
    path = ub.optimize.descend_by_line_search(function, np.zeros(2), steps=4)
    assert (np.diff(path.values) < 0).all()
    assert path.values[-1] < 1e-6 * path.values[0]


def test_descent_by_line_search_passes_over_overflows(backend: str) -> None:
    function = ub.Function(lambda p: total(exp(p**2)), backend=backend)
    for dtype, start in (("float64", 5.0), ("float32", 5.0)):
        path = ub.optimize.descend_by_line_search(function, np.array([start], dtype=dtype), steps=6)
        assert path.points.dtype == dtype
        assert (np.diff(path.values) <= 0).all()
        assert path.values[-1] == pytest.approx(1.0, rel=1e-5)


def test_descent_by_the_source_may_climb(backend: str) -> None:
    function = ub.Function(lambda p: 1e6 * p[0] ** 2, backend=backend)
    path = ub.optimize.descend_by_line_search(function, np.array([1.0]), steps=1, rule="source", iterations=3)
    assert path.values[1] > path.values[0]
    # The straight line of the source: ten losses, with its limits.
    x, y = np.array(LINE)
    loss = ub.Function(lambda p: total((p[0] + p[1] * x - y) ** 2), backend=backend)
    path = ub.optimize.descend_by_line_search(loss, np.array([1.6, -0.5]), steps=10, maximum=0.1, rule="source")
    assert [f"{value:.6f}" for value in path.values[[0, 1, 5, 10]]] == ["5.020125", "2.835363", "0.450457", "0.213405"]


LINE = (
    [0.03, 0.19, 0.34, 0.46, 0.78, 0.81, 1.08, 1.18, 1.39, 1.60, 1.65, 1.90],
    [0.67, 0.85, 1.05, 1.00, 1.40, 1.50, 1.30, 1.54, 1.55, 1.68, 1.73, 1.60],
)


def test_schedules_shorten_the_steps(backend: str) -> None:
    function = ub.Function(lambda p: (p[0] - 4) ** 2, backend=backend)
    halving = ("step", {"every": 2, "factor": 0.5})
    expected = 4 - 5 * np.cumprod([1.0, 0.8, 0.8, 0.9, 0.9, 0.95])
    path = ub.optimize.descend(function, np.array([-1.0]), steps=5, step_size=0.1, schedule=halving)
    np.testing.assert_allclose(path.points[:, 0], expected, rtol=1e-14)
    batches = ub.optimize.descend_stochastically(
        lambda rows: function, np.array([-1.0]), n=3, batch_size=1, steps=5, step_size=0.1, schedule=halving
    )
    np.testing.assert_array_equal(batches.points, path.points)
    # A search that reaches no farther than 1/200 and 1/400 takes the longest step each time.
    short = ub.optimize.descend_by_line_search(
        function, np.array([-1.0]), steps=3, maximum=0.005, schedule=("step", {"every": 1, "factor": 0.5})
    )
    np.testing.assert_allclose(short.points[:, 0], 4 - 5 * np.cumprod([1.0, 0.99, 0.995, 0.9975]), rtol=1e-14)


def test_batches_of_a_generator_are_those_of_the_source() -> None:
    seen: list[list[int]] = []

    def function_of(rows: np.ndarray) -> ub.Function:
        seen.append(list(rows))
        return ub.Function(lambda p: p[0] ** 2, backend="reference")

    settings = {"n": 30, "batch_size": 5, "steps": 3, "step_size": 0.1}
    ub.optimize.descend_stochastically(function_of, np.ones(1), seed=np.random.RandomState(1), **settings)
    source = np.random.RandomState(1)
    drawn = [list(source.permutation(30)[:5]) for _ in range(3)]
    assert [rows for rows in seen if len(rows) == 5] == drawn


class Squares:
    """|A (x - c)|^2 + offset, in the dtype of its arrays."""

    def __init__(self, matrix: np.ndarray, centre: np.ndarray, offset: float) -> None:
        self.matrix, self.centre, self.offset = matrix, centre, matrix.dtype.type(offset)

    def value(self, x: np.ndarray) -> float:
        residual = self.matrix @ (x - self.centre)
        return float(residual @ residual + self.offset)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return 2 * self.matrix.T @ (self.matrix @ (x - self.centre))


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("offset", [0, 1, 1e6])
def test_descent_by_line_search_stays_where_it_has_arrived(dtype: str, offset: float) -> None:
    # Seeds where points, or values, are at the end of their digits before the steps are done.
    for seed in (131, 145, 154, 171, 172, 193, 195, 227):
        generator = np.random.default_rng(seed)
        n = generator.integers(1, 5)
        matrix = generator.standard_normal((n + 1, n)) * 10 ** generator.uniform(-3, 3)
        centre = generator.standard_normal(n) * 10 ** generator.uniform(-2, 2)
        function = Squares(matrix.astype(dtype), centre.astype(dtype), offset)
        path = ub.optimize.descend_by_line_search(function, np.zeros(n, dtype=dtype), steps=30)
        assert (np.diff(path.values) <= 0).all()


class WrongGradient:
    """x^2 with a gradient of the wrong sign."""

    def value(self, x: np.ndarray) -> float:
        return float(x[0] ** 2)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return -2 * x


def test_descent_by_line_search_says_when_nothing_lower_is_found() -> None:
    function = ub.Function(lambda p: total(1e12 * p**2), backend="reference")
    with pytest.raises(NumericalError, match="leads below"):
        ub.optimize.descend_by_line_search(function, np.ones(1), steps=1, iterations=5)
    with pytest.raises(NumericalError, match="check the gradient"):
        ub.optimize.descend_by_line_search(WrongGradient(), np.ones(1), steps=1)
    # At the minimum there is nowhere to go, and no error.
    arrived = ub.optimize.descend_by_line_search(function, np.zeros(1), steps=2)
    assert not arrived.points.any()


def test_fixed_step_follows_the_closed_form(backend: str) -> None:
    path = ub.optimize.descend(
        ub.Function(lambda p: (p[0] - 4) ** 2, backend=backend), np.array([-1.0]), steps=500, step_size=0.01
    )
    assert path.points.shape == (501, 1)
    np.testing.assert_allclose(path.points[:, 0], 4 - 5 * 0.98 ** np.arange(501), rtol=0, atol=1e-12)


@pytest.mark.slow
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


def test_model_function_gradient_forms_no_jacobian(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ub.backends.get(backend)

    def forms(model: ub.Model, x: np.ndarray) -> dict[str, np.ndarray]:
        raise AssertionError("formed the Jacobian")

    monkeypatch.setattr(engine, "jacobian", forms)
    model = ub.Model([ub.Conv2d(1, 2, 3, "tanh"), ub.Flatten(), ub.Dense(2 * 9, 2)], dtype="float64", seed=5)
    x = np.random.default_rng(0).standard_normal((4, 1, 5, 5))
    function = ub.optimize.ModelFunction(model, x, lambda f: total(f * f), backend=backend)
    gradient = function.gradient(function.start())
    e = np.zeros_like(gradient)
    e[7] = 1e-6
    difference = (function.value(function.start() + e) - function.value(function.start() - e)) / 2e-6
    assert gradient[7] == pytest.approx(difference, rel=1e-7)


@pytest.mark.usefixtures("untyped")
def test_bad_settings_are_named() -> None:
    function = ub.Function(lambda p: p[0] ** 2, backend="reference")
    settings = {"n": 2, "batch_size": 1, "steps": 1, "step_size": 0.1}
    for bad in ({"batch_size": 1.5}, {"seed": -1}, {"n": 2.5}, {"steps": 2.5}, {"step_size": np.inf}):
        with pytest.raises(OptionError, match=str(next(iter(bad.values())))):
            ub.optimize.descend_stochastically(lambda rows: function, np.ones(1), **{**settings, **bad})
    for descend in (
        lambda: ub.optimize.descend(lambda p: p[0], np.ones(1), steps=1, step_size=0.1),
        lambda: ub.optimize.descend_by_line_search(lambda p: p[0], np.ones(1), steps=1),
        lambda: ub.optimize.descend_stochastically(lambda rows: np.sum, np.ones(1), **settings),
    ):
        with pytest.raises(OptionError, match=r"without value.*ub\.Function"):
            descend()
    with pytest.raises(OptionError, match="steps=0"):
        ub.optimize.descend(function, np.ones(1), steps=0, step_size=0.1)
    with pytest.raises(OptionError, match="threshold=0"):
        ub.optimize.line_search(abs, threshold=0)
    with pytest.raises(OptionError, match=r"rule='best'.*lowest, source"):
        ub.optimize.line_search(abs, rule="best")
    with pytest.raises(OptionError, match="unknown schedule 'slow'"):
        ub.optimize.descend(function, np.ones(1), steps=1, step_size=0.1, schedule=("slow", {}))
    with pytest.raises(OptionError, match="batch_size=3"):
        ub.optimize.descend_stochastically(lambda rows: function, np.ones(1), n=2, batch_size=3, steps=1, step_size=0.1)
    with pytest.raises(ShapeError, match="vector"):
        ub.optimize.descend(function, np.ones((1, 1)), steps=1, step_size=0.1)
    with pytest.raises(NumericalError, match="smaller steps"):
        ub.optimize.descend(function, np.array([1e100]), steps=3, step_size=1e250)
