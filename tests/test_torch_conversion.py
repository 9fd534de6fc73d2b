"""PyTorch's modules as models and back, and kernels of modules without translation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from helpers import assert_within_budget
from udlbridge import errors

ALL = EVERY_LAYER | TOKENS


def on_torch(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.tensor(x)).numpy()


@pytest.mark.parametrize("name", ALL)
def test_to_torch_and_back(name: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x = batch(model, shape, 3)
    module = model.to_torch()
    expected = ub.outputs(model, x, backend="reference")
    assert_within_budget(on_torch(module, x), expected)
    again = ub.from_torch(module)
    assert_within_budget(ub.outputs(again, x, backend="reference"), expected)
    assert again.n_params == model.n_params
    kernel = ub.ntk(model, x, backend="reference")
    assert_within_budget(ub.ntk(again, x, backend="torch"), kernel)
    assert_within_budget(ub.ntk(module, x), kernel)


def test_to_torch_copies() -> None:
    model = ub.Model([ub.Dense(3, 2)], seed=1)
    module = model.to_torch()
    with torch.no_grad():
        module[0].weight.fill_(0)
    assert np.abs(model.params["0.weight"]).min() > 0


def everything() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), groups=2), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Identity(),
        nn.MaxPool2d(2, stride=1),
        nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3, padding="same", bias=False),
        nn.GroupNorm(2, 4),
        nn.AvgPool2d((2, 1), stride=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.LayerNorm(5),
        nn.LeakyReLU(),
        nn.Linear(5, 3),
        nn.LogSoftmax(dim=-1),
    )
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.dtype.is_floating_point:
                value.add_(0.2 * torch.rand_like(value))
    return module.double()


def test_from_torch(backend: str) -> None:
    module = everything().eval()
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 8))
    model = ub.from_torch(module)
    assert_within_budget(ub.outputs(model, x, backend=backend), on_torch(module, x))
    assert_within_budget(ub.ntk(model, x, outputs="full", backend=backend), ub.ntk(module, x, outputs="full"))


def test_names_of_a_flat_sequence_are_those_of_torch() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model = ub.from_torch(module)
    assert list(model.params) == list(module.state_dict())


def test_training_mode_is_refused_and_inference_can_be_asked_for() -> None:
    module = everything().train()
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 8))
    for call in (lambda: ub.from_torch(module), lambda: ub.ntk(module, x)):
        with pytest.raises(errors.ConversionError, match=r"0\.1 \(BatchNorm2d\).*batch.*module\.eval\(\)"):
            call()
    assert ub.from_torch(module, inference=True) == ub.from_torch(module.eval())
    with pytest.raises(errors.ConversionError, match=r"1 \(Dropout\) is active.*random"):
        ub.from_torch(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert ub.from_torch(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))).layers[1] == ub.Dropout(0.0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.relu(self.inner(x)))


REFUSED = {
    "unknown": (
        nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Bilinear(2, 2, 2))),
        r"1\.0: Bilinear has no trans.*ntk",
    ),
    "own forward": (Twice(), r"the module itself: Twice has no translation"),
    "softplus": (nn.Sequential(nn.Softplus(beta=2)), r"0: Softplus with.*beta.*2"),
    "softplus threshold": (
        nn.Sequential(nn.Linear(2, 2), nn.Softplus(threshold=1.0)),
        r"1: Softplus with.*threshold.*1\.0.*20",
    ),
    "softmax": (nn.Sequential(nn.Softmax(dim=1)), r"0: Softmax\(dim=1\).*dim=-1"),
    "padding": (nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")), r"0: Conv1d.*circular"),
    "ceil": (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), r"0: MaxPool2d with.*ceil_mode"),
    "adaptive": (nn.Sequential(nn.AdaptiveAvgPool2d(2)), r"0: AdaptiveAvgPool2d\(2\).*global mean"),
    "flatten": (nn.Sequential(nn.Flatten(2)), r"0: Flatten\(2, -1\)"),
    "statistics": (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)).eval(), r"0 \(BatchNorm1d\).*batch"),
    "not a module": ("resnet", r"from_torch got a str.*nn\.Module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_translated_is_named(name: str) -> None:
    module, words = REFUSED[name]
    with pytest.raises(errors.ConversionError, match=words):
        ub.from_torch(module)


def test_shared_parameters_are_refused_in_translation_and_right_without() -> None:
    linear = nn.Linear(3, 3).double()
    shared = nn.Sequential(linear, nn.Tanh(), linear)
    with pytest.raises(errors.ConversionError, match=r"2\.weight and 0\.weight are one shared parameter.*ntk"):
        ub.from_torch(shared)
    x = np.random.default_rng(0).standard_normal((4, 3))
    own = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    own[0].load_state_dict(linear.state_dict())
    own[2].load_state_dict(linear.state_dict())
    # The derivative by a shared weight is the sum of the two derivatives.
    blocks = ub.jacobian(ub.from_torch(own), x, backend="reference")
    total = [blocks["0.weight"] + blocks["2.weight"], blocks["0.bias"] + blocks["2.bias"]]
    expected = sum(np.einsum("iap,jap->ij", *[block.reshape(4, 3, -1)] * 2) for block in total)
    assert_within_budget(ub.ntk(shared, x), expected)


def test_a_module_without_parameters_may_be_used_twice() -> None:
    relu, norm = nn.ReLU(), nn.BatchNorm1d(5, affine=False).eval()
    norm.running_mean += 0.3
    inner = nn.Sequential(nn.Linear(5, 5), relu)
    module = nn.Sequential(nn.Linear(3, 5), relu, norm, inner, norm, relu, nn.Linear(5, 2)).double()
    model = ub.from_torch(module)
    assert [layer.kind for layer in model.layers].count("activation") == 3
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert_within_budget(ub.outputs(model, x, backend="reference"), on_torch(module, x))
    twice = nn.Sequential(inner, nn.Tanh(), inner)
    with pytest.raises(errors.ConversionError, match=r"2\.0\.weight and 0\.0\.weight are one shared parameter"):
        ub.from_torch(twice)


def test_frozen_parameters_are_refused_in_translation_and_left_out_without() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model = ub.from_torch(module)
    module[0].requires_grad_(False)
    with pytest.raises(errors.ConversionError, match=r"0\.weight is frozen.*params="):
        ub.from_torch(module)
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert_within_budget(ub.ntk(module, x), ub.ntk(model, x, params="readout", backend="reference"))


def test_hooks_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    module[0].register_forward_hook(lambda m, args, out: 2 * out)
    with pytest.raises(errors.ConversionError, match=r"0 \(Linear\) has forward hooks"):
        ub.from_torch(module)


def test_a_forward_of_an_instance_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Tanh()))
    for part, path in ((module[1], "1"), (module[1][0], r"1\.0"), (module, "the module itself")):
        part.forward = lambda z: z * 0
        with pytest.raises(errors.ConversionError, match=rf"^{path} \(\w+\) has a forward of its own"):
            ub.from_torch(module)
        del part.forward
    block = ub.Model([ub.Dense(2, 2), ub.Residual([ub.Dense(2, 2, "tanh")])]).to_torch()
    block[1].layers[1].forward = lambda z: z * 0
    with pytest.raises(errors.ConversionError, match=r"^1\.layers\.1 \(Tanh\) has a forward of its own"):
        ub.from_torch(block)


def broken(change: Callable[[nn.Sequential], object]) -> nn.Sequential:
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))
    change(module)
    return module


UNFIT = {
    "dropout": (broken(lambda m: m[1].append(nn.Dropout(1.0))).eval(), r"^1\.2: Dropout has p=1\.0"),
    "same": (nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), r'^0: Conv2d has padding="same"'),
    "eps": (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2, eps=0.0)).eval(), r"^1: BatchNorm has eps=0\.0"),
    "late": (broken(lambda m: m[1].append(nn.Embedding(5, 2))), r"^1\.2 is an Embedding.*first layer"),
    "chain": (broken(lambda m: m[1].append(nn.Linear(4, 2))), r"^1\.2 \(dense\) does not fit behind 1\.1: it gets 2"),
    "float16": (broken(lambda m: m[1].half()), r"^1\.1\.weight has dtype float16.*float32.*module\.float\(\)"),
    "bfloat16": (broken(lambda m: m.bfloat16()), r"^0\.weight has dtype bfloat16"),
    "mixed": (broken(lambda m: m[1].double()), r"^1\.1\.weight has dtype float64, 0\.weight float32"),
    "meta": (broken(lambda m: m[1].to("meta")), r"^1\.1\.weight is on the meta device.*load"),
    "nan": (broken(lambda m: nn.init.constant_(m[1][1].bias, float("nan"))), r"^1\.1\.bias is not finite"),
    "statistics": (
        broken(lambda m: m[1].append(nn.BatchNorm1d(2, dtype=torch.bfloat16))).eval(),
        r"^1\.2\.weight has dtype bfloat16",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_named_by_its_path(name: str) -> None:
    module, words = UNFIT[name]
    with pytest.raises(errors.ConversionError, match=words):
        ub.from_torch(module)


def test_a_module_in_blocks_has_the_same_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = np.random.default_rng(0).standard_normal((7, 3))
    whole = {outputs: ub.ntk(module, x, x[:5], outputs=outputs) for outputs in (1, "mean", "sum", "diagonal", "full")}
    monkeypatch.setattr("udlbridge.backends.pytorch_modules.MEMORY", 26 * 2 * 8 * 6)
    for outputs, kernel in whole.items():
        assert_within_budget(ub.ntk(module, x, x[:5], outputs=outputs), kernel)
    assert_within_budget(ub.ntk(module, x), ub.ntk(module, x, x))


def test_modules_and_options() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(errors.OptionError, match=r"backend='julia'.*from_torch"):
        ub.ntk(module, x, backend="julia")
    with pytest.raises(errors.DTypeError, match=r"float64.*module has float32"):
        ub.ntk(module, x.astype(np.float64))
    with pytest.raises(errors.OptionError, match=r"a str in the place of the model"):
        ub.ntk("module", x)
    with pytest.raises(errors.ParameterError, match=r"'1\.\*' matches no parameter.*0\.weight"):
        ub.ntk(module, x, params="1.*")
