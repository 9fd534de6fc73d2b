"""How many samples pass a network together: what would take two times goes at once, and plans count it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge.backends.pytorch.gathering import MOST_NUMBERS, SMALL_NUMBERS, STRETCH, samples_together


class Counting(nn.Module):
    """Notes how many samples come at a time."""

    seen: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6000), nn.Linear(6000, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        h = torch.tanh(self.first(x))
        for _ in range(25):
            h = torch.tanh(h)
        return self.second(h)


@pytest.mark.parametrize("numbers", [1, 1000, 2**17, 2**20, 2**22, 2**30])
def test_as_many_as_two_stretches_go_at_once(numbers: int) -> None:
    usual = samples_together(numbers, 10**9)
    assert 1 <= usual <= max(STRETCH, SMALL_NUMBERS // numbers)
    assert samples_together(numbers, 2 * usual + 1) == usual
    at_once = samples_together(numbers, 2 * usual)
    assert usual <= at_once <= 2 * usual
    assert at_once == 2 * usual or (at_once + 1) * numbers > MOST_NUMBERS


@pytest.mark.parametrize(("n", "expected"), [(2 * STRETCH, [2 * STRETCH]), (2 * STRETCH + 1, [STRETCH, STRETCH, 2])])
def test_passes_of_a_kernel(n: int, expected: list[int]) -> None:
    torch.manual_seed(0)
    module, x = Counting(), np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    plain = ub.ntk(module, x, method="plain")
    Counting.seen.clear()
    kernel = ub.ntk(module, x)
    assert [count for count in Counting.seen if count > 3 or count == expected[-1]][-len(expected) :] == expected
    assert_within_budget(kernel, plain)


def test_plans_count_what_passes_at_once() -> None:
    network = ub.as_network(Counting())
    network.checked_batch(np.ones((3, 8), np.float32), "x")
    short, long, longer = (
        ub.plan(network, n, sample_shape=(8,), calibrate=False).ram_bytes
        for n in (STRETCH, 2 * STRETCH, 2 * STRETCH + 1)
    )
    assert long - short > STRETCH * network.activation_numbers(network.trainable) * 4
    assert longer < long
