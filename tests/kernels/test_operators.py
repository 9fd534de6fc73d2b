"""The kernel without a kernel: products by two passes of autodiff, in every engine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from helpers import assert_within_budget, dense_models, random_model, samples
from udlbridge import backends
from udlbridge.errors import OptionError
from udlbridge.networks.layers import ACTIVATIONS


def assert_is_the_kernel(model: ub.Model, x: np.ndarray, backend: str, outputs: int | str, at_once: int = 3) -> None:
    kernel = ub.ntk(model, x, outputs=outputs, backend="reference")
    operator = ub.ntk_operator(model, x, outputs=outputs, backend=backend, batch=at_once)
    v = np.random.default_rng(5).standard_normal((len(x), 2)).astype(model.dtype)
    assert (operator.shape, operator.dtype) == (kernel.shape, model.dtype)
    assert_within_budget(operator @ v, kernel @ v)
    assert_within_budget(operator @ v[:, 0], kernel @ v[:, 0])
    assert_within_budget(operator.T @ v[:, 1], kernel @ v[:, 1])


@pytest.mark.parametrize("outputs", [0, 2, "trace", "mean", "sum"])
def test_products_are_those_of_the_kernel(backend: str, outputs: int | str) -> None:
    model = random_model([4, 5, 3], ["tanh", "sigmoid"])
    assert_is_the_kernel(model, samples(model, 7), backend, outputs)


@pytest.mark.parametrize(("outputs", "params"), [(1, None), ("trace", ["0.weight", "1.bias"])])
def test_the_same_in_another_dtype(backend: str, outputs: int | str, params: list[str] | None) -> None:
    narrow = random_model([4, 5, 3], ["tanh", "sigmoid"]).astype("float32")
    x = samples(narrow, 6)
    operator = ub.ntk_operator(narrow, x, outputs=outputs, params=params, backend=backend, batch=4)
    assert operator.astype("float32") is operator
    wide = operator.astype("float64")
    assert (wide.dtype, wide.params, wide.reduction) == (np.float64, operator.params, operator.reduction)
    kernel = ub.ntk(narrow.astype("float64"), x.astype(np.float64), outputs=outputs, params=params, backend="reference")
    assert_within_budget(wide @ np.eye(6), kernel)


def test_tokens_have_no_other_dtype(backend: str) -> None:
    model = ub.models.small_transformer()
    tokens = np.random.default_rng(0).integers(0, 10, (3, 16))
    wide = ub.ntk_operator(model, tokens, outputs=0, backend=backend).astype("float64")
    kernel = ub.ntk(model.astype("float64"), tokens, outputs=0, backend="reference")
    assert_within_budget(wide @ np.eye(3), kernel)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(backend: str, activation: str) -> None:
    model = random_model([3, 4, 2], [activation, activation], softmax=True)
    assert_is_the_kernel(model, samples(model, 5), backend, 1)


@pytest.mark.sampled
@given(model=dense_models(), n=st.integers(1, 6), at_once=st.integers(1, 7))
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_any_network_and_batch(engine: str, model: ub.Model, n: int, at_once: int) -> None:
    x = samples(model, n)
    kernel = ub.ntk(model, x, backend="reference")
    operator = ub.ntk_operator(model, x, backend=engine, batch=at_once)
    # A kernel that softmax or a dead ReLU makes vanish is compared on the scale of the Jacobian that it is made of.
    scale = max(sum(float((block**2).sum()) for block in ub.jacobian(model, x, backend="reference").values()), 1e-30)
    np.testing.assert_allclose(operator @ np.eye(n), kernel, rtol=0, atol=1e-12 * scale)


def test_push_is_the_transpose_of_pull(backend: str) -> None:
    """<J' c, w> = <c, J w>, with weights of their own for every sample and output."""
    model = random_model([4, 5, 3], ["gelu_erf", "identity"], softmax=True)
    x = samples(model, 6)
    generator = np.random.default_rng(0)
    cotangents = generator.standard_normal((6, 3))
    direction = {name: generator.standard_normal(value.shape) for name, value in model.params.items()}
    engine = backends.get(backend)
    pulled = engine.pull(model, x, cotangents)
    assert {name: value.shape for name, value in pulled.items()} == model.param_shapes()
    pushed = engine.push(model, x, direction, cotangents)
    expected = np.zeros(6)
    for name, block in ub.jacobian(model, x, backend="reference").items():
        rows = np.einsum("ia,iap->ip", cotangents, block.reshape(6, 3, -1))
        assert_within_budget(pulled[name], rows.sum(axis=0).reshape(pulled[name].shape))
        expected += rows @ direction[name].reshape(-1)
    assert_within_budget(pushed, expected)


def test_both_passes_take_the_same_slope_at_a_kink(backend: str) -> None:
    """relu'(0) = 0 in both directions: a black image and zero biases put every preactivation on the kink."""
    model = ub.Model([ub.Dense(3, 5, "relu"), ub.Dense(5, 2)], dtype="float64")
    assert_is_the_kernel(model, np.vstack([np.zeros(3), samples(model, 3)]), backend, "trace")


def test_float32(backend: str, images: np.ndarray) -> None:
    assert_is_the_kernel(ub.models.three_layer_sigmoid(), images, backend, "trace", at_once=4)


def test_layers_without_parameters_and_sequences(backend: str) -> None:
    inner = random_model([3, 4], ["tanh"])
    model = ub.Model([*inner.layers, ub.Flatten(), ub.Dense(8, 2)], seed=3, dtype="float64")
    assert_is_the_kernel(model, np.random.default_rng(0).standard_normal((5, 2, 3)), backend, "trace")
    empty = ub.Model([ub.Softmax()], dtype="float64")
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(ub.ntk_operator(empty, x, backend=backend) @ np.ones(3), np.zeros(3))


@pytest.mark.sampled
@pytest.mark.parametrize("name", EVERY_LAYER | TOKENS)
def test_every_layer(backend: str, name: str) -> None:
    layers, shape = (EVERY_LAYER | TOKENS)[name]
    model = shaken(layers)
    assert_is_the_kernel(model, batch(model, shape, 4), backend, "trace")


def test_spectrum_without_a_kernel(backend: str) -> None:
    """The ends of the spectrum by autodiff are those of the stored kernel by LAPACK."""
    x = ub.data.mnist("train", n=40)[0]
    model = ub.models.three_layer_sigmoid()
    whole = ub.spectrum(model, x=x, outputs=0, backend=backend)
    part = ub.spectrum(model, 3, x=x, outputs=0, backend=backend, dense_limit=0)
    assert (whole.complete, part.complete) == (True, False)
    np.testing.assert_allclose(part.largest, whole.eigenvalues[-3:], rtol=1e-4)
    np.testing.assert_allclose(part.smallest[0], whole.eigenvalues[0], rtol=0, atol=whole.tolerance)
    assert part.verdict in ("PSD", "rounding")
    assert (whole.rank_bound, part.rank_bound) == (40, 40)


def test_rank_bound_counts_outputs() -> None:
    """P for one output and for their sum; O P for the trace and the mean, where outputs do not share directions."""
    model = ub.models.notebook_method1(dtype="float64")
    two = random_model([2, 2], ["identity"])  # P = 6, O = 2
    x = np.random.default_rng(0).standard_normal((30, 2))
    assert ub.ntk_operator(model, x, outputs=0, backend="reference").rank_bound == 9
    bounds = {
        outputs: ub.ntk_operator(two, x, outputs=outputs, backend="reference").rank_bound for outputs in (0, "sum")
    }
    assert bounds == {0: 6, "sum": 6}
    assert ub.ntk_operator(two, x, outputs="trace", backend="reference").rank_bound == 12
    assert ub.spectrum(two, x=x, outputs="mean", backend="reference").rank_bound == 12
    assert ub.spectrum(two, x=x, outputs=0, backend="reference", rank=3).rank_bound == 3


def test_threads_are_set_for_the_product_and_given_back(backend: str) -> None:
    model = random_model([4, 5, 3], ["tanh", "sigmoid"])
    x = samples(model, 7)
    engine = backends.get(backend)
    seen: list[int | None] = []
    before = engine.blas_threads

    def noted(count: int | None) -> AbstractContextManager[None]:
        seen.append(count)
        return before(count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "blas_threads", noted)
        product = ub.ntk_operator(model, x, backend=backend, threads=1) @ np.ones(7)
    assert seen == [1]
    assert_within_budget(product, ub.ntk(model, x, backend="reference").sum(axis=1))


def test_torch_uses_that_many_threads() -> None:
    torch = pytest.importorskip("torch")
    engine, before = backends.get("torch"), torch.get_num_threads()
    with engine.blas_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_numbers_of_threads_that_cannot_be(threads: object) -> None:
    model = random_model([4, 3], ["tanh"])
    with pytest.raises(OptionError, match="threads="):
        ub.ntk_operator(model, samples(model, 2), threads=threads)  # type: ignore[arg-type]
