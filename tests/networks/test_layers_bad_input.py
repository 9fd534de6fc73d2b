"""What layers refuse: settings that cannot be, samples that do not fit, arrays of another layout. Each by its words."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import errors

SETTINGS = {
    "groups": (
        lambda: ub.Conv2d(4, 6, 3, groups=4),
        r"Conv2d has groups=4 for in_channels=4 and out_channels=6.*divides in_ch",
    ),
    "kernel": (lambda: ub.Conv2d(1, 1, 0), r"Conv2d has kernel_size=0.*at least 1, or 2 of them"),
    "pair": (lambda: ub.Conv2d(1, 1, (3, 3, 3)), r"kernel_size=\(3, 3, 3\).*or 2 of them"),
    "stride": (lambda: ub.Conv1d(1, 1, 3, stride=-1), r"Conv1d has stride=-1.*or 1 of them"),
    "padding": (lambda: ub.Conv2d(1, 1, 3, padding="full"), r"padding='full'"),
    "same": (lambda: ub.Conv2d(1, 1, 2, stride=2, padding="same"), r'padding="same".*stride 1'),
    "channels": (lambda: ub.Conv1d(0, 1, 3), r"Conv1d has in_channels=0"),
    "activation": (lambda: ub.Conv2d(1, 1, 3, "gelu"), r"Conv2d has activation='gelu'.*gelu_erf"),
    "pool padding": (lambda: ub.MaxPool(2, padding=2), r"MaxPool has padding=\(2, 2\).*half the kernel"),
    "pool axes": (lambda: ub.MeanPool(2, dims=3), r"MeanPool has dims=3.*1 or 2"),
    "norm groups": (lambda: ub.GroupNorm(3, 4), r"GroupNorm has num_groups=3 for num_channels=4.*divides"),
    "eps": (lambda: ub.LayerNorm(3, eps=0.0), r"LayerNorm has eps=0\.0.*positive"),
    "norm shape": (lambda: ub.LayerNorm(()), r"normalized_shape=\(\)"),
    "dropout": (lambda: ub.Dropout(1.0), r"Dropout has p=1\.0.*0 <= p < 1"),
    "heads": (lambda: ub.SelfAttention(6, 4), r"num_heads=4 for embed_dim=6.*divides"),
    "flag": (lambda: ub.Dense(2, 2, bias=1), r"Dense has bias=1.*True or False"),
    "residual": (lambda: ub.Residual([]), r"Residual without layers"),
    "not a layer": (lambda: ub.Residual([ub.Dense(2, 2), "relu"]), r"Residual has a str among its layers"),
    "late embedding": (lambda: ub.Model([ub.Flatten(), ub.Embedding(3, 2)]), r"layer 1 is an Embedding.*layer 0"),
    "embedding inside": (
        lambda: ub.Model([ub.Residual([ub.Embedding(3, 2)], [ub.Embedding(3, 2)])]),
        r"Residual has an Embedding among its layers.*before the block",
    ),
    "embedding beside": (lambda: ub.Residual([ub.Dense(2, 2)], ub.Embedding(2, 2)), r"Embedding among its shortcut"),
    "not layers": (lambda: ub.Residual(5), r"5 in the place of layers.*a list of layers"),
    "pool kernel": (lambda: ub.MaxPool((2, 2, 2)), r"MaxPool has kernel_size=\(2, 2, 2\).*or 2 of them"),
    "index": (lambda: ub.Take(0.5), r"Take has index=0\.5"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    make, words = SETTINGS[name]
    with pytest.raises(errors.LayerError, match=words):
        make()


CHAINS = {
    "channels": (
        [ub.Conv2d(1, 4, 3), ub.MaxPool(2), ub.Conv2d(6, 2, 3)],
        r"layer 2 \(conv2d\).*layer 0.*4 chan.*6 chan",
    ),
    "norm": ([ub.Conv1d(1, 4, 3), ub.GroupNorm(2, 6)], r"layer 1 \(groupnorm\).*4 channels.*6 channels"),
    "features": ([ub.Dense(3, 4), ub.Activation("relu"), ub.LayerNorm(5)], r"layer 2 \(layernorm\).*4 feat.*5 feat"),
    "inside": ([ub.Dense(3, 4), ub.SelfAttention(6, 2)], r"layer 1 \(selfattention\).*4 features.*6 features"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_layers_that_can_never_fit_are_refused_at_once(name: str) -> None:
    layers, words = CHAINS[name]
    with pytest.raises(errors.ShapeError, match=words):
        ub.Model(layers)


def test_layers_inside_a_residual_block_have_to_fit_too() -> None:
    with pytest.raises(errors.ShapeError, match=r"layer 1 \(dense\).*4 features.*5 features"):
        ub.Residual([ub.Dense(3, 4), ub.Dense(5, 3)])


SAMPLES = {
    "kernel larger": ([ub.Conv2d(1, 1, 5)], (1, 4, 6), r"layer 0.*kernel of \(5, 5\).*\(1, 4, 6\).*padded sample"),
    "dilated": ([ub.Conv1d(1, 1, 3, dilation=4)], (1, 8), r"kernel of \(3,\) with dilation \(4,\)"),
    "channels": ([ub.Conv2d(3, 1, 3)], (8, 8, 3), r"Conv2d\(3, 1, \(3, 3\)\) got a sample of shape \(8, 8, 3\).*first"),
    "axes": ([ub.Conv2d(3, 1, 3)], (3, 8), r"got a sample of shape \(3, 8\).*\(3, height, width\)"),
    "flatten": ([ub.Conv2d(1, 2, 3), ub.Flatten(), ub.Dense(9, 1)], (1, 5, 5), r"layer 2.*\(18,\).*last axis of 9"),
    "narrow": ([ub.Dense(784, 2)], (100,), r"of 784.*give samples of 784 numbers, or make it Dense\(100, 2\)\.$"),
    "images": ([ub.Dense(784, 2)], (1, 28, 28), r"put Flatten\(\) before it\.$"),
    "other images": ([ub.Dense(784, 2)], (3, 8, 8), r"put Flatten\(\) before it, and make it Dense\(192, 2\)\.$"),
    "one channel": ([ub.Conv2d(1, 1, 3)], (8, 8), r"an axis of its own, as \(1, 8, 8\)\.$"),
    "flat images": ([ub.Conv2d(3, 1, 3)], (48,), r"reshape the flat samples, as \(3, 4, 4\) if they are square\.$"),
    "flat": ([ub.Conv2d(1, 1, 3)], (15,), r"reshape the flat samples\.$"),
    "more channels": ([ub.Conv2d(1, 1, 3)], (3, 8, 8), r"of as many channels, or make in_channels 3\.$"),
    "pool": ([ub.MaxPool(3)], (1, 2, 4), r"windows of \(3, 3\) for a sample of shape \(1, 2, 4\)"),
    "pool axes": ([ub.MaxPool(2)], (1, 8), r"MaxPool over 2 axes.*\(1, 8\).*dims=1"),
    "global": ([ub.GlobalMeanPool()], (4,), r"GlobalMeanPool got a sample of shape \(4,\)"),
    "layernorm": ([ub.LayerNorm((2, 3))], (3, 2), r"LayerNorm\(\(2, 3\)\) got.*\(3, 2\)"),
    "batchnorm": ([ub.BatchNorm(3)], (2, 3), r"BatchNorm of 3 channels got.*\(2, 3\)"),
    "residual": ([ub.Residual([ub.Conv1d(2, 3, 1)])], (2, 4), r"adds its layers' \(3, 4\) to its shortcut's \(2, 4\)"),
    "in a block": ([ub.Residual([ub.Dropout(), ub.Dense(3, 3)])], (4,), r"inside the residual block, layer 1.*\(4,\)"),
    "attention": ([ub.SelfAttention(4, 2)], (4,), r"SelfAttention\(4, 2\) got.*\(4,\).*\(tokens, 4\)"),
    "long": ([ub.LearnedPositions(3, 2)], (4, 2), r"length 3 got a sequence of 4 tokens.*at most 3"),
    "take": ([ub.Take(-4)], (3, 2), r"Take\(-4\) got.*\(3, 2\)"),
    "scalar": ([ub.LogSoftmax(), ub.Take()], (3,), r"layer 1.*Take\(-1\) got a sample of shape \(3,\)"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_that_do_not_fit(name: str) -> None:
    layers, shape, words = SAMPLES[name]
    model = ub.Model(layers, dtype="float64")
    with pytest.raises(errors.ShapeError, match=words):
        ub.outputs(model, np.zeros((2, *shape)), backend="reference")


def test_tokens() -> None:
    model = ub.Model([ub.Embedding(5, 3), ub.Flatten()])
    with pytest.raises(errors.DTypeError, match=r"float64.*Embedding.*integers.*astype\(int\)"):
        ub.outputs(model, np.zeros((2, 4)))
    with pytest.raises(errors.InputError, match=r"x is 5 at \(1, 0\).*tokens from 0 to 4"):
        ub.outputs(model, np.array([[0], [5]]))
    with pytest.raises(errors.InputError, match=r"x is -1 at \(0, 0\)"):
        ub.outputs(model, np.array([[-1]]))
    with pytest.raises(errors.InputError, match=r"tokens, or several inputs, which have no derivatives"):
        ub.input_jacobian(model, np.array([[1]]))


def test_arrays_of_another_layout_dtype_or_sign() -> None:
    layers = [ub.Conv2d(2, 3, (4, 5)), ub.BatchNorm(3)]
    good = ub.Model(layers).arrays
    cases = {
        r"0\.weight has shape \(5, 4, 2, 3\) \(its axes.*\(out, in/groups, \*kernel\)": {
            "0.weight": good["0.weight"].transpose()
        },
        r"0\.bias has dtype int64": {"0.bias": np.zeros(3, np.int64)},
        r"several dtypes: float32, float64": {"1.running_mean": np.zeros(3)},
        r"1\.running_var has a negative entry": {"1.running_var": np.array([1, -1, 1], np.float32)},
        r"1\.running_var has shape \(2,\)": {"1.running_var": np.ones(2, np.float32)},
        r"unknown: '1\.num_batches_tracked'": {"1.num_batches_tracked": np.zeros(1, np.float32)},
    }
    for words, change in cases.items():
        with pytest.raises(errors.ParameterError, match=words):
            ub.Model(layers, {**good, **change})
