"""Modules of PyTorch as graphs: equal to the module itself on every engine, or refused with the place."""

from __future__ import annotations

import gc
import math
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from tests import modules
from tests.helpers import assert_within_budget
from tests.zoo import MORE, TEXT, ZOO, build
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import udlbridge as ub
from udlbridge.errors import ConversionError, InputError, NumericalError, ShapeError


def assert_crosses(module: nn.Module, x: np.ndarray, backends: tuple[str, ...] = ("torch", "reference")) -> ub.Graph:
    """The graph of a module, which has the module's outputs, input Jacobian and full kernel on every engine."""
    graph = ub.from_torch(module, x)
    outputs, kernel = ub.outputs(module, x), ub.ntk(module, x, outputs="full")
    for backend in backends:
        assert_within_budget(ub.outputs(graph, x, backend=backend), outputs)
        assert_within_budget(ub.ntk(graph, x, outputs="full", backend=backend), kernel)
        if not graph.takes_tokens:
            assert_within_budget(ub.input_jacobian(graph, x, backend=backend), ub.input_jacobian(module, x))
    return graph


@pytest.mark.sampled
@pytest.mark.parametrize("name", [*ZOO, *MORE])
def test_the_zoo_crosses(name: str, tmp_path: Path) -> None:
    module, x = build(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    graph = assert_crosses(module, x)
    names = dict(module.named_parameters())
    assert set(graph.params) == {key for key, value in names.items() if value.requires_grad}
    for key, value in graph.params.items():
        np.testing.assert_array_equal(value, names[key].detach().numpy())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    graph.save(tmp_path / "graph.safetensors")
    assert ub.Graph.load(tmp_path / "graph.safetensors") == graph
    back = ub.to_torch(graph)
    # What people load back are the module's own names; constants that were made in forward come besides, and buffers
    # that the module does not write.
    missing, unexpected = back.load_state_dict(module.state_dict(), strict=False)
    assert not unexpected
    unwritten = set(dict(module.named_buffers())) - set(module.state_dict())
    assert all(key.startswith("_constants.") or key in unwritten for key in missing)
    samples = torch.from_numpy(x)
    with torch.no_grad():
        assert_within_budget(back(samples).numpy(), module(samples).numpy())


@pytest.mark.julia
@pytest.mark.parametrize("name", [*ZOO, *MORE])
def test_the_zoo_crosses_to_julia_and_back(name: str, tmp_path: Path) -> None:
    ub.backends.get("julia")  # it starts juliacall, with which this test calls Julia as a user of it does
    from juliacall import Main

    module, x = build(name)
    graph = assert_crosses(module, x, ("julia",))
    there, back = str(tmp_path / "there.safetensors"), str(tmp_path / "back.safetensors")
    graph.save(there)
    Main.seval("using UDLBridge: UDLBridge")
    Main.UDLBridge.save(Main.UDLBridge.load(there), back)
    assert ub.Graph.load(back) == graph
    samples = torch.from_numpy(x)
    with torch.no_grad():
        assert_within_budget(ub.to_torch(ub.Graph.load(back))(samples).numpy(), module(samples).numpy())


@pytest.mark.julia
def test_products_with_the_jacobian_and_comparisons_in_julia() -> None:
    module, x = build("ViT")
    graph = ub.from_torch(module, x)
    operator, kernel = ub.ntk_operator(graph, x, backend="julia"), ub.ntk(module, x)
    assert_within_budget(operator @ np.ones(len(x)), kernel @ np.ones(len(x)))
    report = ub.check(graph, x, backends=["torch", "julia"])
    assert report.ok, report
    assert ub.spectrum(ub.ntk(graph, x, backend="julia")).verdict in ("PSD", "rounding")
    assert_within_budget(ub.ntk(graph, x, backend="julia", method="plain"), kernel)


@pytest.mark.julia
@pytest.mark.parametrize("name", [name for name, (_, shape) in ZOO.items() if shape != TEXT])
def test_second_derivatives_in_julia_are_those_of_torch(name: str) -> None:
    module, x = build(name, 2)
    graph = ub.from_torch(module, x)
    found, expected = (ub.input_hessian(graph, x, backend=engine) for engine in ("julia", "torch"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))


@pytest.mark.costly("volume", "norms", "gru", "vision", "groups", "resnet")
@pytest.mark.parametrize("name", sorted(set(modules.NETWORKS) - {"parametrised", "frequencies", "own function"}))
def test_networks_of_the_module_tests_cross_or_are_refused(name: str) -> None:
    module, x = modules.build(name, 3)
    if name[:3] == "bag":
        with pytest.raises(ConversionError, match=r"bag.* has no translation"):
            ub.from_torch(module, x)
        return
    assert_crosses(module, x)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_the_number_of_samples_is_open(backend: str) -> None:
    module, x = build("Swin", 7)
    graph = ub.from_torch(module, x[:1])
    for n in (1, 2, 7):
        assert_within_budget(ub.outputs(graph, x[:n], backend=backend), ub.outputs(module, x[:n]))
    with pytest.raises(ShapeError, match="of that shape"):
        ub.outputs(graph, np.zeros((2, 2, 10, 10)), backend=backend)


def test_a_shared_parameter_counts_once_and_a_frozen_one_is_a_buffer() -> None:
    module, x = build("GPT")
    graph = ub.from_torch(module, x)
    assert graph.aliases == {"lm_head.weight": "wte.weight"}
    assert "lm_head.weight" in ub.to_torch(graph).state_dict()
    module, x = build("functions")
    graph = ub.from_torch(module, x)
    assert {"frozen.weight", "frozen.bias", "weights"} <= set(graph.buffers)
    assert not {"frozen.weight", "frozen.bias"} & set(graph.params)


class Readout(nn.Module):
    """The readout is a function that was made in __init__: it reaches the table past all modules."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.readout = lambda h: h @ self.table.weight.t()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(torch.tanh(self.table(tokens))).sum(1)


def test_a_parameter_that_a_function_reaches_is_that_parameter() -> None:
    module, x = Readout().double(), np.array([[0, 1], [2, 4]])
    graph = ub.from_torch(module, x)
    tokens = torch.from_numpy(x)
    J = torch.stack(
        [torch.autograd.grad(y, module.table.weight, retain_graph=True)[0] for y in module(tokens).flatten()]
    )
    kernel = torch.einsum("iavp,javp->ij", *[J.reshape(2, 5, 5, 3)] * 2).detach().numpy()
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, x, backend=backend), kernel)
    assert not graph.buffers


def test_what_forward_keeps_for_the_next_call_stays_out_of_the_graph() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "mask"):
                self.register_buffer("mask", torch.ones(3, 3).tril().to(x), persistent=False)
            return self.linear(x) @ self.mask

    assert_crosses(Keeping().double(), np.random.default_rng(0).normal(size=(3, 3)))


def test_nodes_know_the_module_that_they_come_from() -> None:
    module, x = build("ResNet, bottleneck")
    sources = {node.source for node in ub.from_torch(module, x).nodes}
    assert "layers.1.downsample.0" in sources


def test_a_module_in_training_mode_is_refused_or_taken_in_inference() -> None:
    module, x = build("ResNet, basic")
    module.train()
    with pytest.raises(ConversionError, match="statistics from the batch"):
        ub.from_torch(module, x)
    graph = ub.from_torch(module, x, inference=True)
    assert module.training
    assert_within_budget(ub.outputs(graph, x), ub.outputs(module.eval(), x))


def test_kernels_by_layer_add_up_under_the_names_of_modules() -> None:
    module, x = build("ViT")
    graph = ub.from_torch(module, x)
    for backend in ("torch", "reference"):
        parts = ub.layer_kernels(graph, x, backend=backend)
        assert list(parts) == list(ub.layer_kernels(module, x))
        assert_within_budget(np.sum(list(parts.values()), axis=0), ub.ntk(module, x))


def of_no_grad(h: Tensor) -> Tensor:
    with torch.no_grad():
        scale = h.abs().sum(1, keepdim=True)
    return h / scale


def writing(h: Tensor) -> Tensor:
    """Into copies and empty tensors, at places that are constants, computed, or where a mask holds."""
    places = torch.tensor([2, 0, 2, 1])
    own = h.argsort(1)
    y = torch.zeros_like(h).index_add(1, places, h) + h.index_copy(1, torch.tensor([3, 1]), h[:, :2].exp())
    y = y + torch.zeros_like(h).scatter_add(1, own // 2, h.sin()) + h.scatter(1, own[:, :2], 0.5)
    y = y + torch.zeros_like(h).scatter(1, own, h**2) + h.index_fill(1, torch.tensor([1]), 0.3)
    for reduce in ("sum", "mean", "amax", "amin"):
        y = y + h.cos().scatter_reduce(1, (own // 2), h, reduce, include_self=reduce != "mean")
    z = torch.empty_like(h)
    z[:, ::2], z[:, 1::2] = h[:, :2], y[:, 2:]
    z[:, [0, 3]] *= 2
    z[z < -0.5] = 0.25
    return y + z.clone()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cumsum": lambda h: torch.cumsum(h, 1),
    "glu": lambda h: F.glu(h, 1).repeat(1, 2),
    "outer": lambda h: h @ torch.outer(torch.ones(4).to(h), torch.arange(4).to(h)),
    "lerp": lambda h: torch.lerp(h, h.sin(), 0.3),
    "addcmul": lambda h: torch.addcmul(h, h.cos(), h, value=0.5),
    "shrinks": lambda h: F.hardshrink(h, 0.1) + F.softshrink(h, 0.1) + F.tanhshrink(h),
    "logs": lambda h: torch.log2(1 + h.square()) + torch.log10(2 + h.sin()) + torch.exp2(h) + torch.log1p(h**2),
    "channels": lambda h: F.channel_shuffle(h[:, :, None], 2).movedim(1, 2).flatten(1),
    "powers": lambda h: 2**h + h.abs().pow(0.7) + (1 + h**2) ** -1 + h.reciprocal() * h,
    "masks": lambda h: torch.where(torch.logical_and(h > 0, h < 1), h, h.neg()) + h.masked_fill(h.ge(0.2), 0.5),
    "bounds": lambda h: h.clamp_min(-0.2) + h.clamp_max(0.3) + torch.maximum(h, h.flip(1)) + F.threshold(h, 0.1, 0.2),
    "norms": lambda h: F.normalize(h, dim=1) + h / h.norm(p=1, dim=1, keepdim=True),
    "tails": lambda h: F.softmin(h, 1) + F.logsigmoid(h) + F.hardtanh(h) + F.softplus(30 * h) + torch.erfc(h),
    "windows": lambda h: h.unfold(1, 2, 1).mean(-1).repeat(1, 2)[:, :4],
    "adaptive": lambda h: F.adaptive_avg_pool1d(h[:, None], 3).flatten(1).repeat(1, 2)[:, 1:5],
    "stacks": lambda h: torch.stack(list(h.unbind(1)), -1) + torch.cat(h.chunk(2, 1)[::-1], 1),
    "distances": lambda h: (
        torch.cdist(h[:, None], torch.ones(2, 4).to(h)).repeat(1, 1, 2)[:, 0]
        + torch.cdist(h[:, None], h[:, None] - 1, p=1.0)[:, 0]
    ),
    "angles": lambda h: h * F.pairwise_distance(h, h.flip(1), keepdim=True) + F.cosine_similarity(h, h**2)[:, None],
    "products": lambda h: h.prod(1, keepdim=True) + h.cumprod(1),
    "computed powers": lambda h: h.abs().pow(h.sigmoid()) + F.relu(h).pow(h.square() + 1.5),
    "constant powers": lambda h: (
        h ** torch.tensor([2.0, 3.0, 0.0, 1.0]).to(h) + (1.5 + h.tanh()) ** torch.tensor([0.5, -1.0, 2.0, 2.5]).to(h)
    ),
    "powers of 0": lambda h: h * (F.relu(h) ** F.relu(h)).detach(),
    "diagonals": lambda h: torch.einsum("bii->bi", h.view(-1, 2, 2)).repeat(1, 2) + h.view(-1, 2, 2).diagonal(1, 1, 2),
    "orders": lambda h: h.norm(p=3, dim=1, keepdim=True) + h.norm(p=math.inf, dim=1, keepdim=True) * h,
    "whole numbers": lambda h: (
        h * (h > 0) / (h > -1).sum(1, keepdim=True).clamp(min=1)
        + (1 - (h > 0.2).float()) * h
        - (h > 0).long().cumsum(1)
    ),
    "truth values": lambda h: (
        h * ((h > 0) * (h < 1)) + h * (h > 0.5).any(1, keepdim=True) - h * (h > -2).all(1)[:, None]
    ),
    "hyperbolic": lambda h: (
        h.sinh() + h.cosh() + h.tan() + (1e4 * h).asinh() + (1.5 + h.abs()).acosh() + (0.5 * h.tanh()).atanh()
    ),
    "statistics": lambda h: (
        torch.cat(torch.std_mean(h, 1, keepdim=True), 1).repeat(1, 2) + sum(torch.var_mean(h, 1))[:, None]
    ),
    "as torch writes them": lambda h: (
        h.sigmoid().logit()
        + h.repeat_interleave(2, 1)[:, ::2]
        + h.sign() * torch.hypot(h, h)
        + torch.diff(h, dim=1, prepend=h[:, :1])
        + torch.hstack([h[:, 2:], h[:, :2]])
        + torch.xlogy(h, h.exp() + 1)
    ),
    "places": lambda h: (
        h.view(-1, 2, 2)[:, [0, 1, 1, 0], [1, 1, 0, -1]] + F.unfold(h.view(-1, 1, 2, 2), 2, padding=1).mean(1)[:, :4]
    ),
    "computed places": lambda h: (
        h.gather(1, h.argsort(1)[:, [2, 0, 0, 1]])
        + h.gather(1, torch.tensor([[0, 2, 2, 1]]).expand(len(h), -1))
        + h.view(-1, 2, 2).gather(1, torch.tensor([[[0, 1], [1, 1]]]).expand(len(h), -1, -1)).flatten(1)
        + h[torch.arange(len(h)), h.argmax(1)][:, None]
        + torch.arange(12.0).to(h).view(4, 3)[h.argmin(1)].sum(1, keepdim=True) * h
        + h.max(1, keepdim=True).indices * h
        + F.one_hot(h.argmax(1), 4) * h.sin()
        + torch.bucketize(h, torch.tensor([-0.5, 0.0, 1.0]).to(h)) * h
    ),
    "orders of entries": lambda h: (
        h.sort(1, descending=True).values * h.topk(2, 1).values.sum(1, keepdim=True)
        + h.median(1, keepdim=True).values
        + h.topk(3, 1, largest=False).indices[:, [0, 1, 2, 0]] * h
        + h.kthvalue(2, 1).values[:, None]
    ),
    "rounding": lambda h: (
        h * ((3 * h).floor() + (3 * h).ceil() + (3 * h).round() + (3 * h).trunc() + (3 * h).long() + (5 * h).int() // 2)
        + h.frac()
        + h.remainder(0.7)
        + torch.fmod(h, 0.7)
        + torch.div(h, 0.3, rounding_mode="floor") * h
        + ((4 * h).long() * 7 + 3) % 5 * h
    ),
    "writing": writing,
    "under no_grad": of_no_grad,
    "densities": lambda h: Normal(h.sin(), h.exp()).log_prob(h) + Independent(Normal(h, 1.0), 1).entropy()[:, None],
    "losses": lambda h: (
        F.mse_loss(h, h.sin(), reduction="none")
        + F.huber_loss(h, h.cos(), reduction="none")
        + F.binary_cross_entropy_with_logits(h, h.sigmoid(), reduction="none")
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_between_linear_maps_cross(name: str) -> None:
    torch.manual_seed(0)
    assert_crosses(Calling(FUNCTIONS[name]).double(), np.random.default_rng(0).normal(size=(3, 3)))


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_computed_power_of_a_negative_number_has_no_kernel(backend: str) -> None:
    class Raised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.power = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor([2.0, 3.0, 2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight * x) ** self.power

    x = np.random.default_rng(0).uniform(1, 2, size=(4, 3))
    graph = ub.from_torch(Raised().double(), x)
    assert np.isnan(ub.outputs(graph, -x, backend=backend)).all()
    with pytest.raises(NumericalError, match="nan"):
        ub.ntk(graph, -x, backend=backend)


@pytest.mark.parametrize("of", ["weight_norm", "spectral_norm", "weight_norm of old"])
def test_weights_that_are_computed_cross(of: str) -> None:
    kind = nn.utils.weight_norm if of == "weight_norm of old" else getattr(nn.utils.parametrizations, of)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = nn.Sequential(kind(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)).double().eval()
        assert_crosses(module, np.random.default_rng(0).normal(size=(3, 3)))


class Calling(nn.Module):
    """A function between two linear maps."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.before = nn.Linear(3, 4)
        self.after = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.after(self.function(self.before(x)))


ON_EDGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a bound without axes": lambda h: torch.clamp(h, torch.tensor(0.0).to(h), torch.tensor(2.0).to(h)),
    "bounds of every output": lambda h: h.clamp(torch.zeros(4).to(h), 2 * torch.ones(4).to(h)),
    "a bound for every sample": lambda h: h.clamp_min(h.flip(1)[:, :1]) + h.clamp_max(torch.zeros(4).to(h)),
    "a bound on one side": lambda h: torch.clamp(h, max=torch.zeros(4).to(h)) + torch.clamp(h, 0, None),
    "bounds the wrong way round": lambda h: h + h.clamp(2.0, 1.0) + h.clamp(2 * torch.ones(4).to(h), h[:, :1]),
    "a norm of nothing": lambda h: h + h.norm(dim=1, keepdim=True) + torch.linalg.vector_norm(h[:, 1:], dim=1)[:, None],
    "a norm along no axis kept": lambda h: h * (1 + h[:, :3].norm(dim=1))[:, None] + F.normalize(h, dim=1),
    "a deviation of nothing": lambda h: h + h.std(1, keepdim=True) + h.std(dim=1, correction=0)[:, None],
    "a power of nothing": lambda h: h + h**0 + h.pow(1),
}
"""Functions whose derivatives are a matter of definition where a bound is met exactly, or a root is 0."""


@pytest.mark.parametrize("name", ON_EDGES)
def test_derivatives_on_edges_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    module = Calling(ON_EDGES[name]).double()
    with torch.no_grad():
        module.before.weight.round_()
        module.before.bias.zero_()
        module.before.weight[0] = torch.tensor([0.0, 0.0, 2.0])
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, -1.0, 1.0], [0.5, 2.0, -1.0]])
    assert np.isfinite(ub.ntk(module, x)).all()
    assert_crosses(module, x)


class Doubled(torch.autograd.Function):
    """A backward pass that is not the derivative of its forward."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def backward(context: Any, d: Tensor) -> Tensor:
        return 2 * d


def hooked(h: Tensor) -> Tensor:
    if h.requires_grad:
        h.register_hook(lambda d: 2 * d)
    return h.tanh()


@pytest.mark.parametrize(("function", "said"), [(Doubled.apply, "backward passes of its own: Doubled"), (hooked, "")])
def test_a_gradient_that_is_not_that_of_the_forward_pass_is_refused(function: Any, said: str) -> None:
    x = np.random.default_rng(0).standard_normal((70, 3))
    whole, by_samples = Calling(function).double(), Calling(function).double()
    by_samples.before.requires_grad_(False)
    for module, where in ((whole, r"(before\.\w+|the samples)"), (by_samples, "the samples")):
        with pytest.raises(ConversionError, match=rf"another gradient by {where} than the module.*{said}"):
            ub.from_torch(module, x)


def test_gradients_that_are_not_finite_in_either_cross() -> None:
    module, x = Calling(lambda h: (h - h).sqrt() + h).double(), np.random.default_rng(0).standard_normal((3, 3))
    assert isinstance(ub.from_torch(module, x), ub.Graph)


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "an operation that does not cross": (lambda h: torch.lgamma(h.abs() + 1), "lgamma"),
    "control flow that depends on data": (lambda h: -h if h.isnan().any() else h, "torch.export cannot capture"),
    "an order of samples": (lambda h: h[(h[:, 0] - h[:, 0]).argsort(stable=True)], "argsort"),  # that they are in
    "another order of samples": (lambda h: h[h[:, 0].argsort(descending=True)], "depends on the other samples"),
    "random numbers": (lambda h: F.dropout(h, 0.5), "random"),
    "samples that touch each other": (lambda h: h - h.mean(0), "depends on the other samples"),
    "another dtype": (lambda h: h.float().double(), "float32"),
    "as many as data say": (lambda h: h[:, torch.tensor([True, False, True, True])].repeat(1, 2)[:, :4], "on numbers"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_translation_is_refused_with_its_place(reason: str) -> None:
    function, words = REFUSED[reason]
    torch.manual_seed(0)
    module = Calling(function).double()
    with pytest.raises(ConversionError, match=words) as caught:
        ub.from_torch(module, np.random.default_rng(0).normal(size=(3, 3)))
    if words in ("lgamma", "argsort"):
        assert "test_graphs.py" in str(caught.value)


def test_refusals_name_the_path_of_the_module() -> None:
    module = nn.Sequential(nn.Linear(3, 3), Calling(lambda h: torch.lgamma(h.abs() + 1))).double()
    with pytest.raises(ConversionError, match="lgamma in 1 "):
        ub.from_torch(module, np.zeros((2, 3)))


def test_torchs_slope_of_hardsigmoid_is_no_reason_to_refuse() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Hardsigmoid(inplace=True), nn.Linear(5, 2)).double()
    x = np.random.default_rng(0).standard_normal((3, 4))
    exact = nn.Sequential(module[0], _Exact(), module[2])
    graph = ub.from_torch(module, x)
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, x, backend=backend), ub.ntk(exact, x))


class _Exact(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def test_a_wrong_example_is_refused() -> None:
    module, _ = build("ResNet, basic")
    with pytest.raises(InputError):
        ub.from_torch(module, np.zeros((2, 5)))
    with pytest.raises(InputError):
        ub.from_torch(module, np.zeros((2, 2, 8, 8), np.float32))
    with pytest.raises(ConversionError, match="got a list"):
        ub.from_torch([], np.zeros((2, 3)))


class Twice(nn.Module):
    """A table that is the readout too, and a map that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.inner = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(torch.tanh(self.inner(self.tokens(x)))))
        return F.linear(h, self.tokens.weight).flatten(1)


@pytest.mark.parametrize("params", [None, "tokens.weight", "inner.weight"])
@pytest.mark.parametrize("method", ["structured", "plain"])
def test_a_graph_is_planned_as_its_module_is(params: str | None, method: str) -> None:
    module, x = Twice().double(), np.random.default_rng(0).integers(0, 7, (5, 6))
    settings: dict[str, Any] = {"sample_shape": (6,), "params": params, "method": method, "calibrate": False}
    settings |= {"outputs": "sum"}
    assert ub.plan(ub.from_torch(module, x), 3000, **settings) == ub.plan(module, 3000, **settings)


@pytest.mark.slow
def test_in_single_precision_too() -> None:
    module, x = build("MobileNetV3")
    module.float()
    samples = x.astype(np.float32)
    graph = ub.from_torch(module, samples)
    assert graph.dtype == np.float32
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, samples, backend=backend), ub.ntk(module, samples))


def test_the_module_of_a_graph_goes_with_the_graph() -> None:
    from udlbridge.backends.pytorch.graphs import engine

    module, x = Calling(torch.sin).double(), np.random.default_rng(0).normal(size=(3, 3))
    graph = ub.from_torch(module, x)
    network = engine.as_module_network(graph, x)
    assert engine.as_module_network(graph, x) is network
    gone = weakref.ref(network)
    del network, graph
    gc.collect()
    assert gone() is None


def test_another_graph_in_between_does_not_come_back() -> None:
    from udlbridge.backends.pytorch.graphs import engine

    x = np.random.default_rng(0).normal(size=(3, 3))
    one, other = (ub.from_torch(Calling(f).double(), x) for f in (torch.sin, torch.cos))

    def another(frame: Any, event: str, _: Any) -> Any:
        """Before each line of the function another thread has its turn, which asks with its own graph."""
        if event == "line":
            engine.as_module_network(other, x)
        return another

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: another if frame.f_code is engine.as_module_network.__code__ else None)
    try:
        found = engine.as_module_network(one, x), engine.as_module_network(one, x)
    finally:
        sys.settrace(before)
    for network in found:
        np.testing.assert_array_equal(network.params["after.weight"], one.params["after.weight"])
