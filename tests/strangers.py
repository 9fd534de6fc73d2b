"""Networks of strangers, as their repositories have them: nothing in them is written for this library."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn


class Net(nn.Module):
    """The network of a tutorial: layers, functions, a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(6 * 2 * 2, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        x = self.dropout(torch.flatten(x, 1))
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


@dataclass
class Config:
    """As the libraries of transformers keep it."""

    vocab_size: int = 11
    hidden_size: int = 8
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    max_position_embeddings: int = 6
    layer_norm_eps: float = 1e-5


class ModelOutput(OrderedDict[str, Any]):
    """A dict whose entries are attributes too, and come by position: what forward of such a library returns."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]


class Conv1D(nn.Module):
    """GPT-2's linear layer, with the weight (in, out)."""

    def __init__(self, outside: int, inside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.randn(inside, outside))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.ln_1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.c_attn = Conv1D(3 * width, width)
        self.c_proj = Conv1D(width, width)
        self.ln_2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.c_fc = Conv1D(4 * width, width)
        self.out = Conv1D(width, 4 * width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2)
            for part in self.c_attn(self.ln_1(h)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(h.shape)
        h = h + self.dropout(self.c_proj(mixed))
        return h + self.out(F.gelu(self.c_fc(self.ln_2(h)), approximate="tanh"))


class LMHeadModel(nn.Module):
    """A language model with a config, keyword inputs, a mask, a tied readout and a dict of outputs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> ModelOutput:
        length = input_ids.shape[1]
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        h = self.wte(input_ids) + self.wpe(torch.arange(length, device=input_ids.device))
        causal = torch.ones(length, length, dtype=torch.bool, device=h.device).tril()
        mask = causal & attention_mask.bool()[:, None, None, :]
        hidden = [h]
        for block in self.h:
            h = block(h, mask)
            hidden.append(h)
        logits = self.lm_head(self.ln_f(h))
        found = ModelOutput(logits=logits, hidden_states=tuple(hidden))
        if labels is not None:
            found["loss"] = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return found


class DoubleConv(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class UNet(nn.Module):
    """Down by pools, up by interpolation, with what was on the way down beside."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = DoubleConv(1, 3)
        self.down = DoubleConv(3, 4)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = DoubleConv(7, 3)
        self.outc = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down(F.max_pool2d(x1, 2))
        return self.outc(self.conv(torch.cat([x1, self.up(x2)], dim=1)))


class Tagger(nn.Module):
    """An LSTM over tokens, that keeps its last state, as many tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.hidden2tag = nn.Linear(5, 3)

    def forward(self, sentence: Tensor) -> Tensor:
        out, self.hidden = self.lstm(self.word_embeddings(sentence))
        return self.hidden2tag(out[:, -1])


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def language_model() -> nn.Module:
    torch.manual_seed(0)
    return LMHeadModel(Config()).eval()


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet().eval()


def tagger() -> nn.Module:
    torch.manual_seed(0)
    return Tagger().eval()


def inputs(name: str, n: int = 6) -> Any:
    """Samples for the network that the function of that name makes, in float32 or as tokens."""
    generator = np.random.default_rng(0)
    if name == "language_model":
        mask = np.arange(5) < generator.integers(2, 6, (n, 1))
        return {"input_ids": generator.integers(0, 11, (n, 5)), "attention_mask": mask.astype(int)}
    if name == "tagger":
        return generator.integers(0, 9, (n, 5))
    return generator.standard_normal((n, 1, *{"net": (10, 10), "unet": (4, 4)}[name])).astype(np.float32)
