"""What networks do to images: each function between two affine maps crosses, with outputs, kernel and slopes equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from tests.helpers import assert_within_budget
from torch import Tensor, nn

import udlbridge as ub
from udlbridge.errors import ConversionError


class Between(nn.Module):
    """A convolution, the function, and whatever comes out as outputs."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(2, 3, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x)).flatten(1)


def _turned(h: Tensor, corners: bool, size: float = 1.0, **settings: Any) -> Tensor:
    """Sampled where a map says that depends on the image, as spatial transformers do."""
    means = torch.tanh(h.mean((2, 3)))[:, :2, None]
    theta = torch.eye(2, 3).to(h) * size + 0.3 * means * torch.tensor([1.0, -1.0, 0.5]).to(h)
    grid = F.affine_grid(theta, [len(h), 3, 4, 5], align_corners=corners)
    return F.grid_sample(h, grid, align_corners=corners, **settings)


def _straight(h: Tensor, corners: bool, **settings: Any) -> Tensor:
    """Sampled at its own entries: the slope there is that to the next one."""
    theta = torch.eye(2, 3).to(h).expand(len(h), 2, 3) + 0 * h.mean((1, 2, 3))[:, None, None]
    return F.grid_sample(h, F.affine_grid(theta, h.shape, align_corners=corners), align_corners=corners, **settings)


WINDOWS: dict[str, Any] = {"padding": 1, "dilation": (2, 1), "stride": (1, 2)}


def _windows(h: Tensor) -> Tensor:
    return F.unfold(h, (2, 3), **WINDOWS)


def _coordinates(height: int, width: int) -> Tensor:
    """In single precision, as they are made by default: rounding is that of torch's own linspace."""
    return torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(0, 3, width), indexing="ij"))


def _regions(h: Tensor) -> Tensor:
    """A mask of windows, written part by part, some of them empty, as shifted windows have it."""
    mask = h.new_zeros((6, 5))
    for number, (start, stop) in enumerate([(0, -2), (-2, 0), (-2, None)]):
        mask[start:stop, 1:] = number
    return mask - mask.T[:1, :1]


def _unpooled(h: Tensor, *kernel: Any, change: Callable[[Tensor], Tensor] = torch.sin, **settings: Any) -> Tensor:
    pooled, places = F.max_pool2d(h, *kernel, return_indices=True)
    return F.max_unpool2d(change(pooled), places, *kernel, **settings)


def _dynamic(h: Tensor, groups: int, inside: int, **settings: Any) -> Tensor:
    """A convolution whose weights are computed for each sample, with the samples among the channels."""
    weights = (
        torch.arange(3 * inside * 6).to(h).sin().view(1, 3, inside, 2, 3) * h.mean((1, 2, 3))[:, None, None, None, None]
    )
    y = F.conv2d(h.reshape(1, -1, *h.shape[2:]), weights.flatten(0, 1), groups=groups * len(h), **settings)
    return y.view(len(h), 3, *y.shape[2:])


def _standardised(h: Tensor, scale: Tensor | None = None) -> Tensor:
    weight = torch.arange(54).to(h).sin().view(1, 2, 27)
    return F.conv2d(h, F.batch_norm(weight, None, None, weight=scale, training=True).view(2, 3, 3, 3))


IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "sampled": lambda h: _turned(h, corners=False),
    "sampled to the border": lambda h: _turned(h, corners=True, size=1.5, padding_mode="border"),
    "sampled with zeros beyond": lambda h: _turned(h, corners=True, size=1.5),
    "nearest entries": lambda h: _turned(h, corners=False, mode="nearest"),
    "at the entries": lambda h: _straight(h, corners=False),
    "at the entries, to the border": lambda h: _straight(h, corners=True, padding_mode="border"),
    "at constant places": lambda h: F.grid_sample(
        h,
        F.affine_grid(0.8 * torch.eye(2, 3).to(h)[None], [1, 3, 4, 5], align_corners=False).expand(len(h), -1, -1, -1),
        align_corners=False,
    ),
    "volumes sampled": lambda h: F.grid_sample(
        h.view(-1, 3, 2, 3, 5), torch.tanh(h.view(-1, 3, 2, 3, 5)).permute(0, 2, 3, 4, 1), align_corners=False
    ),
    "unpooled": lambda h: _unpooled(h[..., :4], 2),
    "unpooled from ties": lambda h: _unpooled(F.relu(h[..., :4] - 0.3), (3, 2), change=lambda y: y + 1),
    "unpooled to an odd size": lambda h: _unpooled(h[:, :, :5], 2, output_size=(5, 5)),
    "maxima of uneven windows": lambda h: F.adaptive_max_pool2d(h, (4, 3)),
    "maxima of uneven windows, ties": lambda h: F.adaptive_max_pool2d(F.relu(h - 0.3), (4, 3)),
    "a divisor": lambda h: F.avg_pool2d(h, 3, 2, 1, divisor_override=5),
    "nearest, exactly": lambda h: F.interpolate(h, scale_factor=0.7, mode="nearest-exact"),
    "antialiased": lambda h: F.interpolate(h, size=(3, 7), mode="bicubic", antialias=True),
    "antialiased by a factor": lambda h: F.interpolate(h, scale_factor=0.55, mode="bilinear", antialias=True),
    "folded": lambda h: F.fold(_windows(h).sin(), (6, 5), (2, 3), **WINDOWS),
    "folded windows": lambda h: F.fold(F.unfold(h, 2, stride=2).sin(), (6, 5), 2, stride=2),
    "own weights": lambda h: _dynamic(h, 1, 3, padding=1),
    "own weights by channel": lambda h: _dynamic(h, 3, 1, stride=(1, 2), dilation=(2, 1)),
    "standardised weights": lambda h: _standardised(h),
    "standardised weights with a scale": lambda h: _standardised(h, torch.tensor([1.5, -2.0]).to(h)),
    "a mask that is written": lambda h: h + _regions(h),
    "parts without entries": lambda h: torch.cat([h[:, :0], h[:, 0:].sin(), h[:, 5:]], 1),
    "places of its own": lambda h: torch.cat([h, _coordinates(6, 5).to(h).expand(len(h), 2, 6, 5)], 1),
}  # fmt: skip


def _seen_again(h: Tensor) -> Tensor:
    """What was written to is read again, itself and through a view."""
    other = h * 2
    view = other.flatten(1)
    other.add_(1.0).relu_()
    return torch.cat([view, other.flatten(1), h.flatten(1)], 1)


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "activations": lambda h: F.leaky_relu_(h + 1) + F.hardtanh_(h - 0.5, -0.4, 0.9) + F.silu(h * 2, inplace=True),
    "sums": lambda h: (h * 2).add_(h.sin()).mul_(h).relu_(),
    "seen again": _seen_again,
    "another dtype": lambda h: (h * 2).add_((h > 0).float()).add_(h),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_writes_to_its_input_is_what_torch_makes_of_it(name: str) -> None:
    module, x = Between(WRITTEN[name]).double(), _samples()
    graph = ub.from_torch(module, x)
    assert_within_budget(ub.outputs(graph, x, backend="reference"), module(torch.from_numpy(x)).detach().numpy())
    assert_within_budget(ub.ntk(graph, x, backend="reference", outputs=0), ub.ntk(module, x, outputs=0))


def test_an_export_is_not_written_anew_for_activations_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    written, anew = [], torch.export.ExportedProgram.run_decompositions

    def counted(program: Any, *args: Any, **words: Any) -> Any:
        written.append(program)
        return anew(program, *args, **words)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
    graph = ub.from_torch(body.double().eval(), _samples())
    assert [node.op for node in graph.nodes] == ["conv", "batch_norm", "relu"]
    assert not written


def _samples() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 2, 6, 5))


@pytest.mark.sampled
@pytest.mark.parametrize("name", IMAGES)
def test_functions_of_images_cross(name: str) -> None:
    module, x = Between(IMAGES[name]).double(), _samples()
    graph = ub.from_torch(module, x[:2])
    for backend in ("torch", "reference"):
        assert_within_budget(ub.outputs(graph, x, backend=backend), module(torch.from_numpy(x)).detach().numpy())
        assert_within_budget(ub.ntk(graph, x, backend=backend), ub.ntk(module, x, backend="torch"))
        assert_within_budget(ub.input_jacobian(graph, x[:1], backend=backend), ub.input_jacobian(module, x[:1]))


@pytest.mark.julia
@pytest.mark.sampled
@pytest.mark.parametrize("name", IMAGES)
def test_functions_of_images_cross_to_julia(name: str) -> None:
    module, x = Between(IMAGES[name]).double(), _samples()
    graph = ub.from_torch(module, x[:2])
    assert_within_budget(ub.outputs(graph, x, backend="julia"), ub.outputs(graph, x, backend="reference"))
    assert_within_budget(ub.ntk(graph, x, backend="julia"), ub.ntk(graph, x, backend="torch"))


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sampled by cubes": (lambda h: _turned(h, corners=False, mode="bicubic"), "grid_sampler.* by cubes"),
    "reflected": (lambda h: _turned(h, corners=False, padding_mode="reflection"), "grid_sampler.* reflects"),
    "unpooled from overlaps": (lambda h: _unpooled(h, 3, 2), "max_unpool2d.* overlap"),
    "unpooled elsewhere": (
        lambda h: F.max_unpool2d(F.max_pool2d(h, 2), torch.zeros(len(h), 3, 3, 2, dtype=torch.int64), 2),
        "max_unpool2d.* not those of a pool",
    ),
    "counted places": (
        lambda h: h[:, :, ::2, :4:2] * (F.max_pool2d(h, 2, return_indices=True)[1] + 1.0),
        "places of a pool",
    ),
    "no entries": (lambda h: h + h[:, :0].sum(1, keepdim=True), "sum.* without entries"),
    "single precision": (lambda h: F.interpolate(h.float(), scale_factor=2).double(), r"float32.*module\.float\(\)"),
    "statistics of the batch": (lambda h: F.batch_norm(h, None, None, training=True), "other samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_cross_says_why(name: str) -> None:
    function, words = REFUSED[name]
    with pytest.raises(ConversionError, match=words):
        ub.from_torch(Between(function).double(), _samples())
