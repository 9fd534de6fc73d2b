"""What NumPy draws in torch's place is what torch draws, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import OptionError
from udlbridge.networks.torch_draws import TorchGenerator

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5])
def test_uniform_numbers_and_weights(seed: int) -> None:
    torch.manual_seed(seed)
    own = TorchGenerator(seed)
    for shape in ((7,), (100, 40), (15, 1, 3), (4, 3, 5, 5)):
        np.testing.assert_array_equal(own.uniform(shape, -0.3, 2.0), torch.empty(shape).uniform_(-0.3, 2.0).numpy())
        if len(shape) > 1:
            weight = torch.nn.init.kaiming_uniform_(torch.empty(shape), a=0.25)
            np.testing.assert_array_equal(own.kaiming_uniform(shape, 0.25), weight.numpy())


def test_orders_of_a_loader_between_other_numbers() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(1)
    own = TorchGenerator(1)
    loader = DataLoader(TensorDataset(torch.arange(203)), batch_size=50, shuffle=True)
    for _ in range(3):
        order = np.concatenate([batch.numpy() for (batch,) in loader])
        np.testing.assert_array_equal(own.loader_order(203), order)
        np.testing.assert_array_equal(own.permutation(30), torch.randperm(30).numpy())
        np.testing.assert_array_equal(own.uniform((3,), 0.0, 1.0), torch.rand(3).numpy())
    assert own.permutation(0).shape == (0,)


def test_default_weights_of_a_network() -> None:
    nn = torch.nn
    torch.manual_seed(3)
    theirs = nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.ReLU(), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(30, 4, bias=False), nn.Linear(4, 2)
    )
    layers = [ub.Conv1d(2, 6, 3), ub.Activation("relu"), ub.GroupNorm(2, 6), ub.Flatten(), ub.Dense(30, 4, bias=False)]
    for dtype in ("float32", "float64"):
        model = ub.init.torch_default(ub.Model([*layers, ub.Dense(4, 2)], dtype=dtype), seed=3)
        for value, expected in zip(model.params.values(), theirs.parameters(), strict=True):
            np.testing.assert_array_equal(value, expected.detach().numpy())
            assert value.dtype == dtype


def test_networks_made_one_after_another() -> None:
    torch.manual_seed(3)
    generator = TorchGenerator(3)
    for _ in range(2):
        model = ub.init.torch_default(ub.Model([ub.Conv1d(2, 6, 3), ub.Dense(4, 2)]), generator)
        theirs = torch.nn.Sequential(torch.nn.Conv1d(2, 6, 3), torch.nn.Linear(4, 2))
        for value, expected in zip(model.params.values(), theirs.parameters(), strict=True):
            np.testing.assert_array_equal(value, expected.detach().numpy())


def test_default_weights_stay_within_the_bound_in_a_residual_block() -> None:
    block = ub.Residual([ub.LayerNorm(9), ub.Dense(9, 9, "tanh")])
    model = ub.init.torch_default(ub.Model([block, ub.Dense(9, 2)]), seed=0)
    for name, value in model.params.items():
        scale = name.startswith("0.") and value.ndim == 1 and len(np.unique(value)) == 1
        assert scale or 0 < np.abs(value).max() <= 1 / math.sqrt(9)


@pytest.mark.parametrize("layer", [ub.Embedding(5, 4), ub.SelfAttention(4, 2), ub.Residual([ub.SelfAttention(4, 2)])])
def test_layers_that_torch_starts_otherwise(layer: object) -> None:
    with pytest.raises(OptionError, match="torch_default"):
        ub.init.torch_default(ub.Model([layer]))
