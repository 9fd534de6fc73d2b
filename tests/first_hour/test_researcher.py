"""A researcher with a residual network of torchvision's kind and samples in .npy files: what does its kernel say?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Desk

NETWORK = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = Block(8)
        self.layer2 = Block(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        h = self.layer2(self.layer1(torch.relu(self.stem(x))))
        return self.fc(h.mean(dim=(2, 3)))


def make():
    torch.manual_seed(0)
    return ResNet().eval()
"""

ASK = """
import numpy as np
import udlbridge as ub
from net import make

x = np.load("x.npy")
k = ub.ntk(make(), x, outputs=0)
print(k.shape, k.dtype)
print(ub.spectrum(k))
print(ub.check(make(), x[:4], backends=["torch", "reference"]))
print(*ub.layer_kernels(make(), x[:4]))
"""


@pytest.mark.slow
def test_the_hour(desk: Desk) -> None:
    x = np.random.default_rng(0).random((12, 3, 16, 16), dtype=np.float32)
    np.save(desk.folder / "x.npy", x)
    (desk.folder / "net.py").write_text(NETWORK)

    heard = desk.script("ask.py", ASK)
    assert "(12, 12) float32" in heard
    assert "PSD: 12 eigenvalues of a float32 kernel, 0 negative" in heard
    assert "agree; worst" in heard
    assert heard.splitlines()[-1] == "stem layer1.conv1 layer1.bn1 layer1.conv2 layer1.bn2 layer2.conv1 layer2.bn1 " + (
        "layer2.conv2 layer2.bn2 fc"
    )

    desk.shell("udlbridge kernel --model net.py:make --samples x.npy --n 12 --outputs 0 --out K.npy --quiet")
    assert np.load(desk.folder / "K.npy").shape == (12, 12)
    assert "PSD: 12 eigenvalues" in desk.shell("udlbridge spectrum K.npy --quiet")

    # The mistake that nearly everybody makes: NumPy's numbers are float64, torch's float32.
    np.save(desk.folder / "wide.npy", x.astype(np.float64))
    heard = desk.shell("udlbridge kernel --model net.py:make --samples wide.npy --n 12 --out L.npy --quiet", code=2)
    assert "float64" in heard
    assert "float32" in heard
    assert not (desk.folder / "L.npy").exists()
