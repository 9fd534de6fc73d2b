"""Training of modules: against the same network as a `Model`, against torch's own loop, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

import strangers
import udlbridge as ub
from helpers import assert_within_budget
from modules import build
from udlbridge import errors

GENERATOR = np.random.default_rng(0)
X, LABELS = GENERATOR.standard_normal((12, 3)), GENERATOR.integers(0, 2, 12)
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 5, "optimizer": ("adam", {"lr": 0.05})}


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "rmsprop"])
def test_a_module_takes_the_steps_of_the_same_network_as_a_model(optimizer: str) -> None:
    module = chain()
    settings = {**SETTINGS, "optimizer": (optimizer, {"lr": 0.05}), "clip_norm": 0.5}
    run = ub.train(module, X, LABELS, **settings, validation=(X[:4], LABELS[:4]))
    model = ub.from_torch(module)
    expected = ub.train(model, X, LABELS, **settings, backend="reference", validation=(X[:4], LABELS[:4]))
    assert_within_budget(run.losses, expected.losses)
    assert run.errors == expected.errors
    for one, other in zip(run.model.params.values(), expected.model.params.values(), strict=True):
        assert_within_budget(one, other)
    assert_within_budget(ub.outputs(run.model, X), ub.outputs(expected.model, X, backend="reference"))


def test_the_module_is_not_changed_and_a_trained_copy_is_in_the_run() -> None:
    module = chain()
    before = copy.deepcopy(module.state_dict())
    run = ub.train(module, X, LABELS, **SETTINGS, checkpoints=[0, 1])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    trained = run.model.module
    assert type(trained) is nn.Sequential
    assert not torch.equal(trained[0].weight, module[0].weight)
    assert trained[0].weight.requires_grad
    np.testing.assert_array_equal(ub.outputs(run.checkpoints[0], X), ub.outputs(module, X))
    np.testing.assert_array_equal(trained(torch.tensor(X)).detach().numpy(), ub.outputs(run.model, X))


@pytest.mark.costly("tied")
@pytest.mark.parametrize("name", ["lstm", "tied", "sparse"])
def test_the_steps_are_those_of_a_loop_by_hand(name: str) -> None:
    module, x = build(name, 8)
    y = np.random.default_rng(0).standard_normal((8, module(torch.tensor(x)).flatten(1).shape[1]))
    # By its usual eps of 1e-8, Adam makes steps of what rounding leaves of gradients that are 0, as of a bias of keys.
    settings = {"lr": 0.01, "eps": 0.1}
    run = ub.train(module, x, y, epochs=4, loss="mse", optimizer=("adam", settings))
    own = copy.deepcopy(module)
    for part in own.modules():
        if isinstance(part, nn.Embedding):
            part.sparse = False  # torch's Adam takes no sparse gradients
    optimiser = torch.optim.Adam(own.parameters(), **settings)
    for _ in range(4):
        optimiser.zero_grad()
        F.mse_loss(own(torch.tensor(x)).flatten(1), torch.tensor(y)).backward()
        optimiser.step()
    for parameter, value in own.named_parameters():
        assert_within_budget(run.model.params[parameter], value.detach().numpy())


def test_a_run_goes_on_bit_for_bit_and_its_file_needs_the_module(tmp_path: Path) -> None:
    module, file = chain(), tmp_path / "run.safetensors"
    whole = ub.train(module, X, LABELS, **SETTINGS)
    ub.train(module, X, LABELS, **{**SETTINGS, "epochs": 1}, save_to=file)
    run = ub.train(module, X, LABELS, **SETTINGS, resume=file)
    np.testing.assert_array_equal(run.losses, whole.losses)
    for name, value in whole.model.params.items():
        np.testing.assert_array_equal(run.model.params[name], value)
    with pytest.raises(errors.RunFileError, match=r"run of a PyTorch module \(Sequential\).*model=module"):
        ub.TrainingRun.load(file)
    with pytest.raises(errors.RunFileError, match="same class"):
        ub.TrainingRun.load(file, model=nn.Linear(3, 2))
    loaded = ub.TrainingRun.load(file, model=chain())
    assert_within_budget(ub.outputs(loaded.model, X), ub.outputs(ub.TrainingRun.load(file, model=module).model, X))
    other = chain()
    with torch.no_grad():
        other[0].bias += 1
    with pytest.raises(errors.RunFileError, match="start"):
        ub.train(other, X, LABELS, **SETTINGS, resume=file)


def test_several_inputs_one_of_several_outputs_and_measurements() -> None:
    module, x = strangers.language_model(), strangers.inputs("language_model", 6)
    labels = np.array([0, 1, 2, 3, 4, 5])

    def last(found: Any) -> Tensor:
        return found.logits[:, -1]

    run = ub.train(module, x, labels, epochs=20, optimizer=("adam", {"lr": 0.02}), output=last)
    assert run.losses[-1] < 0.3 * run.losses[0]
    loss, gradient = ub.loss_gradient(module, x, labels, output=last)
    assert loss == pytest.approx(run.losses[0], rel=1e-6)
    assert set(gradient) == set(dict(module.named_parameters()))
    tagger, tokens = strangers.tagger(), strangers.inputs("tagger", 6)
    probe = ub.Probe(tokens, every=2, quantities=("ntk_change",))
    run = ub.train(tagger, tokens, labels % 3, epochs=4, optimizer=("sgd", {"lr": 0.5}), callbacks=[probe])
    assert run.records["probe"]["ntk_change"][-1] > 0


def test_frozen_parameters_and_rates_by_name() -> None:
    module = chain()
    module[0].requires_grad_(False)
    run = ub.train(module, X, LABELS, **SETTINGS, lr_groups={"2.bias": 0.0})
    assert set(run.model.params) == {"2.weight", "2.bias"}
    np.testing.assert_array_equal(run.model.module[0].weight.numpy(), module[0].weight.numpy())
    np.testing.assert_array_equal(run.model.params["2.bias"], module[2].bias.detach().numpy())


def test_probabilities_are_known_from_the_graph() -> None:
    net, x = strangers.net().double(), strangers.inputs("net", 8).astype(np.float64)
    labels = np.arange(8) % 3
    assert ub.as_network(net).check_training() is None
    loss, _ = ub.loss_gradient(net, x, labels, loss="nll")
    assert loss == pytest.approx(F.nll_loss(net(torch.tensor(x)), torch.tensor(labels)).item(), rel=1e-12)
    with pytest.raises(errors.OptionError, match=r"applies sigmoid.*log-probabilities already: Net ends in LogSoftmax"):
        ub.train(net, x, np.eye(3)[labels], epochs=1, loss="binary_cross_entropy")
    soft = nn.Sequential(chain(), nn.Softmax(dim=1))
    with pytest.raises(errors.OptionError, match=r"applies softmax.*Sequential ends in Softmax"):
        ub.train(soft, X, LABELS, epochs=1)
    for module in (soft, chain()):
        with pytest.raises(errors.OptionError, match=r"not log-probabilities"):
            ub.train(module, X, LABELS, epochs=1, loss="nll")


def test_slopes() -> None:
    module = chain()
    slopes = np.random.default_rng(1).standard_normal((12, 2, 3))
    y = np.random.default_rng(2).standard_normal((12, 2))
    loss = ub.losses.sobolev(slopes, weight=0.3)
    found, gradient = ub.loss_gradient(module, X, y, loss=loss)
    expected, wanted = ub.loss_gradient(ub.from_torch(module), X, y, loss=loss, backend="reference")
    assert found == pytest.approx(expected, rel=1e-12)
    for one, other in zip(gradient.values(), wanted.values(), strict=True):
        assert_within_budget(one, other)


def test_what_cannot_be_trained() -> None:
    with pytest.raises(errors.ConversionError, match=r"weight has dtype bfloat16, and is to be trained"):
        ub.train(nn.Linear(3, 2).to(torch.bfloat16), X.astype(np.float32), LABELS, epochs=1)
    with pytest.raises(errors.OptionError, match=r"linearized=True with a module"):
        ub.train(chain(), X, LABELS, epochs=1, linearized=True)
    with pytest.raises(errors.OptionError, match=r"backend='reference' for a torch.nn.Module"):
        ub.train(chain(), X, LABELS, epochs=1, backend="reference")
    with pytest.raises(errors.OptionError, match="output=0 with a Model"):
        ub.train(ub.from_torch(chain()), X, LABELS, epochs=1, output=0)


@torch.no_grad()
def test_a_caller_without_gradients_trains_too() -> None:
    with torch.inference_mode():
        run = ub.train(chain(), X, LABELS, **SETTINGS)
    assert len(run.losses) == 9


def test_a_run_of_a_model_is_not_that_of_a_module(tmp_path: Path) -> None:
    model = ub.Model([ub.Dense(3, 2)])
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    ub.train(model, x, np.arange(6) % 2, epochs=1, backend="reference", progress=False).save(tmp_path / "r.safetensors")
    path = tmp_path / "r.safetensors"
    assert ub.TrainingRun.load(path, model=model).epochs == 1
    for other in (ub.to_torch(model), ub.Model([ub.Dense(3, 3)])):
        with pytest.raises(errors.RunFileError, match="is a run of a Model, and model= is"):
            ub.TrainingRun.load(path, model=other)
