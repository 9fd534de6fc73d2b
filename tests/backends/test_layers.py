"""Every layer: against finite differences, against the other engines, and structured against plain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, image_networks, sequence_networks, shaken, wide_networks
from helpers import AGAINST_REFERENCE, assert_within_budget, load_golden
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.backends.sites import sites
from udlbridge.networks.layers import LAYERS, Layer, layer_from_spec

ALL = EVERY_LAYER | TOKENS
REDUCTIONS = [0, "trace", "mean", "sum", "diagonal", (1, 0), "full"]


def kinds(layers: list[Layer]) -> set[str]:
    inside = [kinds([*layer.layers, *layer.shortcut]) for layer in layers if isinstance(layer, ub.Residual)]
    return {layer.kind for layer in layers}.union(*inside)


def test_the_list_of_networks_has_every_layer() -> None:
    assert set().union(*(kinds(layers) for layers, _ in ALL.values())) | {"softmax"} == set(LAYERS)


@pytest.mark.parametrize("name", ["conv1d", "conv2d_pad00_stride11", "conv2d_pad11_stride22"])
def test_flux_convolutions(name: str, backend: str) -> None:
    spec, params, golden = load_golden(name)
    weight = params["0.weight"]
    conv = ub.Conv1d if spec["kind"] == "conv1d" else ub.Conv2d
    stride, pad = spec["stride"], spec["pad"]
    # Recorded in Flux's order, (W, H); these are symmetric.
    activation = spec.get("activation", "tanh")
    first = conv(weight.shape[1], weight.shape[0], weight.shape[2:], activation, stride=stride, padding=pad)
    model = ub.Model([first, ub.Flatten(), ub.Dense(*params["2.weight"].shape[::-1])], params)
    x = golden["x"]
    assert_within_budget(ub.outputs(model, x, backend=backend), golden["outputs"])
    for method in ("structured", "plain"):
        assert_within_budget(ub.ntk(model, x, outputs="full", backend=backend, method=method), golden["ntk"])
    found = ub.input_jacobian(model, x, backend=backend)
    assert_within_budget(found.reshape(golden["input_jacobian"].shape), golden["input_jacobian"])


def assert_differences(function, at: np.ndarray, derivative: np.ndarray, step: float = 1e-5) -> None:
    """Central differences of function(at) (n, O) are `derivative` (n, O, *shape), for every entry of `at`."""
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        difference = (function(up) - function(down)) / (2 * step)
        np.testing.assert_allclose(derivative[(..., *index)], difference, rtol=1e-6, atol=1e-7, err_msg=str(index))


@pytest.mark.sampled
@pytest.mark.parametrize("name", ALL)
def test_reference_derivatives_are_finite_differences(name: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x = batch(model, shape, 2)
    blocks = ub.jacobian(model, x, backend="reference")
    assert list(blocks) == list(model.params)
    for parameter, block in blocks.items():

        def moved(value: np.ndarray, parameter: str = parameter) -> np.ndarray:
            return ub.outputs(model.with_params({**model.params, parameter: value}), x, backend="reference")

        assert_differences(moved, np.array(model.params[parameter]), block)
    if not model.takes_tokens:
        found = ub.input_jacobian(model, x, backend="reference")
        for i in range(len(x)):
            assert_differences(lambda one: ub.outputs(model, one[None], backend="reference"), x[i], found[i : i + 1])


def test_the_networks_take_both_forms_of_structured_kernels() -> None:
    """Pairs of positions pay where layers are wide and positions few: these networks must have such a place."""
    for name in ("conv2d wide", "dense wide tokens"):
        layers, shape = ALL[name]
        first = sites(ub.Model(layers), shape)[0]
        assert first.positions > 1
        assert first.by_pairs(checked_reduction("trace", 2))
    assert not sites(ub.Model(ALL["conv2d"][0]), ALL["conv2d"][1])[0].by_pairs(checked_reduction("trace", 2))
    few, many = (sites(ub.Model(ALL[name][0]), ALL[name][1])[0] for name in ("embedding of few tokens", "embedding"))
    assert many.by_tokens(checked_reduction("trace", 8))
    assert not few.by_tokens(checked_reduction("trace", 10))


@dataclass(frozen=True)
class ByHand:
    """A network, samples, and what the reference engine says of them: the same for every engine."""

    model: ub.Model
    x: np.ndarray
    x2: np.ndarray
    outputs: np.ndarray
    jacobian: dict[str, np.ndarray]
    input_jacobian: np.ndarray | None
    kernels: dict[Any, np.ndarray]


@cache
def by_hand(name: str, dtype: str) -> ByHand:
    layers, shape = ALL[name]
    model = shaken(layers, dtype=dtype)
    x, x2 = batch(model, shape, 3), batch(model, shape, 2, seed=5)
    return ByHand(
        model,
        x,
        x2,
        ub.outputs(model, x, backend="reference"),
        ub.jacobian(model, x, backend="reference"),
        None if model.takes_tokens else ub.input_jacobian(model, x, backend="reference"),
        {o: ub.ntk(model, x, x2, outputs=o, backend="reference", method="plain") for o in REDUCTIONS},
    )


@pytest.mark.costly("float32")
@AGAINST_REFERENCE
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ALL)
def test_engines_agree(name: str, dtype: str, backend: str) -> None:
    expected = by_hand(name, dtype)
    model, x, x2 = expected.model, expected.x, expected.x2
    assert_within_budget(ub.outputs(model, x, backend=backend), expected.outputs)
    found = ub.jacobian(model, x, backend=backend)
    assert list(found) == list(expected.jacobian)
    for parameter, block in found.items():
        assert_within_budget(block, expected.jacobian[parameter])
    if expected.input_jacobian is not None:
        assert_within_budget(ub.input_jacobian(model, x, backend=backend), expected.input_jacobian)
    for outputs, method in product(REDUCTIONS, ("structured", "plain")):
        kernel = ub.ntk(model, x, x2, outputs=outputs, backend=backend, method=method)
        assert_within_budget(kernel, expected.kernels[outputs])


@pytest.mark.slow
# Each new network costs Julia seconds of compilation: it sees the fixed ones above.
@pytest.mark.sampled
@pytest.mark.parametrize("engine", ["torch", "reference"])
@given(network=st.one_of(image_networks(), sequence_networks(), wide_networks()), choice=st.sampled_from(REDUCTIONS))
def test_structured_equals_plain_on_random_networks(engine: str, network, choice: Outputs) -> None:
    model, shape = network
    x, x2 = batch(model, shape, 3), batch(model, shape, 2, seed=5)
    structured = ub.ntk(model, x, x2, outputs=choice, backend=engine, method="structured")
    plain = ub.ntk(model, x, x2, outputs=choice, backend=engine, method="plain")
    # Kernels of single outputs may cancel down to nothing: the budget is relative to the kernel with itself.
    own = np.abs(ub.ntk(model, np.concatenate([x, x2]), outputs="trace", backend=engine, method="plain")).max()
    np.testing.assert_allclose(structured, plain, rtol=0, atol=1e-12 * max(own, 1e-3))


@pytest.mark.parametrize("name", ALL)
def test_a_saved_model_is_the_same_model(name: str, tmp_path) -> None:
    model = shaken(ALL[name][0])
    model.save(tmp_path / "model.safetensors")
    loaded = ub.Model.load(tmp_path / "model.safetensors")
    assert loaded == model
    assert loaded.layers == model.layers
    assert loaded.buffers.keys() == model.buffers.keys()


@settings(max_examples=50)
@given(network=image_networks())
def test_specs_describe_layers(network) -> None:
    for layer in network[0].layers:
        assert layer_from_spec(layer.spec()) == layer


def test_buffers_are_not_parameters_but_belong_to_the_model() -> None:
    model = ub.Model([ub.Conv1d(2, 3, 2), ub.BatchNorm(3), ub.Flatten()], dtype="float64")
    assert list(model.params) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(model.buffers) == ["1.running_mean", "1.running_var"]
    assert model.n_params == 12 + 3 + 6
    np.testing.assert_array_equal(model.buffers["1.running_var"], np.ones(3))
    moved = model.with_params({**model.params, "1.running_mean": np.ones(3)})
    assert moved != model
    assert moved.with_params(model.params) == moved
    assert moved.astype("float32").buffers["1.running_mean"].dtype == np.float32


@pytest.mark.parametrize("n", [1, 3])
def test_a_group_of_one_number_is_zero(n: int, backend: str) -> None:
    """torch's own function takes such a batch for a mistake of training."""
    model = shaken([ub.Dense(3, 4), ub.GroupNorm(4, 4)])
    x = batch(model, (3,), n)
    assert_within_budget(ub.outputs(model, x, backend=backend), np.tile(model.params["1.bias"], (n, 1)))
    blocks = ub.jacobian(model, x, backend=backend)
    assert_within_budget(blocks["1.bias"], np.tile(np.eye(4), (n, 1, 1)))
    np.testing.assert_allclose(blocks["0.weight"], 0, atol=1e-12)
    for method in ("structured", "plain"):
        kernel = ub.ntk(model, x, backend=backend, method=method)
        assert_within_budget(kernel, np.full((n, n), 4.0))


def test_max_pooling_gives_ties_to_the_first(backend: str) -> None:
    model = ub.Model([ub.MaxPool(2), ub.Flatten()], dtype="float64")
    x = np.array([[[[1.0, 1.0], [1.0, 1.0]]], [[[0.0, 2.0], [2.0, 2.0]]]])
    expected = np.array([[[[[1.0, 0.0], [0.0, 0.0]]]], [[[[0.0, 1.0], [0.0, 0.0]]]]])
    np.testing.assert_array_equal(ub.input_jacobian(model, x, backend=backend), expected)


def test_max_pooling_tells_close_entries_apart(backend: str) -> None:
    # Closer than sqrt(eps): an engine that looks for the winner by approximate equality takes the first.
    model = ub.Model([ub.MaxPool(2, dims=1), ub.Flatten()], dtype="float64")
    x = np.array([[[1.0, 1.0 + 1e-10]]])
    np.testing.assert_array_equal(ub.input_jacobian(model, x, backend=backend), [[[[0.0, 1.0]]]])


def test_settings_are_integers_of_numpy_too() -> None:
    one, two, four = np.int64(1), np.int32(2), np.uint8(4)
    pairs: list[tuple[Layer, Layer]] = [
        (ub.Dense(3, four), ub.Dense(3, 4)),
        (
            ub.Conv2d(two, four, (np.int64(3), 1), stride=one, padding=two, groups=two),
            ub.Conv2d(2, 4, (3, 1), stride=1, padding=2, groups=2),
        ),
        (ub.MaxPool(two, dims=one), ub.MaxPool(2, dims=1)),
        (ub.LayerNorm((two, four), eps=np.float32(0.5)), ub.LayerNorm((2, 4), eps=0.5)),
        (ub.LayerNorm(four), ub.LayerNorm(4)),
        (ub.GroupNorm(two, four), ub.GroupNorm(2, 4)),
        (ub.BatchNorm(four), ub.BatchNorm(4)),
        (ub.Dropout(np.float32(0.5)), ub.Dropout(0.5)),
        (ub.Embedding(four, two), ub.Embedding(4, 2)),
        (ub.LearnedPositions(four, two), ub.LearnedPositions(4, 2)),
        (ub.SelfAttention(four, two), ub.SelfAttention(4, 2)),
        (ub.Take(np.int64(-1)), ub.Take(-1)),
    ]
    for layer, plain in pairs:
        assert layer == plain
        assert json.dumps(layer.spec()) == json.dumps(plain.spec())
