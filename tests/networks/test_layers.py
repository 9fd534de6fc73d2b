"""Layers as values: what NumPy gives is what Python gives, and copies are equal."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge.errors import LayerError
from udlbridge.networks.layers import LAYERS, layer_from_spec, same_padding
from udlbridge.networks.layers.convolution import window_count

LAYER = {
    "dense": (lambda n, f, b: ub.Dense(n(3), n(4), "relu", bias=b(True)), ub.Dense(3, 4, "relu")),
    "activation": (lambda n, f, b: ub.Activation(np.str_("mish")), ub.Activation("mish")),
    "softmax": (lambda n, f, b: ub.Softmax(), ub.Softmax()),
    "logsoftmax": (lambda n, f, b: ub.LogSoftmax(), ub.LogSoftmax()),
    "flatten": (lambda n, f, b: ub.Flatten(), ub.Flatten()),
    "dropout": (lambda n, f, b: ub.Dropout(f(0.25)), ub.Dropout(0.25)),
    "conv1d": (lambda n, f, b: ub.Conv1d(n(2), n(4), [n(3)], groups=n(2)), ub.Conv1d(2, 4, 3, groups=2)),
    "conv2d": (
        lambda n, f, b: ub.Conv2d(n(1), n(2), np.array([3, 5]), padding=(n(1), n(2)), bias=b(False)),
        ub.Conv2d(1, 2, (3, 5), padding="same", bias=False),
    ),
    "maxpool": (lambda n, f, b: ub.MaxPool(n(2), dims=n(1)), ub.MaxPool((2,))),
    "meanpool": (lambda n, f, b: ub.MeanPool(n(2), n(1), n(1)), ub.MeanPool((2, 2), (1, 1), (1, 1))),
    "globalmeanpool": (lambda n, f, b: ub.GlobalMeanPool(), ub.GlobalMeanPool()),
    "layernorm": (lambda n, f, b: ub.LayerNorm([n(2), n(3)], f(1), b(True)), ub.LayerNorm((2, 3), 1)),
    "groupnorm": (lambda n, f, b: ub.GroupNorm(n(2), n(4), f(0.5), b(False)), ub.GroupNorm(2, 4, 0.5, False)),
    "batchnorm": (lambda n, f, b: ub.BatchNorm(n(4), f(0.125)), ub.BatchNorm(4, 0.125)),
    "embedding": (lambda n, f, b: ub.Embedding(n(5), n(3)), ub.Embedding(5, 3)),
    "sinusoidalpositions": (lambda n, f, b: ub.SinusoidalPositions(), ub.SinusoidalPositions()),
    "learnedpositions": (lambda n, f, b: ub.LearnedPositions(n(5), n(3)), ub.LearnedPositions(5, 3)),
    "selfattention": (lambda n, f, b: ub.SelfAttention(n(4), n(2), b(True)), ub.SelfAttention(4, 2, True)),
    "take": (lambda n, f, b: ub.Take(n(-2)), ub.Take(-2)),
    "residual": (
        lambda n, f, b: ub.Residual(iter([ub.Dense(n(3), 3)]), ub.Dense(n(3), 3)),
        ub.Residual((ub.Dense(3, 3),), [ub.Dense(3, 3)]),
    ),
}


def test_every_layer_is_here() -> None:
    assert set(LAYER) == set(LAYERS)


@pytest.mark.parametrize("types", [(np.int64, np.float32, np.bool_), (np.int16, np.float64, bool), (int, float, bool)])
@pytest.mark.parametrize("kind", LAYER)
def test_numbers_of_numpy_are_numbers_of_python(kind: str, types: tuple[Callable, Callable, Callable]) -> None:
    build, expected = LAYER[kind]
    layer = build(*types)
    assert layer == expected
    assert hash(layer) == hash(expected)
    assert repr(layer) == repr(expected)
    assert json.dumps(layer.spec()) == json.dumps(expected.spec())
    assert layer_from_spec(json.loads(json.dumps(layer.spec()))) == expected


@pytest.mark.parametrize("kind", LAYER)
def test_copies_are_equal_and_frozen(kind: str) -> None:
    layer = LAYER[kind][1]
    for other in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer), attrs.evolve(layer)):
        assert other == layer
        assert hash(other) == hash(layer)
        assert repr(other) == repr(layer)
    for setting in attrs.fields(type(layer)):
        with pytest.raises(AttributeError):
            setattr(layer, setting.name, 1)


def test_layers_of_other_settings_or_kinds_are_not_equal() -> None:
    layers = [layer for _, layer in LAYER.values()]
    assert len(set(layers)) == len(layers)
    assert ub.Dense(2, 3) != ub.Dense(3, 2)
    assert ub.MaxPool(2) != ub.MeanPool(2)
    assert ub.MaxPool(2) != ub.MaxPool(2, dims=1)


@given(length=st.integers(1, 20), kernel=st.integers(1, 6), stride=st.integers(1, 4), dilation=st.integers(1, 3))
def test_same_padding_is_that_of_tensorflow(length: int, kernel: int, stride: int, dilation: int) -> None:
    """ceil(length / stride) windows, with no more zeros than that takes, and the odd one behind."""
    before, behind = same_padding(length, kernel, stride, dilation)
    assert window_count(length, kernel, stride, (before, behind), dilation) == -(-length // stride)
    assert behind - before in (0, 1)
    if before + behind > 0:
        assert window_count(length, kernel, stride, (before, behind - 1), dilation) < -(-length // stride)


def test_padding_of_one_side() -> None:
    layer = ub.Conv2d(1, 2, (2, 3), padding="same")
    assert layer.padding == ((0, 1), (1, 1))
    assert layer.output_shape((1, 5, 7)) == (2, 5, 7)
    assert ub.Conv1d(1, 1, 3, padding=((1, 1),)).padding == (1,)
    assert layer_from_spec(layer.spec()) == layer
    for wrong in (((0, 1),), ((0, 1), 2.5), ((0, -1), (0, 0)), ((1, 2, 3), (0, 0)), "full"):
        with pytest.raises(LayerError, match="padding"):
            ub.Conv2d(1, 1, 3, padding=wrong)
    with pytest.raises(LayerError, match="same_padding"):
        ub.Conv2d(1, 1, 3, stride=2, padding="same")


def test_torchs_names_of_activations_are_taken() -> None:
    assert ub.Dense(2, 3, "silu") == ub.Dense(2, 3, "swish")
    assert ub.Activation("leaky_relu") == ub.Activation("leakyrelu")
