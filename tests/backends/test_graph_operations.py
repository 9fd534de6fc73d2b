"""Every operation of graphs alone: by hand and in Julia against torch, and derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs import CASES, one_operation
from tests.helpers import assert_within_budget

import udlbridge as ub
from udlbridge.networks.graphs.values import PerSample

STEP = 1e-6


def assert_equals_torch(backend: str, op: str, seed: int) -> None:
    """A random graph of one operation: outputs, and derivatives by samples and by parameters."""
    graph, x = one_operation(op, np.random.default_rng(seed))
    engine, torch = ub.backends.get(backend), ub.backends.get("torch")
    assert_within_budget(engine.outputs(graph, x), torch.outputs(graph, x))
    assert_within_budget(engine.input_jacobian(graph, x), torch.input_jacobian(graph, x))
    if op == "stop_gradient":
        return  # torch refuses outputs that depend on no parameter, as it does for modules
    c = np.random.default_rng(1).normal(size=(len(x), graph.n_outputs))
    ours, theirs = engine.pull(graph, x, c), torch.pull(graph, x, c)
    for name in graph.params:
        assert_within_budget(ours[name], theirs[name])


def nearest_whole(x: np.ndarray) -> ub.Graph:
    """Rows of a table at the whole number that is next to each sample, times it and the sample."""
    nodes = [
        ub.Node("place", "whole", ("x",)),
        ub.Node("rows", "embedding", ("table", "place"), {"padding": -1}),
        ub.Node("number", "cast", ("place",)),
        ub.Node("times", "multiply", ("number", "x")),
        ub.Node("column", "reshape", ("times",), {"shape": (PerSample(), x.shape[1], 1)}),
        ub.Node("y", "multiply", ("rows", "column")),
    ]
    table = np.random.default_rng(0).normal(size=(4, 2))
    return ub.Graph(nodes, "y", params={"table": table}, sample_shape=x.shape[1:])


@pytest.mark.parametrize("backend", ["torch", "reference", pytest.param("julia", marks=pytest.mark.julia)])
def test_the_nearest_whole_number_is_the_even_one_of_two_and_has_no_slope(backend: str) -> None:
    x = np.array([[0.2, 0.5, 1.5, 2.5], [3.4, 2.6, 0.9, -0.4]])
    graph, whole = nearest_whole(x), np.array([[0, 0, 2, 2], [3, 3, 1, 0]])
    table = graph.params["table"]
    expected = table[whole] * (whole * x)[..., None]
    assert_within_budget(ub.outputs(graph, x, backend=backend), expected.reshape(2, -1))
    slopes = ub.input_jacobian(graph, x, backend=backend).reshape(2, 4, 2, 4)
    for k in range(4):
        assert_within_budget(slopes[:, k, :, k], table[whole[:, k]] * whole[:, k, None])
    pulled = ub.backends.get(backend).pull(graph, x, np.ones((2, 8)))["table"]
    assert_within_budget(pulled[:, 0], np.array([(whole * x)[whole == row].sum() for row in range(4)]))


@pytest.mark.costly("conv_transpose", "attention")
@pytest.mark.parametrize("op", CASES)
@given(seed=st.integers(0, 2**32 - 1))
def test_by_hand_equals_torch(op: str, seed: int) -> None:
    assert_equals_torch("reference", op, seed)


@pytest.mark.julia
@pytest.mark.parametrize("op", CASES)
@settings(max_examples=4)  # Zygote compiles for each number of axes
@given(seed=st.integers(0, 2**32 - 1))
def test_julia_equals_torch(op: str, seed: int) -> None:
    assert_equals_torch("julia", op, seed)


@pytest.mark.julia
@pytest.mark.parametrize("op", CASES)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32 - 1))
def test_second_derivatives_in_julia_equal_those_of_torch(op: str, seed: int) -> None:
    graph, x = one_operation(op, np.random.default_rng(seed))
    if op == "stop_gradient":
        return  # nothing follows it
    found, expected = (ub.backends.get(engine).input_hessian(graph, x) for engine in ("julia", "torch"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("op", CASES)
@given(seed=st.integers(0, 2**32 - 1))
def test_tangents_are_the_transpose_of_what_goes_back_and_finite_differences(op: str, seed: int) -> None:
    r = np.random.default_rng(seed)
    graph, x = one_operation(op, r)
    reference = ub.backends.get("reference")
    w = {name: r.normal(size=value.shape) for name, value in graph.params.items()}
    c = r.normal(size=(len(x), graph.n_outputs))
    pushed, pulled = reference.push(graph, x, w, c), reference.pull(graph, x, c)
    back = sum((pulled[name] * w[name]).sum() for name in w)
    scale = max(np.abs(c).sum(), 1.0) * max(1.0, np.abs(pushed).max(initial=0))
    np.testing.assert_allclose(pushed.sum(), back, atol=1e-12 * scale)
    if op == "stop_gradient":
        assert not pushed.any()
        return
    ahead, behind = (
        reference.outputs(graph.with_params({name: p + sign * STEP * w[name] for name, p in graph.params.items()}), x)
        for sign in (1, -1)
    )
    # A kink between the two points is no fault: there the slope is neither.
    error = np.abs(((ahead - behind) / (2 * STEP) * c).sum(axis=1) - pushed)
    assert np.median(error) <= 1e-6 * scale
