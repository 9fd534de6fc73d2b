"""When two evaluations are taken to be the same."""

from __future__ import annotations

import pytest
import torch

from udlbridge.backends.pytorch.layouts import agree

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([1e-15, 0.0], [0.0, 2e-15], True),
        ([INF, 1.0], [INF, 1.0], True),
        ([INF, 1.0], [INF, 1.1], False),
        ([INF, 1.0], [-INF, 1.0], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [2.0, 1.0], False),
        ([1e308, 1.0], [-1e308, 1.0], False),
        ([], [], True),
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 3], False),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_numbers_agree_but_for_rounding(one: list[float], other: list[float], same: bool) -> None:
    whole = any(isinstance(number, int) for number in one)
    first, second = (torch.tensor(value, dtype=torch.int64 if whole else torch.float64) for value in (one, other))
    assert agree(first, second) is same
    assert agree(second, first) is same
