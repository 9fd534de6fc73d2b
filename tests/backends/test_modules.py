"""Kernels of modules with a forward of their own: structured against sample by sample, and what is refused."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import udlbridge as ub
from helpers import assert_within_budget, numbers_of_a_fresh_process, udlbridge
from modules import NETWORKS, build
from udlbridge import backends, errors
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.pytorch.factors import Gradients, TiedPairs
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.backends.reduction import REDUCTIONS, checked_reduction
from udlbridge.backends.sites import Tied, sites
from udlbridge.kernels import calibration, costs
from udlbridge.kernels.request import kernel_request


def by_hand(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """The full kernel from one backward pass for each output of each sample, by the module as it is."""
    values = [value for value in module.parameters() if value.requires_grad]
    rows = []
    for sample in torch.tensor(x):
        y = module(sample[None]).flatten()
        found = [
            torch.autograd.grad(v, values, retain_graph=True, materialize_grads=True, allow_unused=True) for v in y
        ]
        rows.append(
            torch.stack([torch.cat([(g.to_dense() if g.is_sparse else g).flatten() for g in row]) for row in found])
        )
    jacobian = torch.stack(rows)
    return torch.einsum("iap,jbp->ijab", jacobian, jacobian).numpy()


@pytest.mark.costly("volume", "vision", "norms", "unet", "frames", "functional")
@pytest.mark.parametrize("name", NETWORKS)
def test_structured_and_plain_kernels_are_those_of_one_backward_pass_for_each_output(name: str) -> None:
    module, x = build(name)
    expected = by_hand(module, x)
    assert_within_budget(ub.ntk(module, x, outputs="full"), expected)
    assert_within_budget(ub.ntk(module, x, outputs="full", method="plain"), expected)
    assert_within_budget(
        ub.ntk(module, x[:2], x[2:], outputs=1 % expected.shape[2]),
        expected[:2, 2:, 1 % expected.shape[2], 1 % expected.shape[2]],
    )
    assert_within_budget(ub.ntk(module, x[:1], outputs="full"), expected[:1, :1])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_has_a_structured_form_takes_it(name: str) -> None:
    module, x = build(name)
    network = ModuleNetwork(module)
    network.checked_batch(x, "x")
    plan = network.recipe(network.trainable, network.tensors("cpu"), "cpu")
    assert set(plan.alone) == NETWORKS[name][2]


class Net(nn.Module):
    """A linear map before a form that a test is about."""

    def __init__(self, form: Callable[..., Any], inside: int = 3, outside: int = 2) -> None:
        super().__init__()
        self.inner = nn.Linear(inside, outside)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.inner(x))


FLAT = np.random.default_rng(0).standard_normal((4, 3))

MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "means": lambda y: y - y.mean(0),
    "softmax": lambda y: y.softmax(0),
    "statistics": lambda y: nn.functional.batch_norm(y, None, None, training=True),
    "the first": lambda y: y - y[:1],
    "the one before": lambda y: y.cumsum(0),
    "the last": lambda y: torch.cat([y[:-1], y[-1:] + y[:1]]),
    "detached": lambda y: y / y.detach().norm(dim=0),
}


@pytest.mark.parametrize("method", ["structured", "plain"])
@pytest.mark.parametrize("name", MIXING)
def test_samples_that_touch_each_other_are_refused(name: str, method: str) -> None:
    with pytest.raises(errors.ConversionError, match=r"sample \d depends on the other samples"):
        ub.ntk(Net(MIXING[name]).double(), FLAT, method=method)


def test_samples_that_touch_each_other_are_refused_where_all_are_equal() -> None:
    with pytest.raises(errors.ConversionError, match=r"depend on other samples"):
        ub.ntk(Net(MIXING["means"]).double(), np.ones((4, 3)))


def test_a_recurrent_layer_with_the_samples_second_is_refused() -> None:
    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.LSTM(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)[0][:, -1]

    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    with pytest.raises(errors.ConversionError, match=r"sample [1-9] depends.*batch_first"):
        ub.ntk(Second().double(), x)


OWN = torch.Generator()
RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "numpy": lambda y: y * np.random.rand(),  # noqa: NPY002 - what people do
    "python": lambda y: y * random.random(),
    "own generator": lambda y: y * torch.rand(2, generator=OWN, dtype=y.dtype),
    "torch": lambda y: y * torch.rand(2, dtype=y.dtype),
    "dropout": lambda y: nn.functional.dropout(y, 1e-9),
    "alpha": lambda y: nn.functional.alpha_dropout(y, 0.5, training=True),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_outputs_are_refused(name: str) -> None:
    with pytest.raises(errors.ConversionError, match=r"draws random numbers.*eval\(\)"):
        ub.ntk(Net(RANDOM[name]).double(), FLAT)


def test_a_generator_that_the_module_holds_is_refused_and_not_used_up() -> None:
    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.generator = np.random.default_rng(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.generator.random()

    module = Holding().double()
    with pytest.raises(errors.ConversionError, match=r"two evaluations differ"):
        ub.ntk(module, FLAT)
    assert module.generator.random() == np.random.default_rng(3).random()


def test_state_that_forward_sets_is_not_set_on_the_module() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.seen: list[Tensor] = []
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.inner(x)
            self.seen.append(self.hidden)
            self.calls += 1
            return self.hidden * len(self.seen)

    module = Remembering().double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    held = list(module.parameters())
    first = ub.ntk(module, FLAT)
    assert_within_budget(ub.ntk(module, FLAT), first)
    assert_within_budget(first, by_hand_trace(Net(lambda y: y).double(), module))
    assert not hasattr(module, "hidden")
    assert module.seen == []
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(one is other for one, other in zip(module.parameters(), held, strict=True))


def by_hand_trace(net: nn.Module, like: nn.Module) -> np.ndarray:
    net.inner.load_state_dict(like.inner.state_dict())
    return np.einsum("ijaa->ij", by_hand(net, FLAT))


def test_four_threads_and_one_module() -> None:
    module, x = build("vision")
    expected = ub.ntk(module, x)
    kinds = {name: type(value) for name, value in module.named_parameters()}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda method: ub.ntk(module, x, method=method), ["structured", "plain"] * 4))
    for kernel in found:
        assert_within_budget(kernel, expected)
    assert {name: type(value) for name, value in module.named_parameters()} == kinds


@pytest.mark.parametrize("method", ["structured", "plain"])
def test_autocast_around_the_call_changes_nothing(method: str) -> None:
    module, x = Net(torch.tanh), FLAT.astype(np.float32)
    expected = ub.ntk(module, x, method=method)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad(), torch.inference_mode():
        np.testing.assert_array_equal(ub.ntk(module, x, method=method), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 7, (4, 5))
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2))
    exact = ub.ntk(module, tokens)
    for method in ("structured", "plain"):
        found = ub.ntk(module.to(dtype), tokens, method=method)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, rtol=0, atol=0.03 * exact.max())
    net = Net(torch.tanh).to(dtype)
    assert ub.ntk(net, torch.tensor(FLAT).to(dtype)).dtype == np.float32
    assert ub.ntk(net, FLAT.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("token", [99, -1])
def test_a_token_outside_its_table_is_named_with_its_sample(token: int) -> None:
    x = np.ones((6, 5), dtype=np.int64)
    x[1, 3] = token
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(errors.InputError, match=rf"x is {token} at \(1, 3\), in sample 1.*from 0 to 6"):
        ub.ntk(module, x)


INDEPENDENT: dict[str, Callable[[], nn.Module]] = {
    "detached": lambda: Net(lambda y: y.detach()),
    "constant": lambda: Net(lambda y: torch.ones(len(y), 2)),
    "no gradients": lambda: Blind(),
}


class Blind(Net):
    def __init__(self) -> None:
        super().__init__(torch.tanh)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("method", ["structured", "plain"])
@pytest.mark.parametrize("name", INDEPENDENT)
def test_outputs_that_do_not_depend_on_the_parameters_are_refused(name: str, method: str) -> None:
    with pytest.raises(errors.ConversionError, match=r"do not depend on the parameters in params: inner\.weight"):
        ub.ntk(INDEPENDENT[name](), FLAT.astype(np.float32), method=method)


DERIVATIVES: dict[str, Callable[[nn.Module, np.ndarray], Any]] = {
    "jacobian": ub.jacobian,
    "operator": lambda module, x: ub.ntk_operator(module, x, params="inner.*"),
    "trace": lambda module, x: ub.trace(ub.ntk_operator(module, x)),
    "plan": lambda module, x: ub.plan(ub.as_network(module), 9, sample_shape=x.shape[1:], calibrate=False),
    "train": lambda module, x: ub.train(module, x, np.arange(len(x)) % 2, epochs=1),
    "loss_gradient": lambda module, x: ub.loss_gradient(module, x, np.arange(len(x)) % 2),
    "signal_report": ub.signal_report,
    "check": ub.check,
}


@pytest.mark.parametrize("function", DERIVATIVES)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_they_are_refused_by_all_that_takes_derivatives(name: str, function: str) -> None:
    with pytest.raises(errors.ConversionError, match=r"do not depend on the parameters in params: inner\.weight"):
        DERIVATIVES[function](INDEPENDENT[name](), FLAT.astype(np.float32))


@pytest.mark.parametrize("name", INDEPENDENT)
def test_so_are_derivatives_by_samples_and_slopes(name: str) -> None:
    module, x = INDEPENDENT[name](), FLAT.astype(np.float32)
    for function in (ub.input_jacobian, ub.input_hessian):
        with pytest.raises(errors.ConversionError, match="do not depend on the samples"):
            function(module, x)


def test_features_without_gradients_have_a_kernel_of_their_readout_and_no_input_jacobian() -> None:
    class Readout(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.inner(x).tanh()
            return self.form(h)

    module = Readout(nn.Linear(2, 2)).double()
    for params in ("inner.*", "inner.weight"):
        with pytest.raises(errors.ConversionError, match=r"do not depend on .*inner\.weight"):
            ub.ntk_operator(module, FLAT, params=params)
    with pytest.raises(errors.ConversionError, match="do not depend on the samples"):
        ub.input_jacobian(module, FLAT)
    slopes = ub.losses.sobolev(np.zeros((4, 2, 3)))
    with pytest.raises(errors.ConversionError, match="do not depend on the samples"):
        ub.loss_gradient(module, FLAT, ub.outputs(module, FLAT), loss=slopes)
    module.inner.requires_grad_(False)
    report = ub.check(module, FLAT)
    assert report.ok
    assert "do not depend on the samples" in report.skipped["input jacobian"]


def test_a_frozen_parameter_is_read_anew_whatever_wrote_to_it() -> None:
    network = ub.as_network(chained := nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double())
    chained[0].requires_grad_(False)
    operator = ub.ntk_operator(network, FLAT)
    ub.outputs(network, FLAT)
    for write in (
        lambda weight: weight.data.mul_(2.0),
        lambda weight: weight.data.numpy().__imul__(2.0),
        lambda weight: setattr(weight, "data", weight.data + 1.0),
    ):
        write(chained[0].weight)
        fresh = nn.Sequential(*(copy.deepcopy(part) for part in chained))
        np.testing.assert_array_equal(operator @ np.ones(4), ub.ntk_operator(fresh, FLAT) @ np.ones(4))
        np.testing.assert_array_equal(ub.outputs(network, FLAT), fresh(torch.tensor(FLAT)).detach().numpy())
        np.testing.assert_array_equal(ub.ntk(network, FLAT), ub.ntk(fresh, FLAT))


@pytest.mark.parametrize(("shape", "form"), [((4,), "one"), ((4, 2, 3), "many")])
def test_outputs_of_any_number_of_axes(shape: tuple[int, ...], form: str) -> None:
    forms = {"one": lambda y: y.sum(1), "many": lambda y: y[:, :, None] * torch.arange(1.0, 4.0, dtype=y.dtype)}
    module = Net(forms[form]).double()
    assert_within_budget(ub.ntk(module, FLAT, outputs="full"), by_hand(module, FLAT))
    assert ub.outputs(module, FLAT).shape == (4, int(np.prod(shape[1:], dtype=int)))


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None


def test_one_of_several_outputs() -> None:
    expected = ub.ntk(module := Net(torch.tanh).double(), FLAT)
    for form, output in (
        (lambda y: {"logits": torch.tanh(y), "hidden": y}, "logits"),
        (lambda y: (y, torch.tanh(y)), 1),
        (lambda y: Answer(torch.tanh(y)), "logits"),
        (lambda y: [[torch.tanh(y)]], lambda found: found[0][0]),
    ):
        module.form = form
        assert_within_budget(ub.ntk(ub.as_network(module, output=output), FLAT), expected)
        with pytest.raises(errors.ConversionError, match=r"gives an? .*output='logits'"):
            ub.ntk(module, FLAT)
    with pytest.raises(errors.ConversionError, match=r"output='loss' of a list"):
        ub.ntk(ub.as_network(module, output="loss"), FLAT)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 3)
        self.inner = nn.Linear(3, 2)

    def forward(self, numbers: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.table(tokens)
        h = h.sum(1) if mask is None else (h * mask[..., None]).sum(1)
        return self.inner(torch.tanh(h * numbers))


def test_several_inputs() -> None:
    generator = np.random.default_rng(0)
    tokens, mask = generator.integers(0, 7, (4, 5)), generator.random((4, 5)) < 0.7
    module = Two().double()

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = module

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x[:, :3], x[:, 3:8].long(), x[:, 8:] > 0)

    joined = np.concatenate([FLAT, tokens, mask], axis=1)
    expected = ub.ntk(Joined(), joined, method="plain")
    named = {"numbers": FLAT, "tokens": tokens, "mask": mask}
    assert_within_budget(ub.ntk(module, (FLAT, tokens, mask)), expected)
    assert_within_budget(ub.ntk(module, named), expected)
    assert_within_budget(ub.ntk(module, named, {name: value[:2] for name, value in named.items()}), expected[:, :2])
    with pytest.raises(errors.ShapeError, match="different numbers of samples"):
        ub.ntk(module, (FLAT, tokens[:3], mask))
    with pytest.raises(errors.InputError, match="no inputs"):
        ub.ntk(module, {})


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(">f8"),
        torch.tensor,
        lambda x: torch.tensor(x, requires_grad=True).clone(),
        lambda x: (torch.tensor(x, requires_grad=True),),
        lambda x: {0: x},
        np.ndarray.tolist,
    ],
)
def test_samples_in_containers_of_all_kinds(form: Callable[[np.ndarray], Any]) -> None:
    module = Net(torch.tanh).double()
    assert_within_budget(ub.ntk(module, form(FLAT), device=torch.device("cpu")), ub.ntk(module, FLAT))


@pytest.mark.parametrize("x", [None, [[1.0], [1.0, 2.0]], object(), torch.utils.data.DataLoader([1]), {}, (), []])
def test_what_are_no_samples(x: Any) -> None:
    with pytest.raises(errors.UDLBridgeError):
        ub.ntk(Net(torch.tanh).double(), x)


def no_numbers() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    module[1].running_mean = module[1].running_mean.to("meta")
    return module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_numbers, r"1\.running_mean is on the meta device"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d(affine=False)).eval(), r"has no shape yet"),
        (lambda: nn.Linear(3, 2, dtype=torch.complex64), r"weight has complex numbers"),
        (lambda: torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), r"a scripted module"),
    ],
)
def test_modules_without_real_numbers(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(errors.ConversionError, match=words):
        ub.ntk(make(), FLAT.astype(np.float32))


def test_a_module_that_was_built_in_inference_mode() -> None:
    with torch.inference_mode():
        module = Net(torch.tanh).double()
    assert_within_budget(ub.ntk(module, FLAT), ub.ntk(copied := copy.deepcopy(module), FLAT))
    assert copied is not module


@pytest.mark.costly("vision")
@pytest.mark.parametrize("name", ["vision", "bag of means", "parametrised", "lstm"])
def test_nothing_is_written_to_standard_error(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    module, x = build(name)
    for method in ("structured", "plain"):
        ub.ntk(module, x, method=method)
    assert capfd.readouterr().err == ""


def test_the_second_name_of_a_shared_parameter() -> None:
    module, x = build("reused")
    expected = ub.ntk(module, x, params="first.weight")
    assert_within_budget(ub.ntk(module, x, params="again.weight"), expected)
    parts = ub.layer_kernels(module, x)
    assert list(parts) == ["first", "read"]
    assert_within_budget(parts["first"] + parts["read"], ub.ntk(module, x))
    assert_within_budget(ub.ntk(module, x, params="readout"), parts["read"])
    assert_within_budget(ub.ntk(module, x, params="hidden"), parts["first"])


@pytest.mark.costly("resnet", "tied")
@pytest.mark.parametrize("name", ["resnet", "tied", "parametrised", "mixed", "lstm"])
def test_parts_by_module_sum_to_the_kernel(name: str) -> None:
    module, x = build(name)
    parts = ub.layer_kernels(module, x, outputs=0)
    assert_within_budget(sum(parts.values()), ub.ntk(module, x, outputs=0))
    groups = ModuleNetwork(module).names_by_layer(name for name, _ in module.named_parameters())
    assert list(parts) == list(groups)
    for part in list(parts)[:3]:
        assert_within_budget(parts[part], ub.ntk(module, x, outputs=0, params=groups[part], method="plain"))


@pytest.mark.costly("resnet")
@pytest.mark.parametrize("name", ["resnet", "tied", "lstm", "own function"])
def test_derivatives_and_products_of_a_module(name: str) -> None:
    module, x = build(name)
    full = by_hand(module, x)
    blocks = ub.jacobian(module, x)
    flat = np.concatenate([block.reshape(*block.shape[:2], -1) for block in blocks.values()], axis=2)
    assert_within_budget(np.einsum("iap,jbp->ijab", flat, flat), full)
    assert_within_budget(ub.outputs(module, x), module(torch.tensor(x)).detach().numpy().reshape(len(x), -1))
    operator, vectors = ub.ntk_operator(module, x), np.eye(len(x))[:, :2]
    trace = np.einsum("ijaa->ij", full)
    assert_within_budget(operator @ vectors, trace[:, :2])
    values = ub.spectrum(module, x=x).eigenvalues
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(trace), rtol=0, atol=1e-11 * np.abs(trace).max())


def test_derivatives_by_the_input() -> None:
    module, model_like = Net(torch.tanh).double(), ub.Model([ub.Dense(3, 2, "tanh")], dtype="float64")
    weights = {"0.weight": module.inner.weight, "0.bias": module.inner.bias}
    model = model_like.with_params({name: value.detach().numpy() for name, value in weights.items()})
    for derivative in (ub.input_jacobian, ub.input_hessian):
        assert_within_budget(derivative(module, FLAT), derivative(model, FLAT, backend="reference"))
    tokens, x = build("tied")
    with pytest.raises(errors.InputError, match="token"):
        ub.input_jacobian(tokens, x)


def test_a_plan_of_a_module() -> None:
    module, _ = build("resnet")
    plan = ub.plan(module, 1000, sample_shape=(2, 8, 8), calibrate=False)
    assert plan.backend == "torch"
    assert plan.flops > 1000**2 * 1000
    assert ub.plan(build("tied")[0], 100, sample_shape=(5,), calibrate=False).n == 100


def test_forming_the_gradients_of_a_tied_table_is_counted() -> None:
    network, x = ub.as_network(build("tied")[0]), build("tied")[1]
    network.checked_batch(x, "x")
    table = next(name for name, shape in network.param_shapes().items() if shape == (7, 4))
    request = kernel_request(network, x.shape[1:], outputs="trace", params=table, backend=None)
    (tied,) = sites(network, x.shape[1:], request.parameters)
    assert isinstance(tied, Tied)
    assert not tied.by_pairs(request.reduction)
    lookups, maps = tied.lookup.positions, tied.affine.positions
    count = request.reduction.n_cotangents
    assert costs.forming_flops(request) == 2 * count * (maps * 7 * 4 + lookups * 4)
    assert costs.formed_numbers(request) == 7 * 4
    plain = replace(request, method="plain")
    assert costs.forming_flops(plain) == 0
    assert costs.passes_flops(plain) == costs.passes_flops(request) + costs.forming_flops(request)


TIED = {"tied": Gradients, "tied, last token": TiedPairs, "tied, read twice": Gradients}


@pytest.mark.sampled
@pytest.mark.parametrize("name", TIED)
def test_a_table_that_is_tied_to_the_readout_never_has_its_gradients_kept(name: str) -> None:
    module, x = build(name)
    network = ub.as_network(module)
    network.checked_batch(x, "x")
    job = KernelJob(network, checked_reduction(0, 3), params=network.trainable)
    (factor,) = (one.factor for one in backends.get("torch").prepare(job, x) if one.names == ("tokens.weight",))
    assert isinstance(factor, TIED[name])
    for outputs in REDUCTIONS:
        expected = ub.ntk(module, x, outputs=outputs, params="tokens.weight", method="plain")
        assert_within_budget(ub.ntk(module, x, outputs=outputs, params="tokens.weight"), expected)
        found = ub.ntk(module, x[:2], x[2:], outputs=outputs, params="tokens.weight")
        np.testing.assert_allclose(found, expected[:2, 2:], rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_a_large_block_passes_once_and_the_bar_moves_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = build("resnet", 70)
    told: list[float] = []

    @contextmanager
    def bar(total: float, *, show: bool | None) -> Iterator[Callable[..., None]]:
        yield lambda flops, written: told.append(flops)

    monkeypatch.setattr("udlbridge.kernels.ntk.kernel_progress", bar)
    monkeypatch.setattr("udlbridge.backends.pytorch.gathering.SMALL_NUMBERS", 0)
    ub.ntk(module, x, outputs=0)
    plan = ub.plan(module, 70, sample_shape=(2, 8, 8), outputs=0, calibrate=False)
    assert (plan.grid.count, plan.prepared) == (1, 70)
    np.testing.assert_allclose(sum(told), plan.flops)
    assert max(told) < 0.5 * plan.flops
    assert len([flops for flops in told if flops]) >= 5


def test_a_calibration_ends_where_a_larger_block_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CALIBRATION_SECONDS", 0.0)
    blocks: list[int] = []
    engine = backends.get("torch")
    own = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda job, x: blocks.append(len(x)) or own(job, x))
    plan = ub.plan(build("resnet")[0], 1000, sample_shape=(2, 8, 8))
    assert plan.seconds is not None
    assert max(blocks) == calibration.FIRST_BLOCK


@pytest.mark.slow
def test_a_module_stays_within_its_memory() -> None:
    """The peak over the baseline in a fresh process, for the memory that one block of all samples is said to need."""
    code = (
        f"import sys, torch\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import udlbridge as ub\nfrom modules import ResNet\n"
        "from udlbridge.store.peak_memory import PeakMemory\n"
        "torch.manual_seed(0); module = ResNet(16, (1, 1, 1), 3, 10).eval(); x = torch.randn(400, 3, 24, 24)\n"
        "ub.ntk(module, x[:2], outputs=0, threads=1)\n"
        "plan = ub.plan(module, 400, sample_shape=(3, 24, 24), outputs=0, calibrate=False)\n"
        "with PeakMemory() as memory: ub.ntk(module, x, outputs=0, threads=1, memory=plan.ram_bytes)\n"
        "print(plan.tile, plan.prepared, plan.ram_bytes, memory.over_baseline)"
    )
    tile, prepared, bound, peak = numbers_of_a_fresh_process(code)
    assert (tile, prepared) == (400, 400)
    assert peak < bound, (peak, bound)


def test_a_module_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\ndef net():\n    torch.manual_seed(0)\n    return torch.nn.Linear(3, 2)\n")
    target = tmp_path / "k.npy"
    done = udlbridge("kernel", "--model", f"{file}:net", "--shape", "3", "--n", 4, "--out", target)
    assert done.returncode == 0, done.stderr
    assert np.load(target).shape == (4, 4)
    assert udlbridge("spectrum", "--model", f"{file}:net", "--shape", "3", "--n", 4).returncode == 0
    for name, words in ((f"{file}:none", "no function 'none'"), ("no.such:net", "ModuleNotFoundError")):
        done = udlbridge("kernel", "--model", name, "--shape", "3", "--n", 4, "--out", target)
        assert done.returncode != 0
        assert words in done.stderr


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_is_computed_with_the_weights_that_its_module_has_now(frozen: bool) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    module[0].requires_grad_(not frozen)
    network = ub.as_network(module)
    before = ub.ntk(network, FLAT), network.params["2.weight"]
    with torch.no_grad():
        module[0].weight.mul_(2.0)
        module[2].weight.add_(1.0)
    assert_within_budget(ub.ntk(network, FLAT), ub.ntk(copy.deepcopy(module), FLAT))
    assert np.abs(ub.ntk(network, FLAT) - before[0]).max() > 0.1
    np.testing.assert_array_equal(network.params["2.weight"], before[1] + 1.0)
    module[0].weight.data = torch.zeros(4, 3, dtype=torch.float64)
    assert_within_budget(ub.ntk(network, FLAT), ub.ntk(copy.deepcopy(module), FLAT))


def test_a_network_sees_that_its_module_got_other_parameters() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    network = ub.as_network(module)
    ub.ntk(network, FLAT)
    changes: list[Callable[[], Any]] = [
        lambda: module.load_state_dict({k: 2 * v for k, v in module.state_dict().items()}, assign=True),
        lambda: setattr(module, "2", nn.Linear(4, 3).double()),
        lambda: module[0].requires_grad_(False),
        lambda: module.eval().float(),
    ]
    for change in changes:
        change()
        x = FLAT.astype(ub.as_network(copy.deepcopy(module)).dtype)
        assert_within_budget(ub.ntk(network, x), ub.ntk(copy.deepcopy(module), x))
        assert set(network.params) == {name for name, value in module.named_parameters() if value.requires_grad}


def test_a_network_whose_module_goes_back_to_training_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).eval()
    network = ub.as_network(module)
    ub.ntk(network, FLAT.astype(np.float32))
    module.train()
    with pytest.raises(errors.ConversionError, match=r"Dropout.*is active"):
        ub.ntk(network, FLAT.astype(np.float32))
