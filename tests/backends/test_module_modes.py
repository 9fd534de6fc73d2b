"""Modules in training mode: what is said of them is what the caller of each function can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from udlbridge import errors

torch = pytest.importorskip("torch")
nn = torch.nn

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

FUNCTIONS: dict[str, Callable[[Any], object]] = {
    "ntk": lambda module: ub.ntk(module, X),
    "outputs": lambda module: ub.outputs(module, X),
    "spectrum": lambda module: ub.spectrum(module, x=X),
    "check": lambda module: ub.check(module, X),
    "features": lambda module: ub.features(module, X),
    "compare_models": lambda module: ub.compare_models(module, module, X),
    "train": lambda module: ub.train(module, X, X[:, :2], epochs=1, progress=False),
}


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.5)], ids=["BatchNorm", "Dropout"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_module_in_training_mode_is_told_what_its_caller_can_do(name: str, layer: Any) -> None:
    module = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 2))
    with pytest.raises(errors.ConversionError, match=r"call \.eval\(\) on the module") as raised:
        FUNCTIONS[name](module)
    assert "inference=" not in str(raised.value)
    assert "from_torch" not in str(raised.value)


def test_from_torch_has_another_way_too() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    for x in (None, X):
        with pytest.raises(errors.ConversionError, match=r"call \.eval\(\).*or pass inference=True to from_torch"):
            ub.from_torch(module, x)


def test_at_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\n\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Dropout())\n"
    )
    done = udlbridge("check", "--model", f"{file}:make", "--shape", 4)
    assert done.returncode == 2
    assert "call .eval() on the module first, where it is made" in done.stderr
    assert "from_torch" not in done.stderr
