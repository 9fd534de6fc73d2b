"""A module and a graph side by side: the table has the module's own layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import udlbridge as ub
import zoo


class Recurring(nn.Module):
    """One cell that is called three times, the last two one after the other, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.readout = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cell(x).exp()
        return self.readout(self.cell(self.cell(x)))


@pytest.fixture
def recurring() -> Recurring:
    torch.manual_seed(0)
    return Recurring().double()


X = np.random.default_rng(0).normal(size=(3, 4))


def test_every_call_is_a_step(recurring: Recurring) -> None:
    report = ub.compare_models(recurring, ub.from_torch(recurring, X), X)
    assert report.ok
    assert [step.first.partition(" ")[0] for step in report.steps] == [
        "cell.0", "cell.1", "cell.0#2", "cell.1#2", "cell.0#3", "cell.1#3", "readout",
    ]  # fmt: skip
    assert [step.first for step in report.steps] == [step.second for step in report.steps]
    assert report.hints == ()


@pytest.mark.parametrize("turned", [False, True], ids=["module first", "graph first"])
def test_the_layer_where_they_part_is_named_with_the_reason(recurring: Recurring, turned: bool) -> None:
    other = copy.deepcopy(recurring)
    with torch.no_grad():
        other.readout.weight.neg_()
    both = [recurring, ub.from_torch(other, X)]
    report = ub.compare_models(*(both[::-1] if turned else both), X)
    assert not report.ok
    assert report.parted is not None
    assert report.steps[report.parted].first == "readout (Linear)"
    assert any("weight differs" in hint and "its sign changes" in hint for hint in report.hints)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["ResNet, bottleneck", "MobileNetV3", "U-Net, transposed", "ConvNeXt", "Llama"])
def test_networks_of_the_zoo_agree_layer_by_layer(name: str) -> None:
    module, x = zoo.build(name, 2)
    report = ub.compare_models(module, ub.from_torch(module, x), x)
    assert report.ok, report
    assert len(report.steps) > 3
    assert max(step.difference for step in report.steps) < 1e-12


def test_without_a_common_layer_there_are_no_steps(recurring: Recurring) -> None:
    report = ub.compare_models(nn.Sequential(nn.Linear(4, 2)).double(), ub.from_torch(recurring, X), X)
    assert report.steps == ()
    assert any("there are no steps" in hint for hint in report.hints)
