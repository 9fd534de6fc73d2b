"""Modules of strangers that do what modules may do, and what of it cannot be followed, which is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge import errors

torch = pytest.importorskip("torch")
nn = torch.nn

X = np.random.default_rng(0).normal(size=(7, 6))


class Net(nn.Module):
    """A forward of one's own over some parts."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        """What it does."""
        return self.run(self, x)


def mixed(run: Callable[..., Any]) -> Any:
    """A network with a site of its own, and a parameter that has none."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 3, 2))
    return Net(run, linear=nn.Linear(6, 3), weight=weight).double()


def both(net: Any, x: Any) -> Any:
    """The linear layer, and what is no site."""
    return net.linear(x) + torch.einsum("ni,ioj->no", x.tanh(), net.weight)


def test_a_forward_that_writes_to_its_input() -> None:
    """Evaluations that follow, and derivatives by the samples, are at the samples as they were."""

    def writing(net: Any, x: Any) -> Any:
        x.mul_(2)
        return both(net, x)

    module, plain = mixed(writing), mixed(lambda net, x: both(net, 2 * x))
    x = X.copy()
    for method in ("structured", "plain"):
        assert_within_budget(ub.ntk(module, x, method=method), ub.ntk(plain, x, method="plain"))
    assert_within_budget(ub.input_jacobian(module, x), ub.input_jacobian(plain, x))
    assert ub.check(module, x).ok
    np.testing.assert_array_equal(x, X)


def test_a_graph_of_a_forward_that_writes_to_its_input_and_its_buffers() -> None:
    def counting(net: Any, x: Any) -> Any:
        net.calls += 1
        x.mul_(2)
        return net.a(x) * net.calls

    module = Net(counting, a=nn.Linear(6, 3)).double()
    module.register_buffer("calls", torch.zeros((), dtype=torch.float64))
    graph = ub.from_torch(module, X)
    assert float(module.calls) == 0
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, X, backend=backend), ub.ntk(module, X))


def by_norm(net: Any, x: Any) -> Any:
    """The samples in the order of their lengths, and back, as for recurrent layers of old."""
    order = x.norm(dim=1).argsort()
    return net.b(net.a(x[order]).tanh())[order.argsort()]


def by_class(net: Any, x: Any) -> Any:
    """The samples of one kind first."""
    order = (x[:, 0] > 0).long().argsort(stable=True)
    return net.b(net.a(x[order]).tanh())[order.argsort()]


@pytest.mark.parametrize("run", [by_norm, by_class])
@pytest.mark.parametrize("seed", range(6))
def test_a_forward_that_sorts_its_samples(run: Callable[..., Any], seed: int) -> None:
    """Whether or not the samples that it was tried on are in order already."""
    torch.manual_seed(0)
    module = Net(run, a=nn.Linear(6, 5), b=nn.Linear(5, 2)).double()
    x = np.random.default_rng(seed).normal(size=(9, 6))
    x = x[np.argsort(np.linalg.norm(x, axis=1))] if seed == 0 else x  # in order, all of them
    assert_within_budget(ub.ntk(module, x), ub.ntk(module, x, method="plain"))
    other = np.random.default_rng(seed + 100).normal(size=(9, 6))
    assert_within_budget(ub.ntk(module, x, other), ub.ntk(module, x, other, method="plain"))


def test_a_module_that_keeps_what_it_computed() -> None:
    def cached(net: Any, x: Any) -> Any:
        if getattr(net, "kept", None) is None or len(net.kept) != len(x):
            net.kept = net.a(x)
        return net.b(net.kept)

    torch.manual_seed(0)
    module = Net(cached, a=nn.Linear(6, 5), b=nn.Linear(5, 2)).double()
    expected = ub.ntk(module, X)
    assert getattr(module, "kept", None) is None
    module(torch.tensor(X[:3]))
    assert_within_budget(ub.ntk(module, X), expected)


def overwriting(net: Any, x: Any) -> Any:
    """What torch itself cannot go back through."""
    h = net.a(x).relu()
    h[:, 0] = 0
    return net.b(h.relu_())


def own_backward() -> Any:
    class Failing(torch.autograd.Function):
        """A function whose backward pass raises."""

        @staticmethod
        def forward(_context: Any, x: Any) -> Any:
            return 2 * x

        @staticmethod
        def backward(_context: Any, _errors: Any) -> Any:
            raise KeyError("nothing")

    return Failing


CALLS: dict[str, Callable[[Any], object]] = {
    "ntk": lambda module: ub.ntk(module, X),
    "plain": lambda module: ub.ntk(module, X, method="plain"),
    "spectrum": lambda module: ub.spectrum(module, x=X),
    "jacobian": lambda module: ub.jacobian(module, X),
    "check": lambda module: ub.check(module, X),
    "layer_kernels": lambda module: ub.layer_kernels(module, X),
    "products": lambda module: ub.ntk_operator(module, X) @ np.ones(7),
    "train": lambda module: ub.train(module, X, X[:, :2], loss="mse", epochs=1, progress=False),
    "signals": lambda module: ub.signal_report(module, X),
    "compare_models": lambda module: ub.compare_models(module, module, X),
    "from_torch": lambda module: ub.from_torch(module, X),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["written over", "own backward"])
def test_a_backward_pass_that_fails_is_said_to(name: str, kind: str) -> None:
    torch.manual_seed(0)
    function = own_backward()
    run = overwriting if kind == "written over" else (lambda net, x: net.b(function.apply(net.a(x))))
    module = Net(run, a=nn.Linear(6, 5), b=nn.Linear(5, 2)).double()
    with pytest.raises(errors.ConversionError, match=r"backward pass of the .* fails|cannot be") as raised:
        CALLS[name](module)
    assert "Hint" not in str(raised.value)


def test_layers_that_are_called_for_some_samples_alone() -> None:
    module = Net(lambda net, x: net.a(x) if x.sum() > 0 else net.b(x), a=nn.Linear(6, 3), b=nn.Linear(6, 3)).double()
    with pytest.raises(errors.ConversionError, match="calls a for some samples and not for others"):
        ub.compare_models(module, module, X)


def test_what_the_exporter_prints_of_its_own_workings_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    module = Net(lambda net, x: net.a(x) if x.sum() > 0 else net.b(x), a=nn.Linear(6, 3), b=nn.Linear(6, 3)).double()
    with pytest.raises(errors.ConversionError, match="cannot capture"):
        ub.from_torch(module, X)
    print("mine", file=sys.stderr)
    assert capfd.readouterr().err == "mine\n"


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_module_in_half_precision_is_held_to_its_own_rounding(half: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(getattr(torch, half))
    report = ub.check(module, X.astype(np.float32))
    assert report.ok, report
    assert report.dtype == half
    assert half in str(report)
    assert all(row.difference < 1e-1 for row in report.comparisons)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(3)), "has no shape yet"),
        (lambda: nn.Linear(6, 3, device="meta"), "meta device"),
        (lambda: Net(lambda net, x: x, w=nn.Parameter(torch.ones(2, dtype=torch.complex64))), "complex numbers"),
        (lambda: nn.Tanh(), "give a network with weights"),
        (lambda: nn.Linear(6, 3).requires_grad_(False), r"requires_grad_\(True\)"),
        (lambda: nn.Linear(6, 3).bfloat16(), "weight has dtype bfloat16. Allowed"),
    ],
    ids=["lazy", "meta", "complex", "none", "frozen", "half"],
)
def test_modules_that_have_no_graph(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(errors.ConversionError, match=words):
        ub.from_torch(make(), X.astype(np.float32))
