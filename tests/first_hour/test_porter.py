"""A porter with a network in a file of Flux's and its copy in PyTorch: are they the same?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Desk

PORT = """
import torch
from torch import nn
import udlbridge as ub

torch.manual_seed(0)
mine = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).double()
model = ub.from_torch(mine)
model.save("mine.safetensors")
flipped = {**model.params, "0.weight": model.params["0.weight"][:, :, ::-1, ::-1].copy()}
model.with_params(flipped).save("theirs.safetensors")
x = torch.rand(6, 1, 6, 6, dtype=torch.float64).numpy()
print(ub.compare_models(mine, ub.from_flux("mine.safetensors"), x))
back = ub.to_torch(ub.Model.load("mine.safetensors"))
print("there and back", float((back(torch.from_numpy(x)) - mine(torch.from_numpy(x))).abs().max()))
"""


@pytest.mark.slow
def test_the_hour(desk: Desk) -> None:
    heard = desk.script("port.py", PORT)
    assert "the same network: budget 1e-12" in heard
    assert "there and back 0.0" in heard
    assert "agree" in desk.shell("udlbridge check --model mine.safetensors --samples random --shape 1,6,6 --n 4")
    same = desk.shell(
        "udlbridge check --model mine.safetensors --against mine.safetensors --samples random --shape 1,6,6 --n 4"
    )
    assert "the same network" in same
    other = desk.shell(
        "udlbridge check --model mine.safetensors --against theirs.safetensors --samples random --shape 1,6,6 --n 4",
        code=1,
    )
    assert "conv2d(1, 4, (3, 3), padding=(1, 1))" in other.split("<- the first difference")[0]
    assert "Flux's Conv flips its kernel" in other
    desk.shell("udlbridge convert mine.safetensors mine.npz")
    assert (desk.folder / "mine.npz").is_file()


@pytest.mark.slow
@pytest.mark.julia
def test_the_twin_in_julia(desk_with_julia: Desk) -> None:
    heard = desk_with_julia.script(
        "twin.py",
        "import numpy as np\nimport udlbridge as ub\n"
        "model = ub.Model([ub.Conv2d(1, 4, 3, 'relu'), ub.Flatten(), ub.Dense(64, 3)], dtype='float64')\n"
        "x = np.random.default_rng(0).normal(size=(3, 1, 6, 6))\n"
        "print(ub.check(model, x, backends=['julia', 'torch', 'reference']))\n",
    )
    assert "agree; worst" in heard
