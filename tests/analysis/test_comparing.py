"""Two networks: whether one is the port of the other, and where they part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from click.testing import CliRunner

import udlbridge as ub
from architectures import EVERY_LAYER, batch, shaken
from helpers import random_model, samples
from udlbridge.analysis.port_hints import Step, hints_of
from udlbridge.cli.check import command
from udlbridge.errors import DTypeError, OptionError, ShapeError
from udlbridge.networks.layers import Layer

CONV = ub.Model(
    [ub.Conv2d(2, 3, (2, 3), "tanh", padding=1), ub.MaxPool(2), ub.Flatten(), ub.Dense(18, 4, "relu"), ub.Dense(4, 2)],
    dtype="float64",
    seed=3,
)
X = np.random.default_rng(0).standard_normal((4, 2, 5, 4))


def with_array(model: ub.Model, name: str, value: np.ndarray) -> ub.Model:
    return ub.Model(model.layers, {**model.arrays, name: np.ascontiguousarray(value)})


@pytest.mark.parametrize("name", list(EVERY_LAYER))
def test_a_network_is_its_own_port(name: str) -> None:
    layers, shape = EVERY_LAYER[name]
    model = shaken(layers)
    report = ub.compare_models(model, model, batch(model, shape, 3), backend="reference")
    assert report.ok
    assert report.parted is None
    assert report.outputs == 0.0
    assert "the same network" in str(report)


@pytest.mark.parametrize(
    ("name", "change", "hint", "step"),
    [
        ("0.weight", lambda w: w[:, :, ::-1, ::-1], "equal when flipped: Flux's Conv flips", 0),
        ("3.bias", lambda b: b + 1e-6, "bias differs by", 4),
        ("4.weight", lambda w: -w, "equal when its sign changes", 6),
    ],
)
def test_the_step_where_they_part_is_named_with_the_reason(
    name: str, change: Callable[[np.ndarray], np.ndarray], hint: str, step: int, backend: str
) -> None:
    other = with_array(CONV, name, change(CONV.arrays[name]))
    report = ub.compare_models(CONV, other, X, backend=backend)
    assert not report.ok
    assert report.parted == step
    assert any(hint in line for line in report.hints)
    assert "the first difference" in str(report).splitlines()[report.parted + 1]
    assert all(gap.difference is not None and gap.difference < 1e-12 for gap in report.steps[: report.parted])


def test_transposed_and_swapped_weights_are_recognised() -> None:
    square = random_model([4, 4, 2], ["tanh", "identity"])
    other = with_array(square, "0.weight", square.params["0.weight"].T)
    assert "equal when transposed" in ub.compare_models(square, other, samples(square, 3)).hints[0]
    conv = ub.Model([ub.Conv2d(1, 2, 3, padding=1), ub.Flatten()], dtype="float64")
    other = with_array(conv, "0.weight", conv.params["0.weight"].swapaxes(2, 3))
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4))
    assert "height and width change places" in ub.compare_models(conv, other, x).hints[0]


def test_settings_that_differ_are_shown() -> None:
    other = ub.Model([attrs.evolve(CONV.layers[0], activation="softplus"), *CONV.layers[1:]], CONV.arrays)
    report = ub.compare_models(CONV, other, X)
    assert report.parted == 1
    assert "activation(softplus) in the second" in str(report)
    norms = [ub.Model([ub.LayerNorm(4, eps=eps)], dtype="float64") for eps in (1e-5, 1e-3)]
    assert "eps=0.001" in ub.compare_models(*norms, np.random.default_rng(1).standard_normal((3, 4))).hints[0]


def test_images_flattened_in_another_order_are_recognised() -> None:
    wide = CONV.arrays["3.weight"].reshape(4, 3, 2, 3)
    other = with_array(CONV, "3.weight", wide.transpose(0, 2, 3, 1).reshape(4, 18))  # columns for (H, W, C)
    report = ub.compare_models(CONV, other, X, backend="reference")
    assert report.steps[report.parted or 0].first == "dense(18, 4)"
    assert any("flattened in the order (H, W, C), the first in (C, H, W)" in hint for hint in report.hints)
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Moved(nn.Flatten):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    def net(flatten: Any) -> Any:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 3, 2), flatten, nn.Linear(36, 2)).double()

    report = ub.compare_models(net(nn.Flatten()), net(Moved()), X)
    assert report.parted == 1
    assert "the second flattens in the order (H, W, C), the first in (C, H, W)" in report.hints


def test_the_form_of_gelu_is_named() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2))
    first, second = (
        ub.Model([ub.Dense(2, 4, form), ub.Dense(4, 1)], dtype="float64", seed=1)  # type: ignore[arg-type]
        for form in ("gelu_erf", "gelu_tanh")
    )
    report = ub.compare_models(first, second, x, backend="reference")
    assert report.parted == 1
    assert "the first has GELU in the erf form, the second in the tanh form" in report.hints
    assert (
        ub.compare_models(second, first, x, backend="reference").hints[0].startswith("the first has GELU in the tanh")
    )


def test_a_deviation_in_the_place_of_a_variance_is_recognised() -> None:
    norm, x = shaken([ub.BatchNorm(3)]), np.random.default_rng(0).standard_normal((4, 3))
    variance = norm.arrays["0.running_var"]
    other = with_array(norm, "0.running_var", np.sqrt(variance))
    report = ub.compare_models(norm, other, x, backend="reference")
    assert any("the second has the deviation where the first has the variance" in hint for hint in report.hints)
    report = ub.compare_models(other, norm, x, backend="reference")
    assert any("the second has the variance where the first has the deviation" in hint for hint in report.hints)


def test_settings_of_modules_are_compared() -> None:
    nn = pytest.importorskip("torch").nn
    first, second = (nn.Sequential(nn.BatchNorm1d(3, eps=eps)).double().eval() for eps in (1e-5, 1e-3))
    report = ub.compare_models(first, second, np.random.default_rng(1).standard_normal((3, 3)))
    assert report.hints[0] == "the epsilon of the norm is 1e-05 in the first, 0.001 in the second"


def test_pairs_say_which_steps_correspond() -> None:
    nn = pytest.importorskip("torch").nn
    first = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    second = ub.Model(
        [ub.Dense(3, 3), ub.Activation("tanh"), ub.Activation("identity"), ub.Dense(3, 2)], dtype="float64"
    )
    x = np.random.default_rng(1).standard_normal((4, 3))
    arrays = {"0.weight": "0.weight", "0.bias": "0.bias", "3.weight": "2.weight", "3.bias": "2.bias"}
    state = first.state_dict()
    second = second.with_params({own: state[name].numpy() for own, name in arrays.items()})
    report = ub.compare_models(first, second, x, pairs={"0": "0", "2": "3"}, backend="reference")
    assert report.ok
    assert [(step.first, step.second) for step in report.steps] == [
        ("0 (Linear)", "dense(3, 3)"),
        ("2 (Linear)", "dense(3, 2)"),
    ]
    crossed = ub.compare_models(first, second, x, pairs={"0": "3", "2": "3"}, backend="reference")
    assert [step.difference is None for step in crossed.steps] == [True, False]
    for pairs in ({}, "0"):
        with pytest.raises(OptionError, match="a dict of names of steps"):
            ub.compare_models(first, second, x, pairs=pairs)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"pairs= with '7' for the second network\. Allowed: 0, 1, 3"):
        ub.compare_models(first, second, x, pairs={"0": "7"}, backend="reference")


def test_input_jacobians_and_eigenvalues_are_compared_too() -> None:
    report = ub.compare_models(CONV, CONV, X, backend="reference")
    assert (report.input_jacobian, report.eigenvalues) == (0.0, 0.0)
    assert "d f / d x" in str(report)


def test_how_the_layers_are_cut_does_not_matter() -> None:
    layers: list[Layer] = [
        ub.Conv2d(2, 3, (2, 3), padding=1), ub.Activation("tanh"), ub.Activation("identity"), ub.MaxPool(2),
        ub.Flatten(), ub.Dropout(0.5), ub.Dense(18, 4, "relu"), ub.Dense(4, 2),
    ]  # fmt: skip
    names = {"0": "0", "3": "6", "4": "7"}
    arrays = {f"{names[key[0]]}{key[1:]}": value for key, value in CONV.arrays.items()}
    report = ub.compare_models(CONV, ub.Model(layers, arrays), X)
    assert report.ok
    assert len(report.steps) == 7


def test_equal_outputs_with_another_kernel_are_no_port() -> None:
    """Two Dense layers without an activation between them are one function with one, but not one kernel."""
    deep = random_model([3, 4, 2], ["identity", "identity"])
    w = deep.params["1.weight"]
    merged = ub.Model(
        [ub.Dense(3, 2)],
        {"0.weight": w @ deep.params["0.weight"], "0.bias": w @ deep.params["0.bias"] + deep.params["1.bias"]},
    )
    report = ub.compare_models(deep, merged, samples(deep, 4))
    assert report.outputs is not None
    assert report.outputs < 1e-14
    assert report.kernel is not None
    assert report.kernel > 0.01
    assert not report.ok
    assert "the first has 2 steps, the second 1" in report.hints


def test_shapes_that_part_end_the_table() -> None:
    other = ub.Model([ub.Conv2d(2, 5, (2, 3), padding=1), ub.Flatten(), ub.Dense(120, 2)], dtype="float64")
    report = ub.compare_models(CONV, other, X)
    assert len(report.steps) == 1
    assert report.steps[0].shapes == ((3, 6, 4), (5, 6, 4))
    assert report.steps[0].difference is None
    assert "another shape" in str(report)


def test_bad_input_is_named() -> None:
    with pytest.raises(DTypeError, match=r'ub\.as_network\(second\)\.astype\("float64"\)'):
        ub.compare_models(CONV, CONV.astype("float32"), X)
    with pytest.raises(ShapeError):
        ub.compare_models(CONV, random_model([7, 2], ["tanh"]), X)


def graph_of(table: np.ndarray) -> ub.Graph:
    return ub.Graph(
        [
            ub.Node("h", "matmul", ("x", "table"), {}),
            ub.Node("a", "tanh", ("h",)),
            ub.Node("y", "multiply", ("a", "scale")),
        ],
        "y",
        params={"table": table, "scale": np.array([2.0, 3.0])},
        sample_shape=(3,),
    )


def test_graphs_part_behind_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).standard_normal((3, 2))
    x = np.random.default_rng(1).standard_normal((4, 3))
    same = ub.compare_models(graph_of(table), graph_of(table), x, backend="reference")
    assert same.ok
    assert same.backend == "reference"
    assert [step.first for step in same.steps] == ["h (matmul)", "a (tanh)", "y (multiply)"]
    other = ub.compare_models(graph_of(table), graph_of(-table), x, backend="torch")
    assert (other.ok, other.parted, other.backend) == (False, 0, "torch")
    assert "equal when its sign changes" in other.hints[0]
    model = ub.Model([ub.Dense(3, 2)], dtype="float64")
    mixed = ub.compare_models(graph_of(table), model, x, backend="reference")
    assert mixed.backend == "reference"
    assert [(step.first, step.second) for step in mixed.steps] == [("h (matmul)", "dense(3, 2)")]
    assert mixed.parted == 0
    assert "matched by what they give and are: one is a graph" in mixed.hints[0]


def test_a_graph_and_its_module_are_compared_by_outputs_and_kernel() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    x = np.random.default_rng(1).standard_normal((4, 3))
    report = ub.compare_models(module, ub.from_torch(module, torch.from_numpy(x)), x, backend="reference")
    assert report.ok
    assert report.backend == "torch and reference"


def test_on_the_command_line(tmp_path: Path) -> None:
    CONV.save(tmp_path / "a.safetensors")
    with_array(CONV, "4.bias", CONV.arrays["4.bias"] + 1).save(tmp_path / "b.safetensors")
    arguments = ["--shape", "2,5,4", "--dtype", "float64", "--backend", "reference", "--n", "3"]
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    same = CliRunner().invoke(command, ["--model", files[0], "--against", files[0], *arguments], standalone_mode=False)
    assert same.return_value == 0
    assert "the same network" in same.output
    result = CliRunner().invoke(
        command,
        ["--model", files[0], "--against", files[1], *arguments, "--json", str(tmp_path / "r.json")],
        standalone_mode=False,
    )
    assert result.return_value == 1
    assert "the first difference" in result.output
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["ok"], found["parted"]) == (False, 6)


def test_no_settings_are_held_against_those_of_a_layer_of_julia_which_says_none() -> None:
    value = np.ones((2, 3))
    torch, julia = (
        Step(name, name, k * value, None, {}, settings) for k, name, settings in ((1, "a", "3, 4"), (2, "0", ""))
    )
    assert not any("settings differ" in hint for hint in hints_of(torch, julia, 1e-12))


def test_the_same_outputs_by_other_parameters_are_named() -> None:
    nn = pytest.importorskip("torch").nn
    first = nn.Linear(3, 2).double()
    second = nn.Linear(3, 2).double()
    second.load_state_dict(first.state_dict())
    second.bias.requires_grad_(False)
    x = np.random.default_rng(1).standard_normal((3, 3))
    report = ub.compare_models(first, second, x)
    assert not report.ok
    assert any("by other parameters: the first has 8, the second 6" in hint for hint in report.hints)
    assert not any("other parameters" in hint for hint in ub.compare_models(first, first, x).hints)
