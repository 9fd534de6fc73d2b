"""First and second derivatives with respect to inputs: every engine, finite differences, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import udlbridge as ub
from helpers import AGAINST_REFERENCE, assert_within_budget, dense_models, random_model, samples
from udlbridge.errors import LayerError, NumericalError, ShapeError
from udlbridge.networks.layers import ACTIVATIONS


def ones_network(hidden_layers: int) -> ub.Model:
    """The question's network: sigmoid layers of two units and a linear readout; every weight and bias is one."""
    layers = [*[ub.Dense(2, 2, "sigmoid") for _ in range(hidden_layers)], ub.Dense(2, 1, bias=False)]
    model = ub.Model(layers, dtype="float64")
    return model.with_params({name: np.ones_like(value) for name, value in model.params.items()})


def test_one_hidden_layer_gives_the_printed_derivatives(backend: str) -> None:
    result = ub.input_jacobian(ones_network(1), np.array([[1.0, 1.0]]), backend=backend)
    np.testing.assert_allclose(result, [[[0.0903533, 0.0903533]]], atol=5e-8)


def test_two_hidden_layers_equal_the_product_of_jacobians(backend: str) -> None:
    def slope(z: float) -> float:
        return float(np.exp(-z) / (1 + np.exp(-z)) ** 2)

    first = 3.0
    second = 2 / (1 + np.exp(-first)) + 1
    ones = np.ones((2, 2))
    expected = np.ones((1, 2)) @ (slope(second) * ones) @ (slope(first) * ones)
    result = ub.input_jacobian(ones_network(2), np.array([[1.0, 1.0]]), backend=backend)
    np.testing.assert_allclose(result[0], expected, rtol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hessian_is_the_finite_difference_of_the_jacobian(activation: str, backend: str) -> None:
    model = random_model([3, 5, 4], [activation, activation], softmax=True)
    x = samples(model, 4)
    step = 1e-5
    differences = [
        ub.input_jacobian(model, x + step * e, backend=backend)
        - ub.input_jacobian(model, x - step * e, backend=backend)
        for e in np.eye(3)
    ]
    expected = np.stack(differences, axis=-1) / (2 * step)
    result = ub.input_hessian(model, x, backend=backend)
    assert result.shape == (4, 4, 3, 3)
    np.testing.assert_allclose(result, expected, atol=1e-8 * max(1.0, np.abs(expected).max()))


KINKED = {"relu": 0.0, "leakyrelu": 0.01, "elu": 1.0, "selu": 1.7580993408473766, "abs": 0.0}
"""Activations with a kink at 0, in their slope or its slope, and the slope there, from the left."""


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("activation", KINKED)
def test_second_derivatives_at_a_kink_are_zero(activation: str, direction: float, zero: float, backend: str) -> None:
    weights = {"0.weight": np.array([[direction]]), "1.weight": np.ones((1, 1))}
    model = ub.Model([ub.Dense(1, 1, activation, bias=False), ub.Dense(1, 1, bias=False)], weights)
    x = np.array([[zero]])
    slope = ub.input_jacobian(model, x, backend=backend)
    np.testing.assert_allclose(slope, [[[direction * KINKED[activation]]]], rtol=1e-15)
    assert ub.input_hessian(model, x, backend=backend).item() == 0


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name not in KINKED])
def test_smooth_activations_have_their_second_derivative_at_zero(activation: str, backend: str) -> None:
    # Without biases all preactivations at x = 0 are 0 in the first layer, and in the others where f(0) = 0.
    layers = [ub.Dense(2, 4, activation, bias=False), ub.Dense(4, 3, activation, bias=False), ub.Dense(3, 2)]
    model, x, step = ub.Model(layers, seed=1, dtype="float64"), np.zeros((1, 2)), 1e-5
    differences = [
        ub.input_jacobian(model, x + step * e, backend=backend)
        - ub.input_jacobian(model, x - step * e, backend=backend)
        for e in np.eye(2)
    ]
    result = ub.input_hessian(model, x, backend=backend)
    np.testing.assert_allclose(result, np.stack(differences, axis=-1) / (2 * step), atol=1e-9)


@AGAINST_REFERENCE
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_engines_agree_where_all_preactivations_are_zero(activation: str, backend: str) -> None:
    layers = [ub.Dense(2, 4, activation), ub.Activation(activation), ub.Dense(4, 3, activation), ub.Dense(3, 2)]
    model, x = ub.Model(layers, seed=1, dtype="float64"), np.zeros((1, 2))
    by_hand = ub.input_hessian(model, x, backend="reference")
    np.testing.assert_allclose(ub.input_hessian(model, x, backend=backend), by_hand, atol=1e-13)


@given(dense_models())
def test_hessian_is_symmetric_and_two_engines_agree(model: ub.Model) -> None:
    x = samples(model, 3)
    by_torch = ub.input_hessian(model, x, backend="torch")
    by_hand = ub.input_hessian(model, x, backend="reference")
    np.testing.assert_allclose(by_torch, np.swapaxes(by_torch, 2, 3), atol=1e-12 * max(1.0, np.abs(by_torch).max()))
    # Saturated units leave only cancellation, so the scale is at least that of the weights.
    np.testing.assert_allclose(by_hand, by_torch, atol=1e-12 * max(1.0, np.abs(by_torch).max()))


@pytest.mark.julia
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hessian_from_julia_equals_the_reference(activation: str) -> None:
    model = random_model([3, 4, 2], [activation, activation], softmax=True)
    x = samples(model, 5)
    by_hand = ub.input_hessian(model, x, backend="reference")
    if np.abs(by_hand).max() == 0:
        assert np.abs(ub.input_hessian(model, x, backend="julia")).max() == 0
    else:
        assert_within_budget(ub.input_hessian(model, x, backend="julia"), by_hand)


def test_hessian_of_images_keeps_their_axes(backend: str) -> None:
    model = ub.Model([ub.Flatten(), ub.Dense(6, 2, "tanh")], dtype="float32")
    x = np.random.default_rng(0).standard_normal((3, 2, 3)).astype(np.float32)
    result = ub.input_hessian(model, x, backend=backend)
    assert result.shape == (3, 2, 2, 3, 2, 3)
    assert result.dtype == np.float32
    flat = ub.input_hessian(
        ub.Model(model.layers[1:], {k.replace("1.", "0."): v for k, v in model.params.items()}),
        x.reshape(3, 6),
        backend=backend,
    )
    assert_within_budget(result.reshape(3, 2, 6, 6), flat)


def test_hessian_needs_one_vector_of_outputs(backend: str) -> None:
    model = ub.Model([ub.Dense(2, 3, "tanh")], dtype="float64")
    with pytest.raises(ShapeError, match="end the model with Flatten"):
        ub.input_hessian(model, np.zeros((2, 4, 2)), backend=backend)


CONVOLUTIONAL = [
    ub.Conv2d(2, 4, 3, "tanh", stride=2, padding=1, groups=2),
    ub.BatchNorm(4),
    ub.Activation("softplus"),
    ub.Residual([ub.Conv2d(4, 4, 1, "sigmoid"), ub.Dropout(0.5)]),
    ub.MeanPool((2, 2)),
    ub.GlobalMeanPool(),
    ub.Flatten(),
    ub.Dense(4, 3),
    ub.LogSoftmax(),
]


@pytest.mark.parametrize("engine", ["torch", pytest.param("julia", marks=pytest.mark.julia)])
def test_hessian_through_many_layers(engine: str) -> None:
    model = ub.Model(CONVOLUTIONAL, seed=4, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 6))
    by_hand = ub.input_hessian(model, x, backend="reference")
    assert by_hand.shape == (2, 3, 2, 8, 6, 2, 8, 6)
    assert np.abs(by_hand).max() > 1e-6
    assert_within_budget(ub.input_hessian(model, x, backend=engine), by_hand)


def test_reference_names_a_layer_without_second_derivatives() -> None:
    model = ub.Model([ub.Dense(4, 4, "tanh"), ub.Residual([ub.LayerNorm(4)])], dtype="float64")
    with pytest.raises(LayerError, match="a residual block's layer 0, layernorm"):
        ub.input_hessian(model, np.ones((1, 4)), backend="reference")


def test_tokens_have_no_second_derivatives(backend: str) -> None:
    model = ub.Model([ub.Embedding(3, 2), ub.Take(-1)], dtype="float64")
    with pytest.raises(LayerError, match="begins with an Embedding"):
        ub.input_hessian(model, np.array([[0, 1]]), backend=backend)


def test_no_result_shares_memory_with_what_was_given(backend: str) -> None:
    """Layers that change nothing pass on what they get: a result must not be a view of it."""
    x = np.arange(12.0).reshape(3, 2, 2)
    flat = x.reshape(3, 4)
    model, chain = ub.Model([ub.Flatten()], dtype="float64"), ub.Model([ub.Flatten(), ub.Flatten()], dtype="float64")
    results = {
        "outputs": ub.outputs(model, x, backend=backend),
        "input Jacobian": ub.input_jacobian(model, x, backend=backend),
        "features": ub.features(chain, x, layer=0, backend=backend),
        "kernel of features": np.asarray(ub.feature_kernel(chain, x, layer=0, backend=backend)),
        "centred": ub.centre(flat @ flat.T),
        "repaired": ub.repair(np.eye(3)).kernel,
    }
    for what, result in results.items():
        assert not np.shares_memory(result, x), what
        result += 1
    np.testing.assert_array_equal(x, np.arange(12.0).reshape(3, 2, 2))
    run = ub.train(
        ub.Model([ub.Dense(4, 1)], dtype="float64"), flat, flat[:, :1], epochs=1, loss="mse", backend=backend
    )
    assert not any(np.shares_memory(array, x) for array in run.model.params.values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow
def test_derivatives_that_are_not_finite_are_refused_with_the_entry(backend: str) -> None:
    def steep(activation: str) -> ub.Model:
        model = ub.Model([ub.Dense(2, 2, activation), ub.Dense(2, 1)], seed=0, dtype="float32")
        return model.with_params({name: value * np.float32(1e25) for name, value in model.params.items()})

    small, large = np.full((3, 2), 1e-26, np.float32), np.full((3, 2), 1e14, np.float32)
    for derivative, model, x in (
        (ub.input_jacobian, steep("tanh"), small),  # where tanh is not flat yet
        (ub.input_hessian, steep("tanh"), small),
        (ub.jacobian, steep("identity"), large),
    ):
        with pytest.raises(NumericalError, match=r"\[0, 0, .* in float32") as caught:
            derivative(model, x, backend=backend)
        assert "float64" in str(caught.value.remedy)
    wide = ub.input_jacobian(steep("tanh").astype("float64"), small.astype(np.float64), backend=backend)
    assert np.isfinite(wide).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_or_its_gradient_that_is_not_finite_is_refused(backend: str) -> None:
    weights = {"0.weight": np.full((1, 2), 1e-18, np.float32), "0.bias": np.zeros(1, np.float32)}
    model = ub.Model([ub.Dense(2, 1)], weights)
    for size, target, words in ((1e36, 0.0, "the gradient by 0.weight"), (3e38, 1e38, "the loss is inf")):
        x, y = np.full((2, 2), size, np.float32), np.full((2, 1), target, np.float32)
        with pytest.raises(NumericalError, match=words):
            ub.loss_gradient(model, x, y, loss="mse", backend=backend)
