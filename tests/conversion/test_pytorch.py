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
    module = ub.to_torch(model)
    expected = ub.outputs(model, x, backend="reference")
    assert_within_budget(on_torch(module, x), expected)
    again = ub.from_torch(module)
    assert_within_budget(ub.outputs(again, x, backend="reference"), expected)
    assert again.n_params == model.n_params
    kernel = ub.ntk(model, x, backend="reference")
    assert_within_budget(ub.ntk(again, x, backend="torch"), kernel)
    assert_within_budget(ub.ntk(module, x), kernel)


def test_zeros_on_one_side_alone_cross_both_ways() -> None:
    """torch pads an even kernel's "same" behind; a layer with such padding becomes a module that torch has not."""
    module = nn.Sequential(nn.Conv2d(1, 2, (2, 3), padding="same"), nn.ReLU(), nn.Flatten()).double()
    x = torch.randn(3, 1, 4, 5, dtype=torch.float64)
    model = ub.from_torch(module)
    assert model.layers[0].padding == ((0, 1), (1, 1))
    own = ub.outputs(model, x.numpy(), backend="reference")
    np.testing.assert_allclose(own, module(x).detach(), rtol=0, atol=1e-14)
    again = ub.to_torch(model)
    np.testing.assert_allclose(again(x).detach(), module(x).detach(), rtol=0, atol=1e-14)
    assert ub.from_torch(again) == model


def test_to_torch_copies() -> None:
    model = ub.Model([ub.Dense(3, 2)], seed=1)
    module = ub.to_torch(model)
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


@pytest.mark.parametrize("cls", [nn.Softmax, nn.LogSoftmax])
def test_a_softmax_over_axis_one_of_vectors_is_one_over_the_last(cls: type[nn.Module]) -> None:
    parts = [nn.Conv1d(2, 3, 2), nn.Dropout1d(0.3), nn.Tanh(), nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), cls(dim=1)]
    module = nn.Sequential(*parts).double().eval()
    x = np.random.default_rng(0).standard_normal((3, 2, 4))
    assert_within_budget(ub.outputs(ub.from_torch(module), x, backend="reference"), on_torch(module, x))
    with pytest.raises(errors.ConversionError, match=rf"1: {cls.__name__}\(dim=1\).*after a Flatten"):
        ub.from_torch(nn.Sequential(nn.Linear(4, 4), cls(dim=1), nn.Flatten()))


@pytest.mark.parametrize("cls", [nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout])
def test_every_dropout_is_the_identity_in_inference(cls: type[nn.Module]) -> None:
    module = nn.Sequential(nn.Linear(2, 2), cls(0.3))
    assert ub.from_torch(module.eval()).layers[1] == ub.Dropout(0.3)
    with pytest.raises(errors.ConversionError, match=rf"1 \({cls.__name__}\) is active"):
        ub.from_torch(module.train())


def test_names_of_a_flat_sequence_are_those_of_torch() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model = ub.from_torch(module)
    assert list(model.params) == list(module.state_dict())


def test_training_mode_is_refused_and_inference_can_be_asked_for() -> None:
    module = everything().train()
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 8))
    for call in (lambda: ub.from_torch(module), lambda: ub.ntk(module, x)):
        with pytest.raises(errors.ConversionError, match=r"0\.1 \(BatchNorm2d\).*batch.*call \.eval\(\) on the module"):
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


def broken_by(change: Callable[[nn.Sequential], object]) -> nn.Sequential:
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))
    change(module)
    return module


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
    "nothing": (broken_by(lambda m: m.add_module("gap", None)), r"gap: NoneType has no translation"),
    "lazy": (nn.Sequential(nn.LazyLinear(2)), r"0: LazyLinear has no translation"),
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
    block = ub.to_torch(ub.Model([ub.Dense(2, 2), ub.Residual([ub.Dense(2, 2, "tanh")])]))
    block[1].layers[1].forward = lambda z: z * 0
    with pytest.raises(errors.ConversionError, match=r"^1\.layers\.1 \(Tanh\) has a forward of its own"):
        ub.from_torch(block)


UNFIT = {
    "dropout": (broken_by(lambda m: m[1].append(nn.Dropout(1.0))).eval(), r"^1\.2: Dropout has p=1\.0"),
    "eps": (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2, eps=0.0)).eval(), r"^1: BatchNorm has eps=0\.0"),
    "late": (broken_by(lambda m: m[1].append(nn.Embedding(5, 2))), r"^1\.2 is an Embedding.*first layer"),
    "chain": (
        broken_by(lambda m: m[1].append(nn.Linear(4, 2))),
        r"^1\.2 \(dense\) does not fit after 1\.1: it gets 2",
    ),
    "float16": (broken_by(lambda m: m[1].half()), r"^1\.1\.weight has dtype float16.*float32.*module\.float\(\)"),
    "bfloat16": (broken_by(lambda m: m.bfloat16()), r"^0\.weight has dtype bfloat16"),
    "mixed": (broken_by(lambda m: m[1].double()), r"^1\.1\.weight has dtype float64, 0\.weight float32"),
    "meta": (broken_by(lambda m: m[1].to("meta")), r"^1\.1\.weight is on the meta device.*load"),
    "nan": (broken_by(lambda m: nn.init.constant_(m[1][1].bias, float("nan"))), r"^1\.1\.bias is not finite"),
    "statistics": (
        broken_by(lambda m: m[1].append(nn.BatchNorm1d(2, dtype=torch.bfloat16))).eval(),
        r"^1\.2\.weight has dtype bfloat16",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_named_by_its_path(name: str) -> None:
    module, words = UNFIT[name]
    with pytest.raises(errors.ConversionError, match=words):
        ub.from_torch(module)


@pytest.mark.parametrize("method", ["structured", "plain"])
@pytest.mark.parametrize("outputs", [1, "trace", "mean", "sum", "diagonal", "full"])
def test_a_module_in_tiles_has_the_same_kernel(
    outputs: int | str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udlbridge.kernels.planning.LARGEST_TILE", 2)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = np.random.default_rng(0).standard_normal((7, 3))
    model = ub.from_torch(module)
    for x2 in (None, x[:5]):
        expected = ub.ntk(model, x, x2, outputs=outputs, backend="reference")
        assert_within_budget(ub.ntk(module, x, x2, outputs=outputs, method=method), expected)
    kernel = ub.ntk(module, x, outputs=outputs)
    mirrored = kernel.swapaxes(0, 1)
    np.testing.assert_array_equal(kernel, mirrored.swapaxes(2, 3) if outputs == "full" else mirrored)


class Recurrent(nn.Module):
    def __init__(self, cls: Callable[..., nn.Module], **settings: object) -> None:
        super().__init__()
        self.inner = cls(3, 4, batch_first=True, **settings)
        self.readout = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.inner(x)[0][:, -1])


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_module_that_vmap_cannot_take(cls: type[nn.Module]) -> None:
    module = Recurrent(cls).double()
    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    values = list(module.parameters())
    rows = []
    for sample in torch.tensor(x):
        y = module(sample[None])[0]
        rows.append([torch.cat([g.flatten() for g in torch.autograd.grad(v, values, retain_graph=True)]) for v in y])
    full = torch.einsum("iap,jbp->ijab", *[torch.stack([torch.stack(row) for row in rows])] * 2).numpy()
    assert_within_budget(ub.ntk(module, x, outputs="full"), full)
    assert_within_budget(ub.ntk(module, x, outputs=1, params="inner.*"), _part(module, x))
    assert all(value.grad is None and value.requires_grad for value in values)


def _part(module: nn.Module, x: np.ndarray) -> np.ndarray:
    rows = []
    for sample in torch.tensor(x):
        found = torch.autograd.grad(module(sample[None])[0, 1], list(module.inner.parameters()))
        rows.append(torch.cat([value.flatten() for value in found]))
    return (torch.stack(rows) @ torch.stack(rows).T).numpy()


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.inner(x), 0.5)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(3, 1, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, x, x, need_weights=False)[0].flatten(1)


class Gives(nn.Module):
    def __init__(self, form: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.form = form

    def forward(self, x: torch.Tensor) -> object:
        return self.form(self.inner(x))


FLAT, SERIES = np.zeros((2, 3), np.float32), np.zeros((2, 4, 3), np.float32)
NO_STATISTICS = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
UNUSABLE = {
    "attention": (Attention(), SERIES, r"inner \(MultiheadAttention\) is active.*random.*eval\(\)"),
    "recurrent": (
        Recurrent(nn.LSTM, num_layers=2, dropout=0.1),
        SERIES,
        r"inner \(LSTM\) is active.*random.*eval\(\)",
    ),
    "rrelu": (nn.Sequential(nn.Linear(3, 2), nn.RReLU()), FLAT, r"1 \(RReLU\) is active.*random"),
    "functional": (Noisy(), FLAT, r"Noisy draws random numbers.*eval\(\)"),
    "statistics": (NO_STATISTICS, FLAT, r"1 \(BatchNorm1d\) has no running statistics.*track_running_stats=True"),
    "dict": (Gives(lambda y: {"logits": y}), FLAT, r"gives a dict.*one tensor.*\['logits'\]"),
    "tuple": (Gives(lambda y: (y, y)), FLAT, r"gives a tuple.*one tensor"),
    "scalar": (Gives(lambda y: y.sum()), FLAT, r"tensor of shape \(\) for 2 samples"),
    "classes": (Gives(lambda y: y.argmax(1, keepdim=True)), FLAT, r"outputs of dtype int64"),
    "shape": (nn.Linear(5, 2), FLAT, r"cannot take samples of shape \(3,\).*mat1 and mat2"),
    "width": (nn.Linear(5, 2), FLAT, r"takes 5 numbers and gets 3: correct x, or in_features\.$"),
    "images": (nn.Linear(12, 2), SERIES, r"nn\.Flatten\(\) before its linear.*x\.reshape\(len\(x\), 12\)"),
    "other images": (nn.Linear(13, 2), SERIES, r"takes 13 numbers and gets 3: correct x"),
    "meta": (nn.Linear(3, 2, device="meta"), FLAT, r"weight is on the meta device"),
    "lazy": (nn.LazyLinear(2), FLAT, r"weight has no shape yet.*module\(x\)"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_modules_without_a_kernel(name: str) -> None:
    module, x, words = UNUSABLE[name]
    with pytest.raises(errors.UDLBridgeError, match=words):
        ub.ntk(module, x)


@pytest.mark.parametrize("cls", [nn.Linear, nn.GRU])
def test_modules_in_inference_mode(cls: type[nn.Module]) -> None:
    module = nn.Linear(3, 2) if cls is nn.Linear else Recurrent(cls)
    x = FLAT + 1 if cls is nn.Linear else SERIES + 1
    expected = ub.ntk(module, x)
    with torch.inference_mode():
        assert_within_budget(ub.ntk(module, x), expected)


def test_a_module_that_changes_its_state_starts_from_the_same_for_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)).double()
    x = np.random.default_rng(0).standard_normal((5, 3))
    expected = ub.ntk(module, x)
    assert_within_budget(ub.ntk(module, x, method="plain"), expected)
    monkeypatch.setattr("udlbridge.kernels.planning.LARGEST_TILE", 2)
    assert_within_budget(ub.ntk(module, x), expected)
    assert_within_budget(ub.ntk(module, x[:1]), expected[:1, :1])


def test_a_module_stays_as_it_is() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.inner(x)

        def to(self, *args: object, **kwargs: object) -> nn.Module:
            raise AssertionError("the caller's module is moved")

    module = Stateful()
    generator = torch.get_rng_state()
    ub.ntk(module, FLAT)
    assert module.calls == 0
    assert torch.equal(generator, torch.get_rng_state())


def test_modules_and_options() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(errors.OptionError, match=r"backend='julia'.*from_torch"):
        ub.ntk(module, x, backend="julia")
    with pytest.raises(errors.DTypeError, match=r"float64.*module has float32"):
        ub.ntk(module, x.astype(np.float64))
    with pytest.raises(errors.DTypeError, match=r"the module has float32.*What to do: convert x"):
        ub.ntk(module, x.astype(np.longdouble))
    with pytest.raises(errors.OptionError, match=r"a str in the place of the model"):
        ub.ntk("module", x)
    for name in ("1.*", "hidden"):
        with pytest.raises(errors.ParameterError, match=r"matches no parameter.*0\.weight"):
            ub.ntk(module, x, params=name)
    for options, words in (
        ({"memory": "banana"}, "'banana'"),
        ({"memory": "20B"}, r"memory=20 B.*at least.*allow more"),
        ({"threads": -3}, r"threads=-3.*at least 1"),
        ({"method": "bogus"}, r"method='bogus'.*auto, structured, plain"),
        ({"device": "tpu"}, r"device='tpu'.*cpu"),
    ):
        with pytest.raises(errors.OptionError, match=words):
            ub.ntk(module, x, **options)
    with pytest.raises(errors.UnknownBackend, match=r"jax"):
        ub.ntk(module, x, backend="jax")
    with pytest.raises(errors.ShapeError, match=r"x2 have shape \(4,\)"):
        ub.ntk(module, x, np.zeros((2, 4), np.float32))
    with pytest.raises(errors.OptionError, match=r"threads=-3"):
        ub.ntk(ub.from_torch(module), x, threads=-3)


def test_threads_are_honoured() -> None:
    seen: list[int] = []

    class Watching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x)

    before = torch.get_num_threads()
    ub.ntk(Watching(3, 2), FLAT, threads=before + 1)
    assert before + 1 in seen
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "call",
    [
        lambda module, x: ub.linearize(module),
        lambda module, x: ub.taylor_expand(module, 1),
        lambda module, x: ub.to_torch(module),
    ],
)
def test_what_takes_no_module_says_how_to_translate_it(call: Callable[..., object]) -> None:
    with pytest.raises(errors.OptionError, match=r"Linear.*ub\.from_torch\(module\)"):
        call(nn.Linear(3, 2), FLAT)
