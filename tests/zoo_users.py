"""More ordinary networks in small, in the style of those who publish them: gates, cells, codes, graphs and masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn


class Siamese(nn.Module):
    """Two images in one sample, one branch for both, and distances between what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16, 5),
        )  # fmt: skip
        self.out = nn.Linear(5, 1)

    def forward(self, pair: Tensor) -> Tensor:
        u, v = (F.normalize(self.branch(pair[:, side]), dim=1) for side in range(2))
        distance = F.pairwise_distance(u, v, keepdim=True)
        cosine = F.cosine_similarity(u, self.branch(pair[:, 1])).unsqueeze(1)
        return torch.cat([self.out((u - v).abs()), distance, cosine], 1)


class Gate(nn.Module):
    """Attention U-Net's: a signal from below says where to look."""

    def __init__(self, signal: int, width: int, inner: int) -> None:
        super().__init__()
        self.w_g = nn.Sequential(nn.Conv2d(signal, inner, 1), nn.BatchNorm2d(inner))
        self.w_x = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * self.psi(self.relu(self.w_g(g) + self.w_x(x)))


class Excited(nn.Module):
    """Squeeze and excitation by linear maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(width, width // 2, bias=False), nn.ReLU(inplace=True), nn.Linear(width // 2, width, bias=False),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(self.avg_pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


class AttentionUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = self._block(1, 4), self._block(4, 6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.gate = Gate(4, 4, 2)
        self.join, self.final = self._block(8, 4), nn.Conv2d(4, 1, 1)

    @staticmethod
    def _block(inside: int, width: int) -> nn.Module:
        conv = nn.Conv2d(inside, width, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2, inplace=True), Excited(width))

    def forward(self, x: Tensor) -> Tensor:
        d = self.down(x)
        u = self.up(self.middle(F.max_pool2d(d, 2)))
        return torch.sigmoid(self.final(self.join(torch.cat((self.gate(u, d), u), dim=1))))


class ConvLSTM(nn.Module):
    """A convolutional cell along the frames, from a state of zeros."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(1 + width, 4 * width, 3, padding=1)
        self.head = nn.Linear(width, 2)

    def forward(self, frames: Tensor) -> Tensor:
        b, steps, _, height, width = frames.shape
        h = torch.zeros(b, self.width, height, width, device=frames.device, dtype=frames.dtype)
        c = torch.zeros_like(h)
        for t in range(steps):
            i, f, o, g = torch.split(self.conv(torch.cat([frames[:, t], h], dim=1)), self.width, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h.mean(dim=[-1, -2]))


class Chomp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TCN(nn.Module):
    """Dilated causal convolutions whose weights are a length times a direction."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.network = nn.ModuleList(
            nn.Sequential(
                norm(nn.Conv1d(inside, 4, 3, padding=2 * d, dilation=d)), Chomp(2 * d), nn.ReLU(), nn.Dropout(0.2)
            )
            for inside, d in ((2, 1), (4, 2))
        )
        self.downsample = nn.ModuleList([nn.Conv1d(2, 4, 1), nn.Identity()])
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer, shortcut in zip(self.network, self.downsample, strict=True):
            x = F.relu(layer(x) + shortcut(x))
        return self.linear(x[:, :, -1])


class NeRF(nn.Module):
    """Sines and cosines of positions at several frequencies, the code once more in the middle, and a direction."""

    def __init__(self, frequencies: int = 3, width: int = 8) -> None:
        super().__init__()
        self.register_buffer("freqs", 2.0 ** torch.linspace(0, frequencies - 1, frequencies))
        code = 3 + 6 * frequencies
        self.pts = nn.ModuleList([nn.Linear(code, width), nn.Linear(width, width), nn.Linear(width + code, width)])
        self.sigma = nn.Linear(width, 1)
        self.rgb = nn.Sequential(nn.Linear(width + 3, width // 2), nn.ReLU(), nn.Linear(width // 2, 3))

    def encode(self, x: Tensor) -> Tensor:
        codes = [x]
        for freq in self.freqs:
            codes += [function(x * freq * math.pi) for function in (torch.sin, torch.cos)]
        return torch.cat(codes, -1)

    def forward(self, rays: Tensor) -> Tensor:
        x, d = torch.split(rays, [3, 3], dim=-1)
        h = code = self.encode(x)
        for index, layer in enumerate(self.pts):
            h = F.relu(layer(torch.cat([code, h], -1) if index == 2 else h))
        color = torch.sigmoid(self.rgb(torch.cat([h, F.normalize(d, dim=-1)], -1)))
        alpha = 1 - torch.exp(-F.softplus(self.sigma(h) - 1))
        return torch.cat([color, torch.cumprod(1 - alpha.repeat(1, 3) + 1e-10, -1)], -1)


class GraphAttention(nn.Module):
    """Dense graph attention over the neighbours in a ring."""

    def __init__(self, features: int = 3, width: int = 4, heads: int = 2, count: int = 5) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(heads, features, width))
        self.a_src, self.a_dst = nn.Parameter(torch.randn(heads, width)), nn.Parameter(torch.randn(heads, width))
        self.register_buffer("adj", torch.eye(count) + torch.eye(count).roll(1, 1))
        self.out, self.dropout = nn.Linear(heads * width, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bnf,hfo->bhno", x, self.W)
        source, target = (torch.einsum("bhno,ho->bhn", h, a) for a in (self.a_src, self.a_dst))
        e = F.leaky_relu(source.unsqueeze(-1) + target.unsqueeze(-2), 0.2)
        alpha = self.dropout(torch.softmax(e.masked_fill(self.adj == 0, float("-inf")), -1))
        h = torch.einsum("bhij,bhjo->bhio", alpha, h)
        b, heads, count, width = h.shape
        return self.out(F.elu(h.permute(0, 2, 1, 3).reshape(b, count, heads * width)).mean(1))


class Perceiver(nn.Module):
    """Learned latents look at the inputs, then at each other."""

    def __init__(self, width: int = 8, heads: int = 2, latents: int = 3) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.proj = nn.Linear(3, width)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_x, self.norm_l = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layer = nn.TransformerEncoderLayer(width, heads, 12, activation="gelu", batch_first=True, norm_first=True)
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        context = self.norm_x(self.proj(x))
        latents = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
        latents = latents + self.cross(self.norm_l(latents), context, context, need_weights=False)[0]
        return self.out(self.layer(latents).mean(1))


class Padded(nn.Module):
    """An encoder that does not look at the padding, and the mean of what is none, as masks of several dtypes say."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(7, 8, padding_idx=0)
        self.pos = nn.Parameter(torch.randn(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        h = self.encoder(self.emb(tokens) * math.sqrt(8) + self.pos, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).float()
        mean = (h * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.fc(mean) / (1 + (tokens != 0).sum(1, keepdim=True))


class Pooled(nn.Module):
    """Generalised means of a learned power, heads that share keys, and distances from learned centres."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, stride=2, padding=1)
        self.p = nn.Parameter(torch.tensor(3.0))
        self.q, self.kv = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.centres = nn.Parameter(torch.randn(3, 8))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).clamp(min=1e-6)
        pooled = x.pow(self.p).mean((2, 3)).pow(1.0 / self.p)
        h = x.flatten(2).transpose(1, 2)
        q = self.q(h).unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = self.kv(h).unflatten(-1, (2, 2, 2)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2).mean(1)
        return self.head(torch.exp(-torch.cdist(pooled + h, self.centres)))


class Positioned(nn.Module):
    """RoBERTa's positions, which skip the padding, hashed words, and what stands at the last word of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hashed = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(3, 4)
        self.positions = nn.Parameter(torch.randn(6, 4))
        self.gru = nn.GRU(4, 3, batch_first=True)
        self.register_buffer("kinds", torch.arange(6) % 2)
        self.kind = nn.Embedding(2, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        words = tokens.ne(0).int()
        places = (torch.cumsum(words, dim=1).type_as(words) * words).long()
        kinds = torch.gather(self.kinds.expand(len(tokens), -1), 1, places)
        h = self.words(tokens) + self.positions[places] + self.kind(kinds) + self.hashed((tokens * 31 + 7) % 3)
        h, _ = self.gru(h)
        last = (words.sum(1) - 1).clamp(min=0)
        return h[torch.arange(len(tokens)), last] + h.gather(1, last.view(-1, 1, 1).expand(-1, 1, 3)).squeeze(1)


class Experts(nn.Module):
    """Two of four experts for each place, as the gate says, and codes from a book that is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(3, 4) for _ in range(4))
        self.gate, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.book = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gate(x)
        most, places = logits.topk(2, dim=-1)
        gate = torch.full_like(logits, float("-inf")).scatter(-1, places, most).softmax(-1)
        h = torch.einsum("bte,bteo->bto", gate, torch.stack([expert(x) for expert in self.experts], 2))
        code = self.book(torch.cdist(h, self.book.weight.expand(len(x), -1, -1)).argmin(-1))
        largest = h.sort(1).values[:, -1]  # of codes there may be two of the same
        return self.head(largest + (h + (code - h).detach() + 0.1 * code).mean(1))


class Messages(nn.Module):
    """Messages along edges, added up, averaged, and their largest, at the nodes that they go to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))
        self.message, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        m = torch.tanh(self.message(torch.cat([x[:, source], x[:, target]], -1)))
        added = torch.zeros(len(x), 5, 4, dtype=x.dtype).index_add(1, target, m)
        at = target.view(1, -1, 1).expand(len(x), -1, 4)
        most = x.new_zeros(len(x), 5, 4).scatter_reduce(1, at, m, "amax", include_self=False)
        mean = x.new_zeros(len(x), 5, 4).scatter_reduce(1, at, m, "mean", include_self=False)
        added[:, ::2] *= 0.5
        added[added < -1] = -1
        return self.head(added + most * mean).mean(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Siamese": (Siamese, (2, 1, 4, 4)),
    "attention U-Net": (AttentionUNet, (1, 4, 4)),
    "ConvLSTM": (ConvLSTM, (3, 1, 4, 4)),
    "TCN": (TCN, (2, 6)),
    "NeRF": (NeRF, (6,)),
    "graph attention": (GraphAttention, (5, 3)),
    "Perceiver": (Perceiver, (4, 3)),
    "padded encoder": (Padded, (5,)),
    "generalised means": (Pooled, (2, 8, 8)),
    "positions": (Positioned, (5,)),
    "experts": (Experts, (4, 3)),
    "messages": (Messages, (5, 3)),
}
"""How to make each, and the shape of a sample; one of (5,) takes tokens."""
