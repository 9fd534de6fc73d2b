"""Ordinary networks in small, with a forward of their own, as people write them: they have to cross as graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from tests import zoo_users
from tests.modules import ResNet, Tied, UNet, Vision
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with a stride, 1 x 1, and a projected shortcut; relu in place, as torchvision has it."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(inside, 2 * width, 1, stride, bias=False), nn.BatchNorm2d(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        identity = self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class BottleneckNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList([Bottleneck(4, 3, 1), Bottleneck(6, 3, 2)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class Inverted(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish())
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.squeeze = nn.Conv2d(inner, 2, 1)
        self.excite = nn.Conv2d(2, inner, 1)
        self.project = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.norm(self.depthwise(self.expand(x))))
        scale = F.adaptive_avg_pool2d(h, 1)
        # As the authors have it. In torch's hardsigmoid the slope has the digits of single precision, in float64 too.
        scale = F.relu6(self.excite(F.relu(self.squeeze(scale))) + 3) / 6
        return x + self.project(h * scale)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Hardswish(inplace=True), Inverted(4, 6)
        )
        self.classifier = nn.Sequential(nn.Linear(4, 5), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


class SqueezedInverted(nn.Module):
    """EfficientNet's block: expand, depthwise, squeeze and excite with silu and sigmoid, project, add."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide, eps=1e-3), nn.SiLU())
        depthwise = nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(wide, eps=1e-3), nn.SiLU())
        self.reduce, self.restore = nn.Conv2d(wide, 2, 1), nn.Conv2d(2, wide, 1)
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width, eps=1e-3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(self.expand(x))
        squeezed = F.silu(self.reduce(h.mean((2, 3), keepdim=True)))
        return x + self.project(torch.sigmoid(self.restore(squeezed)) * h)


class EfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, 2, 1)
        self.block = SqueezedInverted(4, 8)
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.block(self.stem(x)))


class VGG(nn.Module):
    """Blocks of convolutions and largest values, then dense layers with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class OfTransformers(nn.Module):
    """A network of the package transformers, with random weights, and the logits of what it gives.

    Its mask is given, or, with `own_mask`, made by the package: of BERT from what is no padding, which is token 0.
    """

    def __init__(self, kind: str, own_mask: bool = False) -> None:
        super().__init__()
        self.kind, self.own_mask = kind, own_mask
        import transformers

        if kind == "bert":
            config = transformers.BertConfig(
                vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
                max_position_embeddings=8, num_labels=3,
            )  # fmt: skip
            self.model = transformers.BertForSequenceClassification(config)
            mask = torch.ones(5, 5, dtype=torch.bool)
        else:
            config = transformers.GPT2Config(
                vocab_size=7, n_embd=8, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0,
                use_cache=False,
            )  # fmt: skip
            self.model = transformers.GPT2LMHeadModel(config)
            mask = torch.ones(5, 5, dtype=torch.bool).tril()
        self.register_buffer("mask", mask[None, None])

    def forward(self, tokens: Tensor) -> Tensor:
        own = (tokens != 0).long() if self.kind == "bert" else None
        logits = self.model(input_ids=tokens, attention_mask=own if self.own_mask else self.mask).logits
        return logits if logits.ndim == 2 else logits[:, -1]


class DenseNet(nn.Module):
    """Every layer takes what all before it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(2 + 2 * index) for index in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(2 + 2 * index, 2, 3, padding=1, bias=False) for index in range(3))
        self.transition = nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found.append(conv(F.relu(norm(torch.cat(found, 1)))))
        h = F.avg_pool2d(self.transition(torch.cat(found, 1)), 2)
        return self.head(h.amax(dim=(2, 3)))


class Inception(nn.Module):
    """Branches of several kernels side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 2, 1)
        self.three = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
        self.five = nn.Conv2d(2, 2, (1, 5), padding=(0, 2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(2, 2, 1))
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)
        return self.head(F.leaky_relu(h, 0.1).mean(dim=(-2, -1)))


class ConvNeXt(nn.Module):
    """Depthwise 7 x 7, LayerNorm over channels last, an inverted bottleneck, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 2, stride=2)
        self.dwconv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm = nn.LayerNorm(4, eps=1e-6)
        self.pwconv1 = nn.Linear(4, 8)
        self.pwconv2 = nn.Linear(8, 4)
        self.gamma = nn.Parameter(0.5 + torch.rand(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.dwconv(x).permute(0, 2, 3, 1)
        h = self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(h))))
        return self.head((x + h.permute(0, 3, 1, 2)).mean([-2, -1]))


class Windows(nn.Module):
    """Attention within shifted windows, with a bias of relative positions, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 4, 2, stride=2)
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12)
        self.bias = nn.Parameter(torch.randn(9, 2))
        positions = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        relative = (positions[:, :, None] - positions[:, None, :] + 1).permute(1, 2, 0)
        self.register_buffer("index", relative[..., 0] * 3 + relative[..., 1])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).permute(0, 2, 3, 1)
        b, height, width, c = h.shape
        shifted = torch.roll(self.norm(h), shifts=(-1, -1), dims=(1, 2))
        windows = shifted.view(b, height // 2, 2, width // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(windows).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        attention = (q * (c // 2) ** -0.5 @ k.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
        own = (attention @ v).transpose(1, 2).reshape(-1, 2, 2, c)
        own = own.view(b, height // 2, width // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, height, width, c)
        h = h + torch.roll(own, shifts=(1, 1), dims=(1, 2))
        return self.head(h.flatten(1, 2).mean(1))


class GPT(nn.Module):
    """A language model after nanoGPT: a mask as a buffer, a readout that is the table of tokens."""

    def __init__(self, width: int = 4, heads: int = 2, tokens: int = 7, length: int = 8) -> None:
        super().__init__()
        self.wte = nn.Embedding(tokens, width)
        self.wpe = nn.Embedding(length, width)
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 2 * width)
        self.mlp_proj = nn.Linear(2 * width, width)
        self.lm_head = nn.Linear(width, tokens, bias=False)
        self.lm_head.weight = self.wte.weight
        self.heads = heads
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, idx: Tensor) -> Tensor:
        b, t = idx.size()
        x = self.wte(idx) + self.wpe(torch.arange(0, t, dtype=torch.long, device=idx.device))
        q, k, v = self.c_attn(self.ln_1(x)).split(x.size(2), dim=2)
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        att = F.softmax(att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf")), dim=-1)
        y = (att @ v).transpose(1, 2).contiguous().view(b, t, -1)
        x = x + F.dropout(self.c_proj(y), 0.1, self.training)
        x = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))
        return self.lm_head(x[:, [-1], :]).squeeze(1)[:, :3]


class Llama(nn.Module):
    """RMSNorm, rotary positions, causal attention by torch's function, a gated MLP."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.norm = nn.Parameter(0.5 + torch.rand(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, 6, bias=False)
        self.up = nn.Linear(width, 6, bias=False)
        self.down = nn.Linear(6, width, bias=False)
        self.head = nn.Linear(width, 3, bias=False)

    def normed(self, x: Tensor) -> Tensor:
        return self.norm * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)

    def rotated(self, x: Tensor) -> Tensor:
        t, d = x.shape[-2:]
        frequencies = 1.0 / (10000.0 ** (torch.arange(0, d, 2, dtype=x.dtype) / d))
        angles = torch.outer(torch.arange(t, dtype=x.dtype), frequencies)
        cos, sin = (torch.cat([f(angles), f(angles)], dim=-1) for f in (torch.cos, torch.sin))
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, t, c = x.shape
        q, k, v = self.qkv(self.normed(x)).view(b, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True)
        x = x + h.transpose(1, 2).reshape(b, t, c)
        h = self.normed(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(x[:, -1])


class Upsampled(nn.Module):
    """A U-Net that goes up by bilinear and nearest neighbours, and pads what does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 2, 3, padding=1)
        self.down = nn.Conv2d(2, 3, 3, padding=1)
        self.lowest = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate")
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.last = nn.Conv2d(5, 2, 3, padding="same", dilation=2)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.tanh(self.enter(x))
        b = torch.tanh(self.down(F.max_pool2d(a, 2)))
        c = torch.tanh(self.lowest(F.max_pool2d(b, 2, ceil_mode=True)))
        h = F.interpolate(c, size=b.shape[-2:], mode="nearest") + b
        h = F.pad(self.up(h), [0, a.shape[-1] - 2 * h.shape[-1], 0, a.shape[-2] - 2 * h.shape[-2]])
        h = torch.tanh(self.last(torch.cat([a, h], 1)))
        low = F.interpolate(h, scale_factor=0.5, mode="bicubic")
        return self.out(torch.cat([h, low.repeat(1, 1, 2, 2)], 1))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 2, stride=2)
        self.tokens = nn.Sequential(nn.Linear(9, 5), nn.GELU(), nn.Linear(5, 9))
        self.channels = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2)
        h = h + self.tokens(h)
        h = h.mT
        return self.head((h + self.channels(h)).mean(dim=1))


class DeepSets(nn.Module):
    """A function of a set: sums, largest, spread."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 4), nn.Softplus())
        self.rho = nn.Sequential(nn.Linear(16, 5), nn.CELU(1.5), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.phi(x)
        found = (h.sum(1), h.max(dim=1).values, h.std(dim=1), torch.logsumexp(h, 1))
        return F.log_softmax(self.rho(torch.stack(found, dim=1).flatten(1)), dim=-1)


class Sequences(nn.Module):
    """LSTM with projections, both directions, two layers; then a GRU along the other axis order."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, proj_size=2, dropout=0.1)
        self.gru = nn.GRU(4, 3)
        self.rnn = nn.RNN(3, 3, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(3 + 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, (last, _) = self.lstm(x)
        g, _ = self.gru(h.transpose(0, 1))
        out, _ = self.rnn(g.transpose(0, 1))
        return self.head(torch.cat([out[:, -1], last[-2], last[-1]], dim=1))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.SiLU(), nn.Conv2d(2, 4, 3, 2, 1), nn.Mish())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), nn.SELU(), nn.ConvTranspose2d(2, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.encoder(x))[..., 2:-2, 2:-2])


class Own(nn.Module):
    """What people write between layers: frozen parts, constants made in forward, einsum, shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.mixing = nn.Parameter(0.5 * torch.randn(2, 4, 4))
        self.register_buffer("weights", torch.linspace(0.5, 1, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.scale * torch.tanh(self.frozen(x)) + torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=x.dtype)
        h = torch.einsum("b...i, kij -> bkj", h, self.mixing) / self.weights.sqrt()
        h = torch.where(h > 0, h, 0.3 * h).clamp(-2, 2)
        h = h - h.detach() * 0.5 + h.flip(-1) * torch.ones_like(h).triu()
        h = F.pixel_shuffle(h.reshape(len(x), 4, 1, 2), 2).reshape(len(x), 2, 4)
        return self.head(h.var(dim=1, unbiased=False) + h[:, 0] ** 3 / (1 + h[:, 1].abs()))


IMAGE, TEXT, SERIES = (2, 8, 8), (5,), (4, 3)

ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet, basic": (lambda: ResNet(4, (1, 1), 2, 3), IMAGE),
    "ResNet, bottleneck": (BottleneckNet, IMAGE),
    "VGG": (VGG, IMAGE),
    "MobileNetV3": (MobileNet, IMAGE),
    "EfficientNet": (EfficientNet, IMAGE),
    "DenseNet": (DenseNet, (2, 6, 6)),
    "Inception": (Inception, (2, 5, 5)),
    "ConvNeXt": (ConvNeXt, (2, 6, 6)),
    "ViT": (lambda: Vision(width=4, blocks=1), (2, 6, 6)),
    "Swin": (Windows, IMAGE),
    "GPT": (GPT, TEXT),
    "BERT of transformers": (lambda: OfTransformers("bert"), TEXT),
    "GPT-2 of transformers": (lambda: OfTransformers("gpt2"), TEXT),
    "encoder, tied": (Tied, TEXT),
    "Llama": (Llama, SERIES),
    "U-Net, transposed": (UNet, (1, 4, 4)),
    "U-Net, upsampled": (Upsampled, (1, 6, 6)),
    "MLP-Mixer": (Mixer, (2, 6, 6)),
    "deep sets": (DeepSets, SERIES),
    "LSTM, GRU, RNN": (Sequences, SERIES),
    "autoencoder": (Autoencoder, (1, 8, 8)),
    "functions": (Own, (4,)),
}
"""How to make each, and the shape of a sample."""

MORE = {
    **zoo_users.NETWORKS,
    "BERT, own mask": (lambda: OfTransformers("bert", own_mask=True), TEXT),
    "GPT-2, own mask": (lambda: OfTransformers("gpt2", own_mask=True), TEXT),
}
"""The same of more networks."""


def build(name: str, n: int = 3) -> tuple[nn.Module, Any]:
    """The network in inference mode, in float64, with statistics that are not trivial; and samples for it."""
    make, shape = {**ZOO, **MORE}[name]
    module = _made(make)
    if shape == TEXT:
        return module, torch.randint(0, 7, (n, *shape)).numpy()
    return module, torch.randn(n, *shape, dtype=torch.float64).numpy()


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    module = make().double().eval()
    with torch.no_grad():
        for key, value in module.named_buffers():
            if "running_var" in key:
                value.add_(torch.rand_like(value))
            if "running_mean" in key:  # of either sign: means that are all positive leave no relu alive
                value.add_(0.3 * torch.randn_like(value))
        for value in module.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return module


class TwoBranches(nn.Module):
    """An image and a vector, by position; what the vector says weighs the channels of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2))
        self.vector = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Bilinear(4, 4, 3)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        scale = self.vector(vector)
        return self.head((self.image(image) * scale[:, :, None, None]).mean((2, 3)), scale)


class Siamese(nn.Module):
    """The same layers for both of two vectors, of which a dict of numbers comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3))

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        one, other = self.body(left), self.body(right)
        return {"distance": (one - other).square().sum(1), "both": torch.cat([one, other], 1)}


class Masked(nn.Module):
    """Tokens at positions that are given, attention to what a mask lets be seen, and a tuple of two outputs.

    A name among its inputs is that of a buffer too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 4), nn.Embedding(6, 4)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)
        self.register_buffer("mask", torch.linspace(0.5, 1, 4))

    def forward(self, tokens: Tensor, *, positions: Tensor, mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        h = self.mask * (self.tokens(tokens) + self.places(positions))
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        h = h + F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, :])
        seen = mask.to(h.dtype) * weights
        return h, self.head((h * seen[..., None]).sum(1) / (1 + seen.sum(1, keepdim=True)))


class Lengths(nn.Module):
    """A series, and how many of its steps there are: one whole number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        there = torch.arange(4) < lengths[:, None]
        h = F.softplus(self.step(series)) * there[..., None]
        return self.head(h.sum(1) / lengths[:, None])


def _bert() -> nn.Module:
    import transformers

    config = transformers.BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


Samples = dict[str, np.ndarray] | tuple[np.ndarray, ...]


def _numbers(*shape: int) -> np.ndarray:
    return torch.randn(*shape, dtype=torch.float64).numpy()


def _mask(n: int, length: int) -> np.ndarray:
    """What is there: the first ones of each sample, one at least."""
    return np.arange(length) < 1 + np.arange(n)[:, None] % length


def _tokens(n: int) -> np.ndarray:
    return torch.randint(0, 7, (n, 5)).numpy()


SEVERAL: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Samples], Any]] = {
    "image and vector": (TwoBranches, lambda n: (_numbers(n, 2, 6, 6), _numbers(n, 3)), None),
    "twins": (Siamese, lambda n: {"right": _numbers(n, 4), "left": _numbers(n, 4)}, "distance"),
    "twins, a function": (Siamese, lambda n: (_numbers(n, 4), _numbers(n, 4)), lambda y: y["both"][:, 1:4]),
    "tokens with a mask": (
        Masked,
        lambda n: {
            "tokens": _tokens(n), "positions": torch.randint(0, 6, (n, 5)).numpy(), "mask": _mask(n, 5),
            "weights": _numbers(n, 5),
        },
        1,
    ),
    "series with lengths": (Lengths, lambda n: (_numbers(n, 4, 3), 1 + np.arange(n) % 4), None),
    "BERT with its mask": (
        _bert, lambda n: {"input_ids": _tokens(n), "attention_mask": _mask(n, 5).astype(np.int64)}, "logits"
    ),
    "BERT, by position, with kinds of tokens": (
        _bert, lambda n: (_tokens(n), _mask(n, 5).astype(np.int64), _tokens(n) % 2), "logits"
    ),
}  # fmt: skip
"""Networks of several inputs: how to make each, samples for it, and which of its outputs counts."""


def build_several(name: str, n: int = 3) -> tuple[nn.Module, Samples, Any]:
    """The network as `build` makes it, samples, and its output."""
    make, samples, output = SEVERAL[name]
    return _made(make), samples(n), output
