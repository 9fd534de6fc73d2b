"""Convolutions that torch differentiates a whole batch at a time, and gradients that are formed when multiplied."""

from __future__ import annotations

import itertools
import subprocess
import sys
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import udlbridge as ub
from architectures import batch, shaken, wide_networks
from helpers import assert_within_budget
from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.pytorch.factors import Gradients, Pairs
from udlbridge.backends.pytorch.windows import Windows
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.backends.symmetry import symmetrise

REDUCTIONS = [0, "trace", "mean", "sum", "diagonal", (1, 0), "full"]
LATER = [ub.Conv2d(8, 9, 3, "tanh", padding=1), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(9, 3)]
"""Its weight has more entries than its input and errors on 4 x 4 places: gradients are formed when multiplied."""


@settings(max_examples=10)
@given(network=wide_networks(), choice=st.sampled_from(["trace", "full"]))
def test_wide_convolutions_reach_the_gradient_of_a_batch(network, choice: str) -> None:
    model, shape = network
    x = batch(model, shape, 3)
    seen = []
    own = Windows.gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Windows, "gradient", lambda *args: seen.append(args) or own(*args))
        kernel = ub.ntk(model, x, outputs=choice, backend="torch")
    several = [layer for layer in model.layers if isinstance(layer, ub.Conv2d) and prod(layer.kernel) > 1]
    assert bool(seen) == bool(several)
    assert_within_budget(kernel, ub.ntk(model, x, outputs=choice, backend="reference", method="plain"))


@pytest.mark.parametrize("outputs", REDUCTIONS)
@pytest.mark.parametrize("block", [1, 300, 2**24])
def test_gradients_that_are_formed_in_parts(outputs: Outputs, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.backends.pytorch.factors.BLOCK", block)
    monkeypatch.setattr("udlbridge.backends.rules.SHORTEST_STRIP", 2)
    model = shaken(LATER)
    x = batch(model, (8, 4, 4), 5)
    job = KernelJob(model, checked_reduction(outputs, 3))
    assert any(isinstance(one.factor, Gradients) for one in backends.get("torch").prepare(job, x)) or outputs == "full"
    for params in (None, "0.weight", "0.bias", "0.*"):
        expected = ub.ntk(model, x, outputs=outputs, params=params, backend="reference", method="plain")
        assert_within_budget(ub.ntk(model, x, outputs=outputs, params=params, backend="torch"), expected)
        found = ub.ntk(model, x[:3], x[3:], outputs=outputs, params=params, backend="torch")
        np.testing.assert_allclose(found, expected[:3, 3:], rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("outputs", REDUCTIONS)
@pytest.mark.parametrize("cached", [1, 100, 2**19])
def test_pairs_of_positions_in_parts(outputs: Outputs, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.backends.pytorch.factors.CACHED", cached)
    monkeypatch.setattr("udlbridge.backends.rules.SHORTEST_STRIP", 2)
    model = shaken([ub.Dense(12, 13, "tanh"), ub.Flatten(), ub.Dense(26, 3)])
    x = batch(model, (2, 12), 5)
    job = KernelJob(model, checked_reduction(outputs, 3))
    assert any(isinstance(one.factor, Pairs) for one in backends.get("torch").prepare(job, x)) or outputs == "full"
    for params in (None, "0.weight"):
        expected = ub.ntk(model, x, outputs=outputs, params=params, backend="reference", method="plain")
        assert_within_budget(ub.ntk(model, x, outputs=outputs, params=params, backend="torch"), expected)
        found = ub.ntk(model, x[:3], x[3:], outputs=outputs, params=params, backend="torch")
        np.testing.assert_allclose(found, expected[:3, 3:], rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("outputs", REDUCTIONS)
def test_strips_up_to_the_diagonal(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.backends.rules.SHORTEST_STRIP", 2)
    model = shaken([ub.Dense(3, 4, "tanh"), ub.LayerNorm(4), ub.Dense(4, 3)])
    x = batch(model, (3,), 7)
    engine = backends.get("torch")
    job = KernelJob(model, checked_reduction(outputs, 3))
    factors = engine.prepare(job, x)
    expected = ub.ntk(model, x, outputs=outputs, backend="reference", method="plain")
    for rows, lower in itertools.product((slice(0, 7), slice(2, 7)), (False, True)):
        out = np.full((rows.stop - rows.start,) * 2 + job.reduction.trailing, np.nan)
        engine.fill(job, factors, rows, factors, rows, out, lower=lower)
        assert np.isnan(out).any() == lower  # what was not asked for was not computed
        if lower:
            symmetrise(out)
        np.testing.assert_allclose(out, expected[rows, rows], rtol=0, atol=1e-12 * np.abs(expected).max())


class BasicBlock(nn.Module):
    """As in torchvision: two convolutions with BatchNorm, and a projection where the shape changes."""

    def __init__(self, before: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + identity)


class ResNet(nn.Module):
    """As in torchvision, with fewer channels and stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, stride=2), BasicBlock(6, 6))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


def described(module: ResNet) -> ub.Model:
    """The same network as layers of this package."""

    def conv(m: nn.Conv2d) -> ub.Conv2d:
        return ub.Conv2d(m.in_channels, m.out_channels, m.kernel_size, stride=m.stride, padding=m.padding, bias=False)

    arrays: dict[str, np.ndarray] = {}

    def taken(prefix: str, m: nn.Module) -> None:
        names = {"weight", "bias", "running_mean", "running_var"}
        arrays.update({f"{prefix}.{k}": v.numpy() for k, v in m.state_dict().items() if k in names})

    layers = [conv(module.conv1), ub.BatchNorm(4), ub.Activation("relu"), ub.MaxPool(3, stride=2, padding=1)]
    taken("0", module.conv1)
    taken("1", module.bn1)
    for block in (*module.layer1, *module.layer2):
        at, width = len(layers), block.conv1.out_channels
        main = [conv(block.conv1), ub.BatchNorm(width), ub.Activation("relu"), conv(block.conv2), ub.BatchNorm(width)]
        for index, m in ((0, block.conv1), (1, block.bn1), (3, block.conv2), (4, block.bn2)):
            taken(f"{at}.{index}", m)
        side = []
        if block.downsample is not None:
            side = [conv(block.downsample[0]), ub.BatchNorm(width)]
            taken(f"{at}.shortcut.0", block.downsample[0])
            taken(f"{at}.shortcut.1", block.downsample[1])
        layers += [ub.Residual(main, side), ub.Activation("relu")]
    taken(str(len(layers) + 2), module.fc)
    return ub.Model([*layers, ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(6, 3)], arrays, dtype="float64")


def test_a_resnet_of_torchvisions_kind() -> None:
    torch.manual_seed(0)
    module = ResNet().double()
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32))
    with torch.no_grad():
        module(torch.tensor(np.random.default_rng(1).standard_normal((8, 3, 32, 32))))  # statistics of their own
    with pytest.raises(ub.errors.ConversionError, match=r"bn1 .*batch"):
        ub.ntk(module, x)
    module.eval()
    for outputs in ("trace", 1):
        expected = ub.ntk(described(module), x, outputs=outputs, backend="reference", method="plain")
        assert_within_budget(ub.ntk(module, x, outputs=outputs), expected)


@pytest.mark.slow
def test_the_kernel_of_a_resnet_stays_within_its_memory() -> None:
    """The peak over the baseline in a fresh process, for a bound that needs several tiles."""
    code = (
        "import resource, udlbridge as ub\n"
        "from udlbridge.networks.inputs import random_batch\n"
        "model = ub.models.small_resnet()\n"
        "x = random_batch(model, (3, 32, 32), 150)\n"
        "ub.ntk(model, x[:2], outputs=0, backend='torch', threads=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ub.ntk(model, x, outputs=0, backend='torch', threads=1, memory='180MB')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    plan = ub.plan(ub.models.small_resnet(), 150, outputs=0, backend="torch", memory="180MB", calibrate=False)
    assert plan.tile < 150
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 180e6
