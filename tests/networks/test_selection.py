"""Kernels of some of the parameters, and of each layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from helpers import assert_within_budget
from udlbridge import backends, errors
from udlbridge.backends.sites import parameter_count, sites
from udlbridge.cli import group
from udlbridge.kernels import planning
from udlbridge.networks.selection import names_by_layer, selected_parameters

NAMES = ["conv2d", "conv2d depthwise", "residual with shortcut", "causal attention", "groupnorm", "transformer"]
ALL = EVERY_LAYER | TOKENS


def from_jacobian(blocks: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    n = len(next(iter(blocks.values())))
    flat = [blocks[name].reshape(n, -1) for name in names]
    return sum(block @ block.T for block in flat)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_any_parameter_alone(name: str, backend: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x = batch(model, shape, 3)
    blocks = ub.jacobian(model, x, backend="reference")
    for parameter in model.params:
        for method in ("structured", "plain"):
            kernel = ub.ntk(model, x, params=parameter, backend=backend, method=method)
            assert_within_budget(kernel, from_jacobian(blocks, [parameter]))


@pytest.mark.parametrize("name", NAMES)
def test_layers_sum_to_the_whole(name: str, backend: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x, x2 = batch(model, shape, 3), batch(model, shape, 2, seed=3)
    parts = ub.layer_kernels(model, x, x2, outputs="full", backend=backend)
    assert list(parts) == sorted({name.split(".")[0] for name in model.params}, key=int)
    assert_within_budget(sum(parts.values()), ub.ntk(model, x, x2, outputs="full", backend=backend))


def test_each_part_is_the_kernel_of_the_parameters_of_its_layer(backend: str) -> None:
    for name in ("transformer", "residual with shortcut"):
        layers, shape = ALL[name]
        model = shaken(layers)
        x = batch(model, shape, 3)
        blocks = ub.jacobian(model, x, backend="reference")
        for method in ("structured", "plain"):
            for layer, part in ub.layer_kernels(model, x, backend=backend, method=method).items():
                own = [parameter for parameter in model.params if parameter.startswith(f"{layer}.")]
                assert_within_budget(part, from_jacobian(blocks, own))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_the_parts_of_layers_share_their_passes(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, shape = ALL["transformer"]
    model = shaken(layers)
    x = batch(model, shape, 200)
    seen = []
    own = type(backends.get(engine)).prepare

    def counted(self, job, samples):
        seen.append(len(samples))
        return own(self, job, samples)

    monkeypatch.setattr(type(backends.get(engine)), "prepare", counted)
    monkeypatch.setattr("udlbridge.kernels.planning.LARGEST_TILE", 120)
    parts = ub.layer_kernels(model, x, backend=engine)
    assert sum(seen) == len(x)
    assert len(parts) == 5
    whole = ub.ntk(model, x, backend=engine)
    assert_within_budget(sum(parts.values()), whole)


def test_words_and_patterns() -> None:
    model = ub.Model([ub.Dense(2, 3), ub.Dense(3, 3), ub.Softmax(), ub.Dense(3, 1, bias=False)])
    assert selected_parameters(model, None) == tuple(model.params)
    assert selected_parameters(model, "readout") == ("3.weight",)
    assert selected_parameters(model, "hidden") == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert selected_parameters(model, ["1.*", "*.bias"]) == ("0.bias", "1.weight", "1.bias")


def test_nothing_is_refused() -> None:
    model = ub.Model([ub.Dense(2, 3)])
    x = np.zeros((1, 2), np.float32)
    for wrong in ("1.weight", ["0.weight", "*.scale"], "hidden", []):
        with pytest.raises(errors.ParameterError, match=r"0\.weight, 0\.bias"):
            ub.ntk(model, x, params=wrong)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["residual with shortcut", "transformer", "conv2d wide"])
def test_products_with_the_kernel_of_some_parameters(name: str, backend: str) -> None:
    layers, shape = ALL[name]
    model = shaken(layers)
    x = batch(model, shape, 3)
    for params in ("*.bias", "readout"):
        operator = ub.ntk_operator(model, x, params=params, backend=backend)
        assert_within_budget(operator @ np.eye(3), ub.ntk(model, x, params=params, backend="reference"))
        sizes = [model.params[name].size for name in operator.params]
        assert operator.rank_bound == min(3, operator.reduction.n_cotangents * sum(sizes))


def test_a_store_of_some_parameters(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed, resumed, grown and repaired over the same parameters; refused for others."""
    monkeypatch.setattr(planning, "LARGEST_TILE", 4)
    layers, shape = ALL["transformer"]
    model = shaken(layers)
    x = batch(model, shape, 12)
    path = tmp_path / "K.zarr"
    store = ub.compute_kernel(model, x[:9], path, params=["*.bias", "1.*"], backend=backend)
    names = selected_parameters(model, ["*.bias", "1.*"])
    assert store.manifest["params"] == list(names)
    expected = ub.ntk(model, x, params=names, backend="reference")
    assert_within_budget(np.asarray(store), expected[:9, :9].copy(), factor=2)
    for other in (None, "1.*"):
        with pytest.raises(errors.StoreError, match="was begun with params="):
            ub.compute_kernel(model, x[:9], path, params=other, backend=backend, resume=True)
    again = ub.compute_kernel(model, x[:9], path, params=names, backend=backend, resume=True)
    again.append(x[9:])
    (path / "kernel" / "c" / "1" / "0").unlink()
    assert again.repair() == 1
    assert_within_budget(np.asarray(again), expected, factor=2)
    assert again.compare_with_float64(3) < 1e-12
    assert again.rank_bound == 3 * sum(model.params[name].size for name in names)


def test_a_store_without_a_choice_is_of_all_parameters(tmp_path: Path) -> None:
    model = shaken(ALL["conv2d"][0])
    x = batch(model, ALL["conv2d"][1], 3)
    store = ub.compute_kernel(model, x, tmp_path / "K.zarr", backend="reference")
    assert store.parameters == tuple(model.params)


def test_plans_of_some_parameters_count_these_alone() -> None:
    model = ub.models.small_resnet()

    def planned(params: str | None, method: str = "auto") -> ub.Plan:
        return ub.plan(model, 100, params=params, method=method, backend="torch", memory="20GB", calibrate=False)

    whole, readout, hidden = (planned(params) for params in (None, "readout", "hidden"))
    assert readout.flops < hidden.flops < whole.flops
    assert readout.ram_bytes < hidden.ram_bytes < whole.ram_bytes
    biases, plain = planned("*.bias", "plain"), planned(None, "plain")
    assert biases.ram_bytes < plain.ram_bytes
    with pytest.raises(errors.ParameterError):
        planned("nothing")


@pytest.mark.parametrize("name", ALL)
def test_shares_of_sites_add_up_to_the_plan(name: str) -> None:
    """Every site counts under the names of its parameters, and under no other."""
    layers, shape = ALL[name]
    model = shaken(layers)
    every = [site for layer in names_by_layer(model.params).values() for site in sites(model, shape, layer)]
    assert every == sites(model, shape)
    assert sites(model, shape, ()) == []
    assert sum(parameter_count(model, (name,)) for name in model.params) == model.n_params


def test_the_command_takes_patterns(tmp_path: Path) -> None:
    out = str(tmp_path / "K.npy")
    args = ["kernel", "--model", "3ls", "--n", "3", "--backend", "reference", "--force", "--out", out]
    model = ub.models.three_layer_sigmoid()
    x = ub.data.mnist("train", n=3)[0]
    for given, params in (
        (["readout"], "readout"),
        (["0.*", "*.bias"], ["0.*", "*.bias"]),
        (["readout", "0.bias"], ["2.*", "0.bias"]),
    ):
        options = [word for pattern in given for word in ("--params", pattern)]
        found = CliRunner().invoke(group, [*args, *options], catch_exceptions=False)
        assert found.exit_code == 0
        assert_within_budget(np.load(out), ub.ntk(model, x, params=params, backend="reference"))
    with pytest.raises(errors.ParameterError):
        CliRunner().invoke(group, [*args, "--params", "9.*"], catch_exceptions=False)


def test_words_stand_beside_patterns() -> None:
    model = ub.Model([ub.Dense(3, 4), ub.Activation("relu"), ub.Dense(4, 4), ub.Dense(4, 2)])
    every = tuple(model.params)
    assert selected_parameters(model, ["readout", "hidden"]) == selected_parameters(model, None) == every
    assert selected_parameters(model, ["readout", "0.bias"]) == ("0.bias", "3.weight", "3.bias")
    assert selected_parameters(model, ("0.bias", "hidden", "0.*")) == selected_parameters(model, "hidden") == every[:4]
    assert selected_parameters(model, np.array(["readout"])) == every[4:]
    assert selected_parameters(model, iter(["*.bias"])) == tuple(name for name in every if "bias" in name)


@pytest.mark.parametrize(
    "params", ["hidden", ["hidden", "readout"], 3, [None], [["readout"]], [], "", "Readout"], ids=repr
)
def test_what_selects_nothing(params: object) -> None:
    model = ub.Model([ub.Dense(3, 2)])  # without hidden layers
    with pytest.raises(errors.ParameterError, match=r"params=.*0\.weight, 0\.bias") as caught:
        selected_parameters(model, params)  # type: ignore[arg-type]
    assert params == [] or '"readout", "hidden", one or a list of them' in caught.value.remedy
    with pytest.raises(errors.ParameterError):
        selected_parameters(ub.Model([ub.Flatten()]), "readout")
