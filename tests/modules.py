"""Networks with a forward of their own, as people write them; used by several tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn


class Functional(nn.Module):
    """Functions called with parameters, without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.5 * torch.randn(4, 3))
        self.v = nn.Parameter(0.5 * torch.randn(4, 5))
        self.kernel = nn.Parameter(0.5 * torch.randn(2, 1, 2))
        self.scale = nn.Parameter(torch.rand(5))
        self.shift = nn.Parameter(torch.rand(5))
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(F.linear(x, self.w)) @ self.v
        h = torch.tanh(F.conv1d(h[:, None], self.kernel)).flatten(1)[:, :5]
        return (h * self.scale + self.shift - self.shift**2) / self.temperature


class Reused(nn.Module):
    """A layer three times, by both of its names, and its weight once more as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.read = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.read(torch.tanh(self.again(torch.sin(self.first(h)))) + h)


class Mixed(nn.Module):
    """One parameter in places of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.5 * torch.randn(3, 3))
        self.read = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.tanh(x @ self.w) + torch.sin(F.linear(x, self.w)) * self.w[0] + self.w.mean())


class Tied(nn.Module):
    """A small language model: its readout is its table, positions are a table too."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.positions = nn.Embedding(9, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        return self.head(self.block(h))[:, -1, :3]


class TiedLast(nn.Module):
    """A table that is looked up twice, and read at the last place, once or twice."""

    def __init__(self, rows: int, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.tokens = nn.Embedding(rows, 6)
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(self.tokens(x) + self.tokens((x + 1) % 7)))
        last = h[:, -1] + torch.sin(F.linear(h[:, -1], self.tokens.weight)[:, :6]) if self.twice else h[:, -1]
        return F.linear(last, self.tokens.weight)[:, 3:6]


class Vision(nn.Module):
    """A vision transformer: patches, a class token, learned positions."""

    def __init__(self, width: int = 8, blocks: int = 2, patch: int = 2, side: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (side // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, activation="gelu", batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.cls.expand(len(x), -1, -1), h], dim=1) + self.positions
        return self.head(self.norm(self.blocks(h))[:, 0])


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.n = nn.BatchNorm2d(outside)
        self.b = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.m = nn.BatchNorm2d(outside)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.n(self.a(x)), inplace=True)
        return F.relu(self.m(self.b(h)) + self.short(x))


class ResNet(nn.Module):
    """A residual network in the form for CIFAR; ResNet-18 is `ResNet(64, (2, 2, 2, 2), 3, 10)`."""

    def __init__(self, width: int, blocks: tuple[int, ...], channels: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        parts: list[nn.Module] = []
        inside = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                outside = width * 2**stage
                parts.append(Residual(inside, outside, 2 if stage and not index else 1))
                inside = outside
        self.stages = nn.Sequential(*parts)
        self.head = nn.Linear(inside, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1))


class UNet(nn.Module):
    """Down and up again; one number for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 3, 3, padding=1, padding_mode="reflect")
        self.low = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=1)
        self.up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
        self.out = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.down(x))
        return self.out(torch.cat([h, torch.tanh(self.up(torch.tanh(self.low(h))))], 1))


class Bags(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(6, 4, mode=mode)
        self.read = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.tanh(self.bag(x)))


class Frames(nn.Module):
    """A convolution of every frame of a film, folded into the batch; tokens slowest behind it, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.attend = nn.MultiheadAttention(12, 2)
        self.gate = nn.Linear(12, 12)
        self.read = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        h = torch.tanh(self.conv(x.flatten(0, 1))).reshape(n, t, 12).transpose(0, 1)
        h = h + self.attend(h, h, h, need_weights=False)[0]
        return self.read((h * torch.sigmoid(self.gate(h.reshape(t * n, 12))).view(t, n, 12)).mean(0))


class Cell(nn.Module):
    """A recurrent cell by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.read = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.read(h)


class Recurrent(nn.Module):
    def __init__(self, cls: Callable[..., nn.Module], **settings: Any) -> None:
        super().__init__()
        self.inner = cls(3, 4, batch_first=True, **settings)
        self.readout = nn.Linear(4 * (1 + settings.get("bidirectional", False)), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.inner(x)[0][:, -1])


class Einsum(nn.Module):
    """What is no linear map for torch, between two that are."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 4)
        self.tensor = nn.Parameter(0.5 * torch.randn(4, 4, 4))
        self.after = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.before(x))
        return self.after(torch.einsum("ni,nj,ijk->nk", h, h, self.tensor))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w**2

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        return d * w**2, (2 * d * x * w).sum(0)


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 4)
        self.w = nn.Parameter(torch.rand(4))
        self.after = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.tanh(Square.apply(self.before(x), self.w)))


class Split(nn.Module):
    """Attention with queries from elsewhere: its packed weight is split into parts."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.queries = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries.repeat(len(x), 1, 1)
        return self.attend(q, x, x)[0].flatten(1)


class ByRows(nn.Module):
    """W x, not x W: samples along the second axis; and a matrix times a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.5 * torch.randn(4, 3))
        self.v = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.mv(torch.tanh(torch.mm(self.w, x.T)).T, self.v)


def normed(*parts: nn.Module) -> nn.Sequential:
    """In evaluation mode, with statistics that are none of the usual zeros and ones."""
    module = nn.Sequential(*parts)
    with torch.no_grad():
        for name, value in module.named_buffers():
            if "running" in name:
                value.add_(torch.rand_like(value))
    return module.eval()


def parametrised() -> nn.Module:
    norms = nn.utils.parametrizations
    return nn.Sequential(
        norms.weight_norm(nn.Conv1d(2, 3, 2)), nn.Tanh(), nn.Flatten(), norms.orthogonal(nn.Linear(12, 4)), nn.Tanh(),
        norms.spectral_norm(nn.Linear(4, 3)),
    ).eval()  # fmt: skip


IMAGE, SERIES, FLAT, TOKENS, VOLUME = (2, 6, 6), (5, 3), (3,), (5,), (1, 3, 4, 4)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "functional": (Functional, FLAT, set()),
    "reused": (Reused, FLAT, set()),
    "mixed": (Mixed, FLAT, set()),
    "tied": (lambda: Tied().eval(), TOKENS, set()),
    "tied, last token": (lambda: TiedLast(90, False), TOKENS, set()),
    "tied, read twice": (lambda: TiedLast(60, True), TOKENS, set()),
    "vision": (lambda: Vision().eval(), IMAGE, set()),
    "resnet": (lambda: normed(ResNet(8, (1, 1), 2, 3)), (2, 8, 8), set()),
    "unet": (UNet, (1, 6, 6), set()),
    "bag of sums": (lambda: Bags("sum"), TOKENS, set()),
    "bag of means": (lambda: Bags("mean"), TOKENS, set()),
    "bag of maxima": (lambda: Bags("max"), TOKENS, {"bag.weight"}),
    "frames": (lambda: Frames().eval(), (4, 1, 3, 3), set()),
    "cell": (Cell, SERIES, set()),
    "lstm": (lambda: Recurrent(nn.LSTM), SERIES, set()),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), SERIES, set()),
    "einsum": (Einsum, FLAT, {"tensor"}),
    "own function": (OwnFunction, FLAT, {"w"}),
    "split": (lambda: Split().eval(), (3, 4), set()),
    "by rows": (ByRows, FLAT, set()),
    "parametrised": (parametrised, (2, 5), set()),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), groups=2), nn.PReLU(4), nn.Flatten()
        ),
        IMAGE,
        set(),
    ),
    "circular": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular", dilation=1), nn.SiLU(), nn.Flatten()
        ),
        (2, 5),
        set(),
    ),
    "volume": (
        lambda: normed(
            nn.Conv3d(1, 2, 2, padding="same"),
            nn.BatchNorm3d(2),
            nn.Tanh(),
            nn.ConvTranspose3d(2, 1, 2, stride=2),
            nn.Flatten(),
        ),
        VOLUME,
        set(),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
            nn.Tanh(),
            nn.Flatten(),
        ),
        (2, 5),
        set(),
    ),
    "norms": (
        lambda: normed(
            nn.GroupNorm(2, 4),
            nn.Conv1d(4, 4, 1),
            nn.BatchNorm1d(4),
            nn.InstanceNorm1d(4, affine=True),
            nn.LayerNorm((4, 5)),
            nn.Tanh(),
            nn.Flatten(),
            nn.RMSNorm(20),
        ),
        (4, 5),
        set(),
    ),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(7, 3, padding_idx=0, sparse=True), nn.Flatten(), nn.Linear(15, 2)),
        TOKENS,
        set(),
    ),
    "frequencies": (
        lambda: nn.Sequential(nn.Embedding(7, 3, scale_grad_by_freq=True), nn.Flatten()),
        TOKENS,
        {"0.weight"},
    ),
    "bilinear": (lambda: nn.Sequential(nn.Linear(3, 4), Both()), FLAT, {"1.both.weight"}),
}
"""How to make it, the shape of a sample, and which parameters have no structured form."""


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, torch.tanh(x))


def build(name: str, n: int = 5) -> tuple[nn.Module, Any]:
    """The network in float64, and samples that it takes."""
    torch.manual_seed(1)
    make, shape, _ = NETWORKS[name]
    module = make().double()
    if shape == TOKENS:
        return module, torch.randint(0, 6, (n, *shape)).numpy()
    return module, torch.randn(n, *shape, dtype=torch.float64).numpy()
