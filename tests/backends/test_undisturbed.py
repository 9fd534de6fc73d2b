"""What a caller has set in torch, autocast or no gradients, changes no result: of a `Model`, nor of a module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import udlbridge as ub

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


CALLS: dict[str, Callable[[Any], Any]] = {
    "outputs": lambda model: ub.outputs(model, X),
    "jacobian": lambda model: ub.jacobian(model, X),
    "input_jacobian": lambda model: ub.input_jacobian(model, X),
    "input_hessian": lambda model: ub.input_hessian(model, X),
    "ntk": lambda model: ub.ntk(model, X),
    "plain": lambda model: ub.ntk(model, X, method="plain"),
    "operator": lambda model: ub.ntk_operator(model, X) @ np.ones(6, np.float32),
    "features": lambda model: ub.features(model, X),
    "signals": lambda model: ub.signal_report(model, X).gradient_std,
    "loss": lambda model: ub.loss_gradient(model, X, LABELS)[1],
    "train": lambda model: ub.train(model, X, LABELS, epochs=3, batch_size=4).losses,
    "check": lambda model: [row.difference for row in ub.check(model, X, backends=["torch", "reference"]).comparisons],
}


@pytest.mark.parametrize("make", [module, lambda: ub.from_torch(module())], ids=["module", "model"])
@pytest.mark.parametrize("name", CALLS)
def test_autocast_and_no_gradients_change_nothing(name: str, make: Callable[[], Any]) -> None:
    model, call = make(), CALLS[name]
    expected = call(model)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad(), torch.inference_mode():
        found = call(model)
    if isinstance(expected, dict):
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)
    else:
        np.testing.assert_array_equal(found, expected)


def test_a_formula_and_a_store(tmp_path: Path) -> None:
    formula, x = ub.Function(lambda phi: ub.expressions.total(ub.expressions.sin(phi)), backend="torch"), X[0]
    expected = formula.value(x), formula.gradient(x), ub.ntk(module(), X)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad(), torch.inference_mode():
        found = formula.value(x), formula.gradient(x)
        store = ub.compute_kernel(module(), X, tmp_path / "K.zarr")
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(np.asarray(store), expected[2])
