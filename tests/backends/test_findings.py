"""What is kept of a module from one kernel to the next: what it saves, and that nothing of it is believed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub
from helpers import assert_within_budget
from modules import NETWORKS, build
from udlbridge import errors
from udlbridge.backends.pytorch import findings, module_sites

FLAT = np.random.default_rng(0).standard_normal((5, 3))


def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets longer whenever sites are looked for without anything to go by."""
    seen: list[str] = []
    recipe = module_sites.recipe

    def counting(*args: object) -> object:
        seen.append("anew")
        return recipe(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module_sites, "recipe", counting)
    return seen


@pytest.mark.costly("volume", "vision", "norms", "unet", "frames", "functional")
@pytest.mark.parametrize("name", NETWORKS)
def test_other_weights_and_samples_have_kernels_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = build(name)
    anew = looked(monkeypatch)
    ub.ntk(module, x)
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(1.1).add_(0.01)
    ub.ntk(module, x[::-1].copy())
    assert len(anew) == 1
    found = ub.ntk(module, x[::-1].copy(), outputs="full")
    assert_within_budget(found, ub.ntk(module, x[::-1].copy(), outputs="full", method="plain"))
    assert len(anew) == 1


def test_each_selection_of_parameters_and_each_shape_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    anew = looked(monkeypatch)
    for _ in range(2):
        for params in (None, "0.*", "readout"):
            for x in (FLAT, FLAT[:, None]):
                assert_within_budget(ub.ntk(module, x, params=params), ub.ntk(module, x, params=params, method="plain"))
    assert len(anew) == 6


class Gated(nn.Module):
    """What a gate lets through mixes samples: in the outputs, or in their derivatives alone."""

    def __init__(self, mixed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.mixed = mixed
        self.register_buffer("gate", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return y + self.gate * self.mixed(y)


@pytest.mark.parametrize(
    "mixed", [lambda y: y.mean(0), lambda y: y.mean(0) - y.mean(0).detach()], ids=["outputs", "derivatives"]
)
def test_samples_that_touch_each_other_later_are_refused(mixed: Callable[[Tensor], Tensor]) -> None:
    module = Gated(mixed).double()
    ub.ntk(module, FLAT)
    module.gate.fill_(1.0)
    with pytest.raises(errors.ConversionError, match=r"depends? on (the )?other samples"):
        ub.ntk(module, FLAT)


class Prepared(nn.Module):
    """Samples pass through a function before any parameter, so that no graph shows what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.prepared: Callable[[Tensor], Tensor] = torch.sin
        self.after: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.prepared(x)))


MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x - x.mean(0),
    "largest": lambda x: x / x.abs().amax(),
    "earlier": lambda x: x.cumsum(0),
    "later": lambda x: x.flip(0).cumsum(0).flip(0),
    "first": lambda x: x - x[:1],
    "last": lambda x: x - x[-1:],
    "turned": lambda x: x - x.roll(1, 0),
    "softmax": lambda x: x.softmax(0),
}


MUCH = np.random.default_rng(0).standard_normal((40, 3))


@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("x", [FLAT, MUCH], ids=len)
def test_samples_that_touch_each_other_later_outside_of_the_graph_are_refused(x: np.ndarray, mixed: str) -> None:
    module = Prepared().double()
    ub.ntk(module, x)
    module.prepared = MIXED[mixed]
    for method in ("structured", "plain"):
        with pytest.raises(errors.ConversionError, match=r"sample \d+ depends on the other samples"):
            ub.ntk(module, x, method=method)
    module.prepared = torch.sin
    module.after = MIXED[mixed]
    with pytest.raises(errors.ConversionError, match=r"sample \d+ depends on the other samples"):
        ub.ntk(module, x, x[:3])


def test_two_samples_are_seen_among_many_in_place_of_each_alone() -> None:
    module, passed = Prepared().double(), []
    module.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    for known in (False, True):
        passed.clear()
        found = ub.ntk(module, MUCH)
        assert passed == ([2, len(MUCH)] if known else [3, 1, 1, 1, 2, 8, len(MUCH)])
    passed.clear()
    assert_within_budget(found, ub.ntk(module, MUCH, method="plain"))
    assert passed[:3] == [2, 1, 1]
    passed.clear()
    ub.outputs(module, MUCH)
    assert passed[:3] == [2, 1, 1]


def test_random_outputs_are_refused_where_they_are_seen_among_many() -> None:
    module, generator = Prepared().double(), np.random.default_rng(0)
    ub.ntk(module, MUCH)
    module.prepared = lambda x: x * generator.uniform()
    with pytest.raises(errors.ConversionError, match="draws random numbers"):
        ub.ntk(module, MUCH)


def test_weights_that_another_thread_changes_meanwhile_are_no_sign_of_others() -> None:
    module = Prepared().double()
    ub.ntk(module, MUCH)
    network = ub.as_network(module)
    x = network.checked_passing(MUCH, "x")
    with torch.no_grad():
        module.inner.weight.mul_(2.0)
    params = network.tensors("cpu")
    y, _ = network.evaluate(params, network.inputs(x, "cpu"))
    network.check_passed(x, y, params)
    with pytest.raises(errors.ConversionError, match="depends on the other samples"):
        network.check_passed(x, y + y.flip(0), params)


def test_what_is_known_is_tried_on_two_samples_and_what_is_another_graph_on_three() -> None:
    module, passed = Prepared().double(), []
    module.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    tried = []
    for module.after in (torch.tanh, torch.tanh, torch.sigmoid, torch.sigmoid):
        passed.clear()
        found = ub.ntk(module, FLAT)
        tried.append(passed[: passed.index(len(FLAT))])
        assert_within_budget(found, ub.ntk(module, FLAT, method="plain"))
    anew, again = [3, 1, 1, 1, 2, 8], [2, 1, 1]
    assert tried == [anew, again, [2, *anew], again]


class Ordered(nn.Module):
    """Rows of a map: all of a sample one after the other, or all samples at one place; three of each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.samples_first = True

    def forward(self, x: Tensor) -> Tensor:
        n, places, width = x.shape
        if self.samples_first:
            return torch.tanh(self.inner(x.reshape(n * places, width))).view(n, places, 2).sum(1)
        return torch.tanh(self.inner(x.transpose(0, 1).reshape(n * places, width))).view(places, n, 2).sum(0)


def test_samples_that_stand_elsewhere_later_are_found_there() -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 3))
    module = Ordered().double()
    for module.samples_first in (True, False, True):
        assert_within_budget(ub.ntk(module, x), ub.ntk(module, x, method="plain"))


def test_other_layers_in_the_same_place_are_found() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: module.__setitem__(2, nn.Linear(3, 3).double()),
        lambda: setattr(module[2], "weight", module[0].weight),
        lambda: module[0].requires_grad_(False),
        lambda: module.__setitem__(1, nn.Sigmoid()),
        lambda: module[0].requires_grad_(True),
        lambda: module.float(),
        lambda: module.double(),
    ]
    for change in changes:
        change()
        x = FLAT.astype(np.float32) if module[0].weight.dtype == torch.float32 else FLAT
        found, plain = ub.ntk(module, x), ub.ntk(module, x, method="plain")
        np.testing.assert_allclose(found, plain, rtol=0, atol=(1e-5 if x is not FLAT else 1e-12) * plain.max())


def test_a_convolution_that_becomes_a_transposed_one_with_the_same_weights() -> None:
    module = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()).double()
    x = np.random.default_rng(0).standard_normal((4, 2, 5))
    ub.ntk(module, x)
    turned = nn.ConvTranspose1d(2, 2, 3, padding=1).double()
    turned.weight, turned.bias = module[0].weight, module[0].bias
    module[0] = turned
    assert_within_budget(ub.ntk(module, x), ub.ntk(module, x, method="plain"))


class Choosing(nn.Module):
    """One of two layers for all samples of a batch, by how many there are: the trial has few."""

    def __init__(self) -> None:
        super().__init__()
        self.few, self.many = nn.Linear(3, 3), nn.Linear(3, 3)
        self.read = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.few if len(x) < 4 else self.many
        return self.read(torch.tanh(layer(x)))


def test_a_graph_with_other_parameters_in_the_same_places_is_refused() -> None:
    with pytest.raises(errors.ConversionError, match="in another way for some of the samples"):
        ub.ntk(Choosing().double(), FLAT)


def test_a_module_that_writes_to_its_parameters_is_evaluated_where_none_is_followed() -> None:
    class Clamping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.inner.bias.clamp_(-0.1, 0.1)
            return self.inner(x)

    module = Clamping().double()
    before = module.inner.bias.detach().clone()
    assert ub.outputs(module, FLAT).shape == (5, 2)
    assert torch.equal(module.inner.bias, before)


def test_it_goes_with_the_module() -> None:
    module = nn.Linear(3, 2).double()
    ub.ntk(module, FLAT)
    assert module in findings._kept
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_not_more_than_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "MOST", 2)
    module = nn.Linear(3, 2).double()
    for places in (1, 2, 3):
        ub.ntk(module, FLAT[:, None].repeat(places, 1))
    assert len(findings._kept[module]) == 2
