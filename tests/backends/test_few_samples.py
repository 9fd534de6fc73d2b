"""Maps whose gradients are formed for each tile: of few samples, pairs of positions cost less than forming them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge.backends.pytorch import factors
from udlbridge.backends.pytorch.products import strip_rows
from udlbridge.backends.reduction import REDUCTIONS, checked_reduction
from udlbridge.backends.rules import entries_below, gradients_cost, pairs_cost, strip_height, tile_rule
from udlbridge.kernels import costs
from udlbridge.kernels.request import kernel_request

TOKENS, WIDTH = 6, 24


class Sequence(nn.Module):
    """Two maps at each of six places, with and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.read = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.tanh(self.second(torch.tanh(self.first(x)))).sum(1))


def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The forms in which products are taken from now on."""
    forms: list[str] = []
    for form in ("_add_pairs", "_add_gradients"):
        own = getattr(factors, form)
        monkeypatch.setattr(factors, form, lambda *args, own=own, form=form: forms.append(form) or own(*args))
    return forms


@pytest.mark.parametrize("outputs", REDUCTIONS)
def test_few_samples_have_the_kernel_of_many(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, x = Sequence().double(), np.random.default_rng(0).standard_normal((60, TOKENS, WIDTH))
    expected = ub.ntk(module, x, outputs=outputs, method="plain")
    forms = taken(monkeypatch)
    assert_within_budget(ub.ntk(module, x, outputs=outputs), expected)
    assert set(forms) == {"_add_gradients"}
    forms.clear()
    for rows, columns in ((slice(0, 2), slice(0, 2)), (slice(0, 2), slice(2, 5)), (slice(0, 1), slice(0, 60))):
        same = None if rows == columns else x[columns]
        found = ub.ntk(module, x[rows], same, outputs=outputs)
        np.testing.assert_allclose(found, expected[rows, columns], rtol=0, atol=1e-12 * np.abs(expected).max())
    assert set(forms) == {"_add_pairs"}


@pytest.mark.parametrize(("block", "cached"), [(1, 1), (1, 2**20), (3 * TOKENS * WIDTH, 2**20), (2**20, 40)])
def test_however_many_are_taken_together(block: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, x = Sequence().double(), np.random.default_rng(0).standard_normal((7, TOKENS, WIDTH))
    expected = ub.ntk(module, x, method="plain", outputs="full")
    monkeypatch.setattr(factors, "BLOCK", block)
    monkeypatch.setattr(factors, "CACHED", cached)
    monkeypatch.setattr(factors, "tile_rule", lambda *_, **__: "pairs")
    assert_within_budget(ub.ntk(module, x, outputs="full"), expected)


def test_a_plan_counts_the_form_that_is_taken() -> None:
    torch.manual_seed(0)
    network = ub.as_network(Sequence())
    network.random_batch((TOKENS, WIDTH), 3)
    request = kernel_request(network, (TOKENS, WIDTH), outputs=0, params="second.weight", backend=None)
    pairs, gradients = (
        pairs_cost(TOKENS, WIDTH, WIDTH, request.reduction),
        gradients_cost(WIDTH, WIDTH, request.reduction),
    )
    few, many = (ub.plan(network, n, outputs=0, params="second.weight", calibrate=False) for n in (2, 100))
    assert costs.tiles_flops(request, few.grid) == 2 * few.grid.pairs * pairs
    forming = 100 * TOKENS * gradients
    assert costs.tiles_flops(request, many.grid) == 2 * (many.grid.pairs * gradients + forming)


def test_the_rule_is_the_cheaper_one() -> None:
    reduction = checked_reduction(0, 1)
    assert tile_rule(32, 768, 3072, (8, 8), 8, reduction) == "pairs"
    assert tile_rule(32, 768, 3072, (256, 256), 256, reduction) == "gradients"
    assert tile_rule(32, 768, 3072, (256, 8), 264, reduction) == "pairs"
    # Pairs below the diagonal are half of all, in strips of few samples; products of gradients need longer ones.
    assert tile_rule(17, 192, 768, (64, 64), 64, reduction, lower=True) == "pairs"
    assert tile_rule(17, 192, 768, (64, 64), 64, reduction) == "gradients"


@pytest.mark.parametrize("positions", [1, 5, 100])
@pytest.mark.parametrize("rows", [1, 7, 64, 100, 1000])
def test_strips_below_the_diagonal_are_counted(rows: int, positions: int) -> None:
    strips = list(strip_rows(rows, True, positions))
    assert [row for strip in strips for row in range(strip.start, strip.stop)] == list(range(rows))
    entries = sum((strip.stop - strip.start) * strip.stop for strip in strips)
    assert entries == entries_below(rows, strip_height(rows, positions))
    assert rows * (rows + 1) // 2 <= entries <= rows**2
