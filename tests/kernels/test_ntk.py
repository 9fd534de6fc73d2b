"""Properties of the kernel and of the derivatives behind it, in every engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from helpers import assert_within_budget, dense_models, random_model, samples
from udlbridge.networks.layers import ACTIVATIONS

# Hypothesis tries many networks; each new one costs Julia seconds of compilation, so it sees fixed ones below.
FAST = ("torch", "reference")


@given(model=dense_models(), n=st.integers(1, 4), m=st.integers(1, 4), data=st.data())
@pytest.mark.parametrize("engine", FAST)
def test_structured_equals_plain(engine: str, model: ub.Model, n: int, m: int, data: st.DataObject) -> None:
    x, x2 = samples(model, n, 1), samples(model, m, 2)
    n_outputs = model.output_shape(x.shape[1:])[0]
    choice = data.draw(st.sampled_from([*range(n_outputs), "trace", "mean", "diagonal", "full"]))
    structured = ub.ntk(model, x, x2, outputs=choice, backend=engine, method="structured")
    plain = ub.ntk(model, x, x2, outputs=choice, backend=engine, method="plain")
    # A kernel that softmax or a dead ReLU makes vanish is compared on the scale of the Jacobian that it is made of.
    blocks = ub.jacobian(model, np.concatenate([x, x2]), backend=engine).values()
    scale = max(sum(float((block**2).sum()) for block in blocks), 1e-30)
    np.testing.assert_allclose(structured, plain, rtol=0, atol=1e-12 * scale)


@given(model=dense_models(), n=st.integers(1, 5))
@pytest.mark.parametrize("engine", FAST)
def test_kernel_is_symmetric_and_psd(engine: str, model: ub.Model, n: int) -> None:
    kernel = ub.ntk(model, samples(model, n), backend=engine)
    np.testing.assert_allclose(kernel, kernel.T, rtol=0, atol=1e-12 * max(float(np.abs(kernel).max()), 1e-300))
    assert ub.spectrum(kernel).verdict != "not PSD"


def fixed_model(softmax: bool = True) -> ub.Model:
    return random_model([4, 5, 3], ["tanh", "identity"], softmax=softmax)


def test_reductions_are_those_of_the_full_kernel(backend: str) -> None:
    model = fixed_model(softmax=False)
    x, x2 = samples(model, 4, 1), samples(model, 3, 2)
    for method in ("structured", "plain"):
        full = ub.ntk(model, x, x2, outputs="full", backend=backend, method=method)
        assert full.shape == (4, 3, 3, 3)
        expected = {
            "trace": np.einsum("ijaa->ij", full),
            "mean": np.einsum("ijaa->ij", full) / 3,
            "sum": full.sum(axis=(2, 3)),
            "diagonal": np.einsum("ijaa->ija", full),
            0: full[:, :, 0, 0],
            2: full[:, :, 2, 2],
        }
        for outputs, value in expected.items():
            assert_within_budget(ub.ntk(model, x, x2, outputs=outputs, backend=backend, method=method), value)


def test_kernel_is_the_product_of_jacobians(backend: str) -> None:
    model = fixed_model()
    x, x2 = samples(model, 4, 1), samples(model, 3, 2)
    left, right = ub.jacobian(model, x, backend=backend), ub.jacobian(model, x2, backend=backend)
    assert list(left) == list(model.params)
    product = sum(np.einsum("iap,jbp->ijab", left[k].reshape(4, 3, -1), right[k].reshape(3, 3, -1)) for k in left)
    assert_within_budget(ub.ntk(model, x, x2, outputs="full", backend=backend), np.asarray(product))


def test_cross_kernel_is_a_block_of_the_whole(backend: str) -> None:
    model = fixed_model()
    x = samples(model, 7)
    whole = ub.ntk(model, x, backend=backend)
    assert_within_budget(ub.ntk(model, x[:3], x[3:], backend=backend), whole[:3, 3:].copy(), factor=10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobians_equal_finite_differences(activation: str) -> None:
    """The oracle for the reference engine: central differences of its own outputs, which the goldens pin down."""
    model = random_model([3, 4, 2], [activation, activation], softmax=True)
    x = samples(model, 3)
    step = 1e-6

    def difference(plus: np.ndarray, minus: np.ndarray) -> np.ndarray:
        return (plus - minus) / (2 * step)

    analytic = ub.input_jacobian(model, x, backend="reference")
    for d in range(3):
        shift = np.zeros_like(x)
        shift[:, d] = step
        numeric = difference(*(ub.outputs(model, x + s, backend="reference") for s in (shift, -shift)))
        np.testing.assert_allclose(analytic[:, :, d], numeric, atol=1e-8)
    blocks = ub.jacobian(model, x, backend="reference")
    for name, value in model.params.items():
        for where in np.ndindex(value.shape):
            shifted = []
            for sign in (1, -1):
                moved = value.copy()
                moved[where] += sign * step
                shifted.append(ub.outputs(model.with_params({**model.params, name: moved}), x, backend="reference"))
            np.testing.assert_allclose(blocks[name][(..., *where)], difference(*shifted), atol=1e-8)


def test_float32_stays_float32(backend: str, images: np.ndarray) -> None:
    model = ub.models.three_layer_sigmoid()
    x = images[:3]
    results = [
        ub.outputs(model, x, backend=backend),
        ub.input_jacobian(model, x, backend=backend),
        ub.ntk(model, x, backend=backend),
        *ub.jacobian(model, x, backend=backend).values(),
    ]
    assert {result.dtype.name for result in results} == {"float32"}


def test_results_are_the_callers_own(backend: str) -> None:
    """Nothing that is returned is a view of an engine's memory, or of the model."""
    model = fixed_model()
    x = samples(model, 3)
    before = ub.ntk(model, x, backend=backend).copy()
    for block in ub.jacobian(model, x, backend=backend).values():
        block[...] = 7.0
    ub.outputs(model, x, backend=backend)[...] = 7.0
    np.testing.assert_array_equal(ub.ntk(model, x, backend=backend), before)


def test_images_are_flattened_in_c_order(backend: str) -> None:
    """(n, 2, 3) through Flatten is the network on x.reshape(n, 6): the axis order crosses the bridge rightly."""
    dense = random_model([6, 4, 2], ["tanh", "identity"])
    flat = ub.Model(
        [ub.Flatten(), *dense.layers],
        {f"{int(name[0]) + 1}{name[1:]}": value for name, value in dense.params.items()},
    )
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    assert_within_budget(ub.outputs(flat, x, backend=backend), ub.outputs(dense, x.reshape(5, 6), backend="reference"))
    assert_within_budget(ub.ntk(flat, x, backend=backend), ub.ntk(dense, x.reshape(5, 6), backend="reference"))
    jacobian = ub.input_jacobian(flat, x, backend=backend)
    assert_within_budget(jacobian, ub.input_jacobian(dense, x.reshape(5, 6), backend="reference").reshape(5, 2, 2, 3))


def test_dense_layers_on_sequences(backend: str) -> None:
    """Dense acts on the last axis of (n, T, d); its parameters then sum over T, which the plain method does."""
    inner = random_model([3, 4], ["tanh"])
    model = ub.Model([*inner.layers, ub.Flatten(), ub.Dense(8, 2)], seed=3, dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    assert_within_budget(ub.ntk(model, x, backend=backend), ub.ntk(model, x, backend="reference"))
    assert_within_budget(ub.ntk(model, x, backend=backend), ub.ntk(model, x, backend=backend, method="plain"))


def test_model_without_parameters_has_kernel_zero(backend: str) -> None:
    model = ub.Model([ub.Softmax()], dtype="float64")
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(ub.ntk(model, x, backend=backend), np.zeros((3, 3)))
    assert ub.jacobian(model, x, backend=backend) == {}


def test_threads_do_not_change_the_result(backend: str) -> None:
    model = fixed_model()
    x = samples(model, 6)
    assert_within_budget(ub.ntk(model, x, backend=backend, threads=1), ub.ntk(model, x, backend=backend, threads=2))


def test_softmax_of_large_numbers_does_not_overflow(backend: str) -> None:
    model = ub.Model([ub.Dense(1, 2), ub.Softmax()], dtype="float64")
    model = model.with_params({"0.weight": np.array([[1000.0], [-1000.0]]), "0.bias": np.zeros(2)})
    y = ub.outputs(model, np.array([[1.0], [-1.0]]), backend=backend)
    np.testing.assert_array_equal(y, [[1.0, 0.0], [0.0, 1.0]])


def test_the_bar_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model([4, 5, 3], ["tanh", "sigmoid"])
    x = samples(model, 7)
    quiet = ub.ntk(model, x, backend="reference")
    assert capsys.readouterr().err == ""
    shown = ub.ntk(model, x, backend="reference", progress=True)
    assert capsys.readouterr().err != ""
    np.testing.assert_array_equal(shown, quiet)
