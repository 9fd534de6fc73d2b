"""Formulas: the same value and gradient from every engine, and finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.backends.programs import OPERATIONS
from udlbridge.errors import DTypeError, InputError, NumericalError, OptionError, ShapeError
from udlbridge.udl.expressions import (
    Expression,
    column,
    cos,
    exp,
    log,
    logsumexp,
    program,
    sigmoid,
    sin,
    softplus,
    total,
)

DATA = np.random.default_rng(0).standard_normal(7)
TABLE = np.random.default_rng(1).standard_normal((4, 3))

VECTOR_FORMULAS: dict[str, Callable[[Expression], Expression]] = {
    "quadratic": lambda p: total((p[0] + p[1] * DATA - p[2]) ** 2),
    "shared parts": lambda p: sin(p[0] * p[1]) * cos(p[0] * p[1]) + exp(p[0] * p[1]),
    "quotients": lambda p: 1 / (2 + p[0] ** 2) - p[1] / (p[2] - 7),
    "negative powers": lambda p: total((p + 5) ** -1.5) + (-p[0]) ** 3,
    "saturating": lambda p: total(sigmoid(3 * p)) + total(softplus(p * 40)) + log(p[1] ** 2 + 0.5),
    "vector logsumexp": lambda p: logsumexp(p) + column(p, 1),
    "broadcast": lambda p: total(p * TABLE) + total((TABLE - p) ** 2),
    "functions of numbers": lambda p: total(p * sin(DATA[:3])) + exp(0.5) * p[1] ** 2 + p[0] * total(log(2.0) * DATA),
    "no dependence": lambda p: total(log(exp(p * 0))),
    "powers of zero": lambda p: total(p**0) + total((p - 0.6) ** 0) + total(p ** np.int64(2)),
}


def finite_differences(f: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[index] = step
        result[index] = (f(x + e) - f(x - e)) / (2 * step)
    return result


@pytest.mark.parametrize("name", VECTOR_FORMULAS)
def test_gradient_of_a_vector_formula(name: str, backend: str) -> None:
    function = ub.Function(VECTOR_FORMULAS[name], backend=backend)
    point = np.array([0.6, -0.3, 1.1])
    expected = finite_differences(function.value, point)
    gradient = function.gradient(point)
    assert gradient.shape == (3,)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * max(1.0, np.abs(expected).max()))
    reference = ub.Function(VECTOR_FORMULAS[name], backend="reference")
    assert abs(function.value(point) - reference.value(point)) <= 1e-12 * max(1, abs(reference.value(point)))
    np.testing.assert_allclose(gradient, reference.gradient(point), atol=1e-12 * max(1.0, np.abs(expected).max()))


def test_gradient_of_a_matrix_formula(backend: str) -> None:
    def formula(f: Expression) -> Expression:
        return total(logsumexp(f) - column(f, 2) * np.arange(4.0)) + total(f * f) / 3

    function = ub.Function(formula, backend=backend)
    expected = finite_differences(function.value, TABLE)
    np.testing.assert_allclose(function.gradient(TABLE), expected, atol=1e-7)
    by_hand = np.log(np.exp(TABLE).sum(1)) - TABLE[:, 2] * np.arange(4.0)
    assert function.value(TABLE) == pytest.approx(by_hand.sum() + (TABLE**2).sum() / 3, rel=1e-13)


def test_an_item_of_a_matrix_is_its_row_as_in_numpy(backend: str) -> None:
    weights = np.array([2.0, -1.0, 0.5])
    function = ub.Function(lambda f: total(weights * f[1]) + f[2][0] ** 2, backend=backend)
    assert function.value(TABLE) == pytest.approx(weights @ TABLE[1] + TABLE[2, 0] ** 2, rel=1e-14)
    expected = np.zeros_like(TABLE)
    expected[1], expected[2, 0] = weights, 2 * TABLE[2, 0]
    np.testing.assert_allclose(function.gradient(TABLE), expected, rtol=1e-14)
    cube = np.arange(24.0).reshape(2, 3, 4)
    assert ub.Function(lambda f: total(f[1]), backend=backend).value(cube) == cube[1].sum()
    assert ub.Function(lambda f: total(column(f, 1)), backend=backend).value(cube) == cube[..., 1].sum()


def test_a_power_of_zero_is_one_of_slope_zero_everywhere(backend: str) -> None:
    function = ub.Function(lambda p: total(p**0), backend=backend)
    point = np.array([0.0, -2.0, 3.0])
    assert function.value(point) == 3
    np.testing.assert_array_equal(function.gradient(point), np.zeros(3))


def test_a_gradient_that_is_not_finite_is_refused_without_a_warning(backend: str) -> None:
    function = ub.Function(lambda p: total(p**0.5), backend=backend)
    assert function.value(np.zeros(2)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NumericalError, match="gradient of the formula"):
            function.gradient(np.zeros(2))


def test_shapes_that_do_not_fit_are_named(backend: str) -> None:
    for formula, said in (
        (lambda p: p[3], r"entry 3 along the first axis .* \(3,\).*0 to 2"),
        (lambda p: column(p, 5), r"entry 5 along the last axis"),
        (lambda p: p[0][0], r"array of shape \(\).*an array with axes"),
        (lambda p: logsumexp(total(p)), r"array with axes"),
        (lambda p: total(p * np.ones(4)), r"multiply of arrays of shapes \(3,\) and \(4,\)"),
    ):
        function = ub.Function(formula, backend=backend)
        for compute in (function.value, function.gradient):
            with pytest.raises(ShapeError, match=said):
                compute(np.ones(3))
    with pytest.raises(ShapeError, match=r"entry 4 along the first axis .* \(4, 3\)"):
        ub.Function(lambda f: total(f[4]), backend=backend).value(TABLE)


def test_float32_stays_float32(backend: str) -> None:
    function = ub.Function(VECTOR_FORMULAS["broadcast"], backend=backend)
    assert function.gradient(np.ones(3, dtype=np.float32)).dtype == np.float32


def test_large_arguments_do_not_overflow(backend: str) -> None:
    function = ub.Function(lambda p: logsumexp(p) + softplus(p[0]), backend=backend)
    assert function.value(np.array([1000.0, 0.0])) == 2000.0
    np.testing.assert_allclose(function.gradient(np.array([1000.0, 0.0])), [2.0, 0.0])


def test_shared_parts_appear_once_in_a_program() -> None:
    def doubled(p: Expression) -> Expression:
        a = p[0]
        for _ in range(200):
            a = a + a
        return a

    assert len(program(doubled)) == 202
    assert {step.operation for step in program(doubled)} <= set(OPERATIONS)


def test_bad_formulas_and_arguments_are_named(untyped: None, backend: str) -> None:
    with pytest.raises(InputError, match="finite numbers"):
        ub.Function(lambda p: p[0] + float("nan"))
    with pytest.raises(InputError, match=r"an array in a formula of dtype <U3.*turn words into numbers"):
        ub.Function(lambda p: p[0] + "one")
    with pytest.raises(OptionError, match="exponent"):
        ub.Function(lambda p: p[0] ** p[1])  # type: ignore[operator]
    with pytest.raises(OptionError, match="index -1"):
        ub.Function(lambda p: p[-1])
    vector = ub.Function(lambda p: p * 2, backend=backend)
    with pytest.raises(ShapeError, match=r"total\(\)"):
        vector.gradient(np.ones(2))
    with pytest.raises(NumericalError, match="inf"):
        ub.Function(lambda p: log(p[0]), backend=backend).value(np.zeros(1))
    with pytest.raises(DTypeError, match="int64"):
        vector.value(np.ones(2, dtype=int))
    with pytest.raises(InputError, match="NaN"):
        vector.value(np.array([np.nan]))
