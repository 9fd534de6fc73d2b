"""What `check` says of a module: ways against each other, a translation against engines, and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strangers
import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from modules import build
from udlbridge import errors

X = np.random.default_rng(0).standard_normal((4, 3))


def methods(report: Any) -> set[tuple[str, str, str]]:
    return {(row.quantity, row.first, row.second) for row in report.comparisons}


@pytest.mark.costly("resnet")
@pytest.mark.parametrize("name", ["resnet", "tied", "lstm", "own function", "frames"])
def test_the_ways_of_a_module_agree(name: str) -> None:
    module, x = build(name)
    report = ub.check(module, x, backends=["torch"])
    assert report.ok, str(report)
    assert report.engines == ("structured", "plain", "differences")
    assert ("full NTK", "structured", "plain") in methods(report)
    assert ("J w", "plain", "differences") in methods(report)
    assert "agree" in str(report)


def test_a_chain_is_translated_for_the_other_engines() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    report = ub.check(module, X, backends=["torch", "reference"])
    assert report.ok, str(report)
    for quantity, method in (("outputs", "structured"), ("full NTK", "plain"), ("input jacobian", "plain")):
        assert (quantity, method, "reference") in methods(report)
    assert report.versions.keys() >= {"torch"}
    assert "reference" in ub.check(module, X).engines


@pytest.mark.slow
def test_a_forward_of_its_own_is_compared_as_a_graph() -> None:
    module, x = build("resnet")
    report = ub.check(module, x, backends=["torch", "reference"])
    assert report.ok, str(report)
    for quantity, method in (("outputs", "structured"), ("full NTK", "plain"), ("input jacobian", "plain")):
        assert (quantity, method, "reference") in methods(report)
    assert "reference" in ub.check(module, x).engines


@pytest.mark.slow
def test_a_module_without_a_translation_says_why() -> None:
    module, x = build("bag of sums")
    report = ub.check(module, x)
    assert report.ok, str(report)
    assert "no translation" in report.skipped["reference"]
    assert "no translation" in str(report)
    with pytest.raises(errors.ConversionError):
        ub.check(module, x, backends=["torch", "reference"])
    report = ub.check(strangers.language_model(), strangers.inputs("language_model", 3), output="logits")
    assert report.ok, str(report)
    assert "reference" in report.engines  # an output of several crosses too


class Lying(torch.autograd.Function):
    """A backward that is not that of the forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:  # type: ignore[override]
        return d


def test_a_backward_that_is_another_functions_is_found() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return Lying.apply(self.inner(x))

    report = ub.check(Net().double(), X, backends=["torch"])
    assert not report.ok
    assert [row.quantity for row in report.comparisons if not row.ok] == ["J w"]
    # A graph would have the forward alone, whose derivatives are others than the module's.
    alone = ub.check(Net().double(), X)
    assert [row.quantity for row in alone.comparisons if not row.ok] == ["J w"]
    assert "backward passes of its own: Lying" in alone.skipped["reference"]


class RoundedNorm(nn.Module):
    """A norm that is taken in single precision whatever it gets, as models of language have it."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def test_differences_say_nothing_of_a_forward_pass_that_rounds() -> None:
    torch.manual_seed(0)
    report = ub.check(nn.Sequential(nn.Linear(3, 8), RoundedNorm(), nn.Linear(8, 2)).double(), X, backends=["torch"])
    assert report.ok, str(report)
    assert "J w" not in {row.quantity for row in report.comparisons}
    assert "rounds to less than float64" in report.skipped["differences"]


class LyingNorm(RoundedNorm):
    def forward(self, x: Tensor) -> Tensor:
        return Lying.apply(super().forward(x))


def test_a_wrong_backward_is_found_behind_rounding_too() -> None:
    torch.manual_seed(0)
    report = ub.check(nn.Sequential(nn.Linear(3, 8), LyingNorm(), nn.Linear(8, 2)).double(), X, backends=["torch"])
    assert [row.quantity for row in report.comparisons if not row.ok] == ["J w"]


def test_the_row_of_a_padding_token_does_not_move_among_the_differences() -> None:
    class Padded(nn.Module):
        """Torch gives the row no gradient, though the outputs depend on it; where it is read it has one."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(5, 4, padding_idx=0)
            self.again = nn.Embedding(5, 4, padding_idx=0)
            self.again.weight = self.tokens.weight
            nn.init.normal_(self.tokens.weight)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.tokens(x) + self.again(x.flip(1))).mean(1) @ self.tokens.weight.T

    report = ub.check(Padded().double(), np.random.default_rng(0).integers(0, 5, (4, 6)))
    assert report.ok, str(report)
    assert "J w" in {row.quantity for row in report.comparisons}


def test_differences_of_a_float32_module_are_taken_in_float64() -> None:
    module, x = strangers.net(), strangers.inputs("net", 3)
    report = ub.check(module, x)
    assert report.ok, str(report)
    (row,) = [row for row in report.comparisons if row.quantity == "J w"]
    assert row.difference < 1e-7


def test_a_module_that_insists_on_its_dtype_is_checked_without_differences() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.float())

    report = ub.check(Stubborn(), X.astype(np.float32))
    assert report.ok
    assert "float64" in report.skipped["differences"]


@pytest.mark.costly("unet", "language_model", "tagger")
@pytest.mark.parametrize("name", ["net", "language_model", "unet", "tagger"])
def test_a_strangers_module_at_the_command_line(name: str, tmp_path: Any) -> None:
    x = strangers.inputs(name)
    file = tmp_path / ("x.npz" if isinstance(x, dict) else "x.npy")
    np.savez(file, **x) if isinstance(x, dict) else np.save(file, x)
    output = ["--output", "logits"] if name == "language_model" else []
    done = udlbridge("check", "--model", f"{strangers.__file__}:{name}", "--samples", file, "--n", 4, *output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "structured" in done.stdout


def test_a_copy_with_other_parameters_or_in_another_dtype() -> None:
    module = strangers.tagger()
    x = strangers.inputs("tagger")
    module(torch.tensor(x))  # its last state is no leaf, which cannot be copied deeply
    network = ub.as_network(module)
    double = network.astype("float64")
    assert ub.ntk(double, x).dtype == np.float64
    assert_within_budget(ub.ntk(module, x), ub.ntk(double, x).astype(np.float32))
    moved = network.with_params({name: 2 * value for name, value in network.params.items()})
    assert moved.module is not module
    np.testing.assert_array_equal(moved.params["lstm.bias_ih_l0"], 2 * module.lstm.bias_ih_l0.detach().numpy())
    np.testing.assert_array_equal(network.params["lstm.bias_ih_l0"], module.lstm.bias_ih_l0.detach().numpy())
    tied = ub.as_network(build("tied")[0]).astype("float32").module
    assert tied.head.weight is tied.tokens.weight
    with pytest.raises(errors.ParameterError, match="missing"):
        network.with_params({})
