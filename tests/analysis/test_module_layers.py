"""What the modules inside a module give: features, alignments, sizes of signals, and two networks step by step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

import strangers
import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from modules import build
from udlbridge import errors

X = np.random.default_rng(0).standard_normal((7, 3))
TARGET = ub.label_kernel(np.eye(3)[np.arange(7) % 3])


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2)).double()


def test_features_of_a_chain_are_those_of_the_same_network_as_a_model() -> None:
    module, model = chain(), ub.from_torch(chain())
    for layer in (-1, -2, 0, 2):
        expected = ub.features(model, X, layer=layer, backend="reference")
        assert_within_budget(ub.features(module, X, layer=layer), expected)
        assert_within_budget(ub.features(module, X, layer=str(layer % 5)), expected)
    assert_within_budget(np.asarray(ub.feature_kernel(module, X)), np.asarray(ub.feature_kernel(model, X)))
    found = ub.layer_alignments(module, X, TARGET)
    assert list(found) == ["0", "1", "2", "3", "4"]
    assert_within_budget(np.array(list(found.values())), ub.layer_alignments(model, X, TARGET, backend="reference"))
    report, expected = ub.signal_report(module, X), ub.signal_report(model, X, backend="reference")
    assert [row.kind for row in report.rows] == ["Linear", "Tanh", "Linear", "Sigmoid", "Linear"]
    np.testing.assert_allclose(report.activation_std, expected.activation_std, rtol=1e-12)
    np.testing.assert_allclose(report.gradient_std, expected.gradient_std, rtol=1e-12)
    for one, other in (
        (ub.similarity_map(module, model, X, "rsa"), ub.similarity_map(model, module, X, "rsa")),
        (ub.similarity_map(module, module, X), ub.similarity_map(model, model, X)),
    ):
        np.testing.assert_allclose(one.values, other.values.T, rtol=1e-12, atol=1e-12)


def test_samples_come_first_wherever_they_stand() -> None:
    """Frames are folded into the batch, and sequences come first, in the middle of the network."""
    module, x = build("frames")
    seen: dict[str, Tensor] = {}
    for name in ("conv", "attend", "gate"):
        getattr(module, name).register_forward_hook(
            lambda part, args, out, name=name: seen.update({name: out[0] if isinstance(out, tuple) else out})
        )
    module(torch.tensor(x))
    n, frames = len(x), x.shape[1]
    expected = {
        "conv": seen["conv"].reshape(n, -1),
        "attend": seen["attend"].transpose(0, 1).reshape(n, -1),
        "gate": seen["gate"].reshape(frames, n, -1).transpose(0, 1).reshape(n, -1),
    }
    for name, value in expected.items():
        assert_within_budget(ub.features(module, x, layer=name), value.detach().numpy())
        assert_within_budget(ub.features(module, x[:1], layer=name), value[:1].detach().numpy())


def test_layers_are_named_by_path_and_call() -> None:
    module, x = build("reused")
    h = torch.tensor(x)
    expected = module.first(torch.sin(module.first(torch.tanh(module.first(h)))))
    assert list(ub.layer_alignments(module, x, np.eye(len(x)))) == ["first", "first#2", "first#3", "read"]
    assert_within_budget(ub.features(module, x, layer="first#3"), expected.detach().numpy())
    tied, tokens = build("tied", 6)
    names = list(ub.layer_alignments(tied, tokens, np.eye(6)))
    assert "positions" not in names  # it is the same for all samples
    assert names[0] == "tokens"
    block = ub.features(tied, tokens, layer="block")  # which holds others
    assert block.shape == (6, 5 * 4)
    for layer in ("nowhere", "positions", 99, "first#4"):
        with pytest.raises(errors.OptionError, match="layer="):
            ub.features(tied, tokens, layer=layer)


def test_a_layer_that_is_written_over_in_place_is_what_it_gave() -> None:
    module, x = build("resnet")
    states = {name: value.clone() for name, value in module.state_dict().items()}
    resnet = module[0]
    first = resnet.stages[0]
    given = first.n(first.a(resnet.stem(torch.tensor(x)))).flatten(1).detach().numpy()
    assert given.min() < 0  # a ReLU writes to it
    assert_within_budget(ub.features(module, x, layer="0.stages.0.n"), given)
    assert all(torch.equal(value, states[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())


def test_signals_of_a_module_are_those_of_hooks() -> None:
    module, x = strangers.net().double(), strangers.inputs("net", 6).astype(np.float64)
    y = np.random.default_rng(0).standard_normal((6, 3))
    seen: dict[str, Tensor] = {}
    own = copy.deepcopy(module)

    def noted(name: str, out: Tensor) -> None:
        out.retain_grad()
        seen[name] = out

    for name, part in own.named_children():
        part.register_forward_hook(lambda part, args, out, name=name: noted(name, out))
    ((own(torch.tensor(x)) - torch.tensor(y)) ** 2).sum().backward()
    report = ub.signal_report(module, x, y)
    assert [row.layer for row in report.rows] == ["conv1", "conv2", "dropout", "fc1", "fc2"]
    for row in report.rows:
        value = seen[str(row.layer)]
        assert row.activation_std == pytest.approx(float(value.detach().numpy().std()), rel=1e-12)
        assert value.grad is not None
        assert row.gradient_std == pytest.approx(float(value.grad.numpy().std()), rel=1e-12)
    assert "conv1" in str(report)
    assert report.to_dict()["rows"][0]["kind"] == "Conv2d"


def test_several_inputs_and_one_of_several_outputs() -> None:
    module, x = strangers.language_model().double(), strangers.inputs("language_model", 6)
    logits = ub.features(module, x, layer="lm_head", output="logits")
    np.testing.assert_array_equal(logits, ub.outputs(module, x, output="logits"))
    assert "h.0.c_attn" in ub.layer_alignments(module, x, np.eye(6), output="logits")
    assert len(ub.signal_report(module, x, output="logits").rows) > 10
    found = ub.similarity_map(module, module, x, output="logits", output2=0)
    np.testing.assert_allclose(np.diag(found.values), 1.0, rtol=1e-12)


def test_the_port_of_a_module_that_forgot_something_parts_where_it_did() -> None:
    module, x = strangers.net().double(), strangers.inputs("net", 4).astype(np.float64)
    same = ub.compare_models(module, copy.deepcopy(module), x)
    assert same.ok
    assert [step.first for step in same.steps][:2] == ["conv1 (Conv2d)", "conv2 (Conv2d)"]
    port = copy.deepcopy(module)
    with torch.no_grad():
        port.conv2.weight.copy_(port.conv2.weight.flip(2, 3))
    report = ub.compare_models(module, port, x)
    assert not report.ok
    assert report.parted == 1
    assert any("weight differs" in hint and "flipped" in hint for hint in report.hints)
    assert "conv2 (Conv2d)  " in str(report)


class Own(nn.Module):
    """A chain as a class, which has no translation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = chain()

    def forward(self, x: Tensor) -> Any:
        return {"y": F.dropout(self.layers(x), 0.5, False)}


def test_a_module_against_a_model() -> None:
    model = ub.from_torch(chain())
    report = ub.compare_models(chain(), model, X)
    assert report.ok
    assert len(report.steps) == 5
    other = model.with_params({**model.params, "2.bias": model.params["2.bias"] + 1})
    assert ub.compare_models(other, chain(), X, backend="reference").parted == 2
    report = ub.compare_models(Own(), model, X, output="y")
    assert report.ok
    assert [step.first for step in report.steps][:2] == ["layers.0 (linear)", "layers.1 (tanh)"]
    assert (report.parted, report.hints) == (None, ())
    with pytest.raises(errors.OptionError, match="output='y' with a Model"):
        ub.compare_models(model, model, X, output="y")
    with pytest.raises(errors.DTypeError):
        ub.compare_models(chain().float(), model, X)


@pytest.mark.slow
def test_two_modules_at_the_command_line() -> None:
    name = f"{strangers.__file__}:net"
    words = ("--model", name, "--shape", "1,10,10", "--n", 3)
    done = udlbridge("check", *words, "--against", name)
    assert done.returncode == 0, done.stderr
    assert "fc1 (Linear)" in done.stdout
