"""Two graphs, or two modules, whose parts have other names, or another order: which correspond, and where they part."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub

X = np.random.default_rng(0).normal(size=(3, 2, 5, 4))


class First(nn.Module):
    """Two convolutions, of which the second is gated by a branch, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.gate = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(3, 3, 1),
        )
        self.act = nn.Tanh()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x))
        scale = torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True)))
        return self.head((self.act(self.conv(h)) * scale).mean((2, 3)))


class Second(nn.Module):
    """The same by other names, with layers that change nothing, and the branch after what it gates."""

    def __init__(self, first: First) -> None:
        super().__init__()
        own = copy.deepcopy(first)
        self.layer1 = nn.Sequential(nn.Identity(), own.stem, nn.Tanh(), nn.Hardtanh(-9.0, 9.0))
        self.layer2, self.excite, self.fc = own.conv, own.gate, own.head

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer1(x)
        out = torch.tanh(self.layer2(h))
        return self.fc((out * torch.sigmoid(self.excite(h.mean((2, 3), keepdim=True)))).mean((2, 3)))


@pytest.fixture
def both() -> tuple[First, Second]:
    torch.manual_seed(0)
    first = First().double()
    return first, Second(first)


def changed(second: Second, change: Callable[[Second], None]) -> Second:
    with torch.no_grad():
        change(second)
    return second


def test_graphs_of_one_network_by_other_names_agree(both: tuple[First, Second]) -> None:
    one, other = (ub.from_torch(module, X) for module in both)
    report = ub.compare_models(one, other, X)
    assert (report.ok, report.parted) == (True, None)
    pairs = [(step.first.partition("(")[2], step.second.partition("(")[2]) for step in report.steps]
    for pair in (
        ("conv in stem)", "conv in layer1.1)"),
        ("conv in conv)", "conv in layer2)"),
        ("linear in head)", "linear in fc)"),
    ):
        assert pair in pairs
    assert "the graphs are not built alike" in report.hints[0]


def test_only_the_names_differ(both: tuple[First, Second]) -> None:
    graph = ub.from_torch(both[0], X)
    names = {name: f"other.{name}" for name in [*graph.params, *graph.buffers, *(node.name for node in graph.nodes)]}
    nodes = [
        ub.Node(names[node.name], node.op, tuple(names.get(name, name) for name in node.inputs), node.attributes)
        for node in graph.nodes
    ]
    other = ub.Graph(
        nodes,
        names[graph.output],
        params={names[name]: value for name, value in graph.params.items()},
        buffers={names[name]: value for name, value in graph.buffers.items()},
        sample_shape=graph.sample_shape,
    )
    report = ub.compare_models(graph, other, X)
    assert report.ok
    assert report.hints == ()
    assert [step.second.partition(" ")[0] for step in report.steps] == [
        names[step.first.partition(" ")[0]] for step in report.steps
    ]


@pytest.mark.parametrize(
    ("change", "where", "hint"),
    [
        (lambda net: net.layer1[1].weight.copy_(net.layer1[1].weight.flip(2, 3)), "conv in layer1.1)", "flipped"),
        (lambda net: net.layer2.weight.copy_(net.layer2.weight.flip(2, 3)), "conv in layer2)", "flipped"),
        (lambda net: net.excite.weight.neg_(), "conv in excite)", "its sign changes"),
        (lambda net: net.fc.bias.add_(1), "linear in fc)", "bias in the second) differs by"),
    ],
    ids=["the first", "the second", "of a branch", "the last"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_node_that_is_wrong_is_named(
    both: tuple[First, Second], change: Callable[[Second], None], where: str, hint: str, turned: bool
) -> None:
    graphs = [ub.from_torch(both[0], X), ub.from_torch(changed(both[1], change), X)]
    report = ub.compare_models(*(graphs[::-1] if turned else graphs), X)
    assert not report.ok
    assert report.parted is not None
    step = report.steps[report.parted]
    assert (step.first if turned else step.second).endswith(where)
    assert any(hint in line for line in report.hints)


def test_modules_by_other_names_are_matched_too(both: tuple[First, Second]) -> None:
    first, second = both
    report = ub.compare_models(first, second, X)
    assert (report.ok, report.parted) == (True, None)
    pairs = [(step.first, step.second) for step in report.steps]
    assert ("conv (Conv2d)", "layer2 (Conv2d)") in pairs
    assert pairs[-1] == ("head (Linear)", "fc (Linear)")
    report = ub.compare_models(first, changed(second, lambda net: net.excite.weight.neg_()), X)
    assert report.parted is not None
    assert report.steps[report.parted].second == "excite (Conv2d)"


class Swapped(First):
    """The branch comes after what it gates, by the same names."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x))
        out = torch.tanh(self.conv(h))
        return self.head((out * torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True)))).mean((2, 3)))


def test_modules_with_the_same_names_are_paired_by_these() -> None:
    torch.manual_seed(0)

    class Plain(Swapped):
        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.stem(x))
            scale = torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True)))
            return self.head((torch.tanh(self.conv(h)) * scale).mean((2, 3)))

    one, other = Plain().double(), Swapped().double()
    other.load_state_dict(one.state_dict())
    report = ub.compare_models(one, other, X)
    assert (report.ok, report.parted, report.hints) == (True, None, ())
    assert [step.first for step in report.steps] == [step.second for step in report.steps]
    assert len(report.steps) == 5


class Scores(nn.Module):
    """Two layers of one kind, called one after the other, by whatever names and in whatever order."""

    def __init__(self, first: str, second: str, *, swapped: bool) -> None:
        super().__init__()
        self.names, self.swapped = (first, second), swapped
        for name in self.names:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        a, b = (self.get_submodule(name)(x) for name in self.names)
        return b.tanh() * a if self.swapped else a.tanh() * b


def test_modules_in_another_order_are_paired_by_what_they_give() -> None:
    torch.manual_seed(0)
    one, other = Scores("q", "k", swapped=False).double(), Scores("key", "query", swapped=True).double()
    other.query.load_state_dict(one.q.state_dict())
    other.key.load_state_dict(one.k.state_dict())
    x = np.random.default_rng(1).normal(size=(5, 4))
    same = ub.compare_models(one, other, x)
    assert (same.ok, same.parted) == (True, None)
    with torch.no_grad():
        other.key.weight[0, 0] += 0.1
    parted = ub.compare_models(one, other, x)
    assert parted.parted is not None
    step = parted.steps[parted.parted]
    assert (step.first, step.second) == ("k (Linear)", "key (Linear)")
