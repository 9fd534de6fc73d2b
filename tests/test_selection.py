"""Kernels of some of the parameters, and of each layer."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from helpers import assert_within_budget
from udlbridge import backends, errors
from udlbridge.selection import selected_parameters

NAMES = ["conv2d", "conv2d depthwise", "residual with shortcut", "causal attention", "groupnorm", "transformer"]
ALL = EVERY_LAYER | TOKENS


def from_jacobian(blocks: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    n = len(next(iter(blocks.values())))
    flat = [blocks[name].reshape(n, -1) for name in names]
    return sum(block @ block.T for block in flat)


@pytest.mark.parametrize("name", NAMES)
def test_any_parameter_alone(name: str, backend: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x = batch(model, shape, 3)
    blocks = ub.jacobian(model, x, backend="reference")
    for parameter in model.params:
        for method in ("structured", "plain"):
            kernel = ub.ntk(model, x, params=parameter, backend=backend, method=method)
            assert_within_budget(kernel, from_jacobian(blocks, [parameter]))


@pytest.mark.parametrize("name", NAMES)
def test_layers_sum_to_the_whole(name: str, backend: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x, x2 = batch(model, shape, 3), batch(model, shape, 2, seed=3)
    parts = ub.ntk(model, x, x2, outputs="full", per_layer=True, backend=backend)
    assert list(parts) == sorted({name.split(".")[0] for name in model.params}, key=int)
    assert_within_budget(sum(parts.values()), ub.ntk(model, x, x2, outputs="full", backend=backend))


def test_each_part_is_the_kernel_of_the_parameters_of_its_layer(backend: str) -> None:
    for name in ("transformer", "residual with shortcut"):
        layers, shape = ALL[name]
        model = shaken(layers)
        x = batch(model, shape, 3)
        blocks = ub.jacobian(model, x, backend="reference")
        for method in ("structured", "plain"):
            for layer, part in ub.ntk(model, x, per_layer=True, backend=backend, method=method).items():
                own = [parameter for parameter in model.params if parameter.startswith(f"{layer}.")]
                assert_within_budget(part, from_jacobian(blocks, own))


@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_the_parts_of_layers_share_their_passes(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, shape = ALL["transformer"]
    model = shaken(layers)
    x = batch(model, shape, 200)
    seen = []
    own = type(backends.get(engine)).prepare

    def counted(self, job, samples):
        seen.append(len(samples))
        return own(self, job, samples)

    monkeypatch.setattr(type(backends.get(engine)), "prepare", counted)
    monkeypatch.setattr("udlbridge.planning.LARGEST_TILE", 120)
    parts = ub.ntk(model, x, per_layer=True, backend=engine)
    assert sum(seen) == len(x)
    assert len(parts) == 5
    whole = ub.ntk(model, x, backend=engine)
    assert_within_budget(sum(parts.values()), whole)


def test_words_and_patterns() -> None:
    model = ub.Model([ub.Dense(2, 3), ub.Dense(3, 3), ub.Softmax(), ub.Dense(3, 1, bias=False)])
    assert selected_parameters(model, None) == tuple(model.params)
    assert selected_parameters(model, "readout") == ("3.weight",)
    assert selected_parameters(model, "hidden") == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert selected_parameters(model, ["1.*", "*.bias"]) == ("0.bias", "1.weight", "1.bias")


def test_nothing_is_refused() -> None:
    model = ub.Model([ub.Dense(2, 3)])
    x = np.zeros((1, 2), np.float32)
    for wrong in ("1.weight", ["0.weight", "*.scale"], "hidden", []):
        with pytest.raises(errors.ParameterError, match=r"0\.weight, 0\.bias"):
            ub.ntk(model, x, params=wrong)
