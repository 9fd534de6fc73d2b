"""A module and a graph side by side: the table has the module's own layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import udlbridge as ub
import zoo
from udlbridge.analysis.port_hints import Step
from udlbridge.analysis.port_matching import matched


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


class Twice(nn.Module):
    """`part` is called twice, and `how` says with what."""

    def __init__(self, part: nn.Module, how: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.start, self.part, self.end = nn.Linear(4, 4), part, nn.Linear(4, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.how(self.part, self.start(x)))


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(2 * x)


class Widths(nn.Module):
    """It does more for six numbers than for four."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.sin(x) * 2) if x.shape[1] == 6 else torch.cos(x)


def unused(part: nn.Module, h: torch.Tensor) -> torch.Tensor:
    part(h + 1)
    return part(h)


def widened(part: nn.Module, h: torch.Tensor) -> torch.Tensor:
    return part(part(torch.cat([h, h[:, :2]], 1))[:, :4])


@pytest.mark.parametrize(
    ("part", "how", "steps", "left_out"),
    [
        (Doubled, unused, ["start", "end"], "part"),
        (nn.Tanh, unused, ["start", "end"], "part"),
        (Widths, widened, ["start", "part", "part#2", "end"], ""),
    ],
    ids=["a call that nobody uses", "of one operation", "calls that do different things"],
)
def test_calls_that_are_not_told_apart_are_left_out(
    part: type[nn.Module], how: Callable[..., torch.Tensor], steps: list[str], left_out: str
) -> None:
    torch.manual_seed(1)
    module = Twice(part(), how).double()
    report = ub.compare_models(module, ub.from_torch(module, X), X)
    assert report.ok
    assert report.parted is None
    assert [step.first.partition(" ")[0] for step in report.steps] == steps
    assert any(hint.endswith(f"apart: {left_out}") for hint in report.hints) == bool(left_out)


class Wrapped(nn.Module):
    """The same network with a forward of its own, so that it crosses as a graph."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Named(nn.Module):
    """One layer by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.end = nn.Linear(4, 4), nn.Linear(4, 2)
        self.again = self.part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.again(torch.tanh(self.part(x))))


def test_a_submodule_with_two_names_has_its_first_one() -> None:
    torch.manual_seed(2)
    module = Named().double()
    report = ub.compare_models(module, ub.from_torch(module, X), X)
    assert [step.first.partition(" ")[0] for step in report.steps] == ["part", "part#2", "end"]
    assert report.ok
    assert report.parted is None


def test_shapes_of_arrays_that_differ_are_named() -> None:
    first, second = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)).double() for width in (5, 3))
    report = ub.compare_models(first, ub.from_torch(second, X), X)
    assert any("weight has the shape (5, 4) in the first, and (3, 4) in the second" in hint for hint in report.hints)
    assert not any("are equal" in hint for hint in report.hints)
    ax = report.plot()
    assert "another shape" in [text.get_text() for text in ax.texts]
    assert ax.get_xlim()[1] > report.budget


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["ResNet, bottleneck", "MobileNetV3", "U-Net, transposed", "ConvNeXt", "Llama"])
def test_networks_of_the_zoo_agree_layer_by_layer(name: str) -> None:
    module, x = zoo.build(name, 2)
    report = ub.compare_models(module, ub.from_torch(module, x), x)
    assert report.ok, report
    assert len(report.steps) > 3
    assert max(step.difference for step in report.steps) < 1e-12


def test_other_networks_are_matched_by_what_they_give() -> None:
    """The same numbers by layers that have other names, and after those that agree by shapes."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    model = ub.from_torch(module)
    graph = ub.from_torch(Wrapped(module), X)
    assert isinstance(graph, ub.Graph)
    report = ub.compare_models(graph, model, X, backend="torch")
    assert report.ok
    assert report.parted is None
    assert [step.second for step in report.steps] == [
        "dense(4, 4)", "activation(tanh)", "dense(4, 3)", "activation(relu)", "dense(3, 2)",
    ]  # fmt: skip
    other = model.with_params({**model.params, "2.bias": model.params["2.bias"] + 1})
    report = ub.compare_models(graph, other, X, backend="torch")
    assert not report.ok
    assert report.parted is not None
    assert report.steps[report.parted].second == "dense(4, 3)"


def test_what_agrees_is_matched_though_shapes_repeat() -> None:
    """Of three layers of one shape the second network shows the last alone, as a layer that has its activation."""
    steps = [Step(str(k), str(k), np.full((2, 3), float(k)), None, {}) for k in (1, 2, 3, 9)]
    mine, theirs = matched(steps, steps[2:], 1e-12)
    assert [step.name for step in mine] == [step.name for step in theirs] == ["3", "9"]


def test_without_a_common_layer_there_are_no_steps(recurring: Recurring) -> None:
    report = ub.compare_models(nn.Sequential(nn.Linear(4, 7)).double(), ub.from_torch(recurring, X), X)
    assert report.steps == ()
    assert any("there are no steps" in hint for hint in report.hints)
