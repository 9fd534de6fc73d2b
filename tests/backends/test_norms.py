"""Scales and shifts of norms: one site of both, whose gradients come from one look at errors and inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge.backends.pytorch.norms import channel_gradients
from udlbridge.backends.reduction import REDUCTIONS
from udlbridge.backends.sites import Elementwise, sites

CHANNELS = 6


class Frames(nn.Module):
    """Several frames of each sample pass a norm as images of their own, samples first or frames first."""

    def __init__(self, norm: nn.Module, samples_first: bool) -> None:
        super().__init__()
        self.norm, self.read, self.samples_first = norm, nn.Linear(CHANNELS, 2), samples_first

    def forward(self, x: Tensor) -> Tensor:
        frames = x if self.samples_first else x.transpose(0, 1)
        h = torch.tanh(self.norm(frames.flatten(0, 1))).mean((2, 3)).unflatten(0, frames.shape[:2])
        return self.read(h).sum(1 if self.samples_first else 0)


class Last(nn.Module):
    """The samples are places of one image, all of which a norm takes alike."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.read = nn.BatchNorm1d(CHANNELS), nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.tanh(self.norm(x.T[None])[0].T))


def norms() -> dict[str, nn.Module]:
    """One of each kind, with numbers of its own."""
    torch.manual_seed(0)
    batch = nn.BatchNorm2d(CHANNELS)
    batch.running_mean.normal_()
    batch.running_var.uniform_(0.5, 2.0)
    found = {"group": nn.GroupNorm(2, CHANNELS), "batch": batch, "layer": nn.LayerNorm((4, 5))}
    for norm in found.values():
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return found


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("space", [(), (7,), (3, 4)])
@pytest.mark.parametrize("devices", [{"cpu"}, set()])
def test_sums_over_space(
    devices: set[str], groups: int, space: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udlbridge.backends.pytorch.norms.DEVICES", devices)
    generator = torch.Generator().manual_seed(0)
    x, d = (torch.randn(5, CHANNELS, *space, generator=generator, dtype=torch.float64) for _ in range(2))
    mean, scale = (torch.rand(5, groups, generator=generator, dtype=torch.float64) for _ in range(2))
    by_scale, by_shift = channel_gradients(d, x, mean, scale)
    each = [one.repeat_interleave(CHANNELS // groups, 1)[..., None] for one in (mean, scale)]
    x, d = x.reshape(5, CHANNELS, -1), d.reshape(5, CHANNELS, -1)
    np.testing.assert_allclose(by_scale, (d * (x - each[0]) * each[1]).sum(2), rtol=0, atol=1e-13)
    np.testing.assert_allclose(by_shift, d.sum(2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("samples_first", [True, False])
@pytest.mark.parametrize("kind", ["group", "batch", "layer"])
def test_norms_of_frames(kind: str, samples_first: bool) -> None:
    module = Frames(norms()[kind], samples_first).double().eval()
    x = np.random.default_rng(0).standard_normal((4, 3, CHANNELS, 4, 5))
    for params in (None, "norm.*", "norm.weight", "norm.bias"):
        for outputs in ("trace", "full"):
            plain = ub.ntk(module, x, outputs=outputs, params=params, method="plain")
            assert_within_budget(ub.ntk(module, x, outputs=outputs, params=params), plain)


def test_samples_along_space() -> None:
    torch.manual_seed(0)
    module, x = Last().double().eval(), np.random.default_rng(0).standard_normal((5, CHANNELS))
    assert_within_budget(ub.ntk(module, x), ub.ntk(module, x, method="plain"))


@pytest.mark.parametrize("kind", ["group", "batch", "layer"])
def test_scale_and_shift_are_one_site(kind: str) -> None:
    norm = norms()[kind]
    network = ub.as_network(nn.Sequential(norm, nn.Flatten(), nn.Linear(CHANNELS * 20, 2)).eval())
    network.checked_batch(torch.randn(3, CHANNELS, 4, 5), "x")
    found = sites(network, (CHANNELS, 4, 5))
    assert [one.size for one in found if isinstance(one, Elementwise)] == [2 * norm.weight.numel()]
    (alone,) = sites(network, (CHANNELS, 4, 5), ["0.bias"])
    assert alone == Elementwise(norm.weight.numel())


@pytest.mark.parametrize("norm", [lambda: ub.GroupNorm(2, 6), lambda: ub.BatchNorm(6), lambda: ub.GroupNorm(6, 6)])
@pytest.mark.parametrize("space", [(1, 1), (4, 5)])
def test_norms_of_chains(norm, space: tuple[int, ...]) -> None:
    model = ub.Model([norm(), ub.Conv2d(6, 3, 1, "tanh"), ub.GlobalMeanPool(), ub.Flatten()], dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 6, *space))
    for outputs in REDUCTIONS:
        found, expected = (ub.ntk(model, x, outputs=outputs, backend=engine) for engine in ("torch", "reference"))
        assert_within_budget(found, expected)


def test_sums_over_space_of_what_stands_in_memory_once() -> None:
    generator = torch.Generator().manual_seed(0)
    x, d = (torch.randn(1, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mean, scale = (torch.rand(1, generator=generator, dtype=torch.float64).expand(3, 1) for _ in range(2))
    for own, errors in ((x, d), (x.transpose(1, 2), d.transpose(1, 2)), (x, d[:, :1, :1])):
        own, errors = own[:, None].expand(3, 1, -1, -1), errors[:, None].expand(3, 1, *own.shape[1:])
        by_scale, by_shift = channel_gradients(errors, own, mean, scale)
        wanted = (errors * (own - mean[..., None, None]) * scale[..., None, None]).sum((2, 3))
        np.testing.assert_allclose(by_scale, wanted, rtol=0, atol=1e-13)
        np.testing.assert_allclose(by_shift, errors.sum((2, 3)), rtol=0, atol=1e-13)


BATCH, GROUP = nn.BatchNorm2d(1), nn.GroupNorm(1, 1)


@pytest.mark.parametrize(
    ("norm", "total"),
    [
        (BATCH, lambda h: torch.sigmoid(h).flatten(1)),
        (BATCH, lambda h: h.sum((2, 3))),
        (BATCH, lambda h: h[..., 1]),
        (GROUP, lambda h: torch.sigmoid(h).flatten(1)),
        (GROUP, lambda h: h[..., 1]),
    ],
)
def test_norms_of_one_channel(norm: nn.Module, total: Callable[[Tensor], Tensor]) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.norm = nn.Conv2d(CHANNELS, 1, 1), norm

        def forward(self, x: Tensor) -> Tensor:
            return total(self.norm(self.narrow(x)))

    torch.manual_seed(0)
    module, x = One().double().eval(), np.random.default_rng(0).standard_normal((5, CHANNELS, 4, 3))
    for params in ("norm.weight", "norm.*"):
        plain = ub.ntk(module, x, outputs="full", params=params, method="plain")
        assert_within_budget(ub.ntk(module, x, outputs="full", params=params), plain)


@pytest.mark.parametrize("norm", [ub.BatchNorm(1), ub.GroupNorm(1, 1)])
def test_norms_of_one_channel_in_chains(norm: ub.Layer) -> None:
    model = ub.Model([ub.Conv2d(2, 1, 1), norm, ub.GlobalMeanPool(), ub.Flatten()], dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 3))
    assert_within_budget(ub.ntk(model, x), ub.ntk(model, x, method="plain"))


class Tokens(nn.Module):
    """Places of a normed image as tokens for a frozen layer, which gives errors back with the channels last."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.read = nn.Conv2d(3, CHANNELS, 1, bias=False), norm, nn.Linear(CHANNELS, 2)
        self.read.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.read(self.norm(self.conv(x)).flatten(2).transpose(1, 2))).sum(1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("n", [1, 2])
def test_errors_with_channels_last_go_back_through_norms_as_they_are(norm: type[nn.Module], n: int) -> None:
    torch.manual_seed(0)
    module = Tokens(norm(CHANNELS)).double().eval()
    for value in module.norm.buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 2.0)
    x, y = np.random.default_rng(0).standard_normal((n, 3, 4, 2)), np.ones((n, 2))
    graph = ub.from_torch(module, x)
    _, gradient = ub.loss_gradient(graph, x, y, loss="mse", backend="reference")
    kernel = ub.ntk(graph, x, outputs=0, backend="reference")
    for network in (module, graph):
        jacobian = ub.input_jacobian(network, x, backend="torch")
        assert_within_budget(jacobian, ub.input_jacobian(graph, x, backend="reference"))
        _, found = ub.loss_gradient(network, x, y, loss="mse", backend="torch")
        for name, value in gradient.items():
            assert_within_budget(found[name], value)
        assert_within_budget(ub.ntk_operator(network, x, outputs=0, backend="torch") @ np.eye(n), kernel)
        assert_within_budget(ub.ntk(network, x, outputs=0, backend="torch"), kernel)
