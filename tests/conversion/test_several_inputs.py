"""Modules of several inputs, or of several outputs, as graphs: equal to the module on every engine, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import assert_within_budget
from tests.zoo import SEVERAL, Samples, build_several
from torch import Tensor, nn

import udlbridge as ub
from udlbridge.errors import (
    ConversionError,
    DTypeError,
    GraphError,
    InputError,
    ModelFileError,
    OptionError,
    ShapeError,
    UDLBridgeError,
)


def called(module: nn.Module, x: Samples) -> Any:
    """What a module gives of samples, by name or by position."""
    with torch.no_grad():
        if isinstance(x, dict):
            return module(**{name: torch.from_numpy(part) for name, part in x.items()})
        return module(*map(torch.from_numpy, x))


def assert_crosses(name: str, backends: tuple[str, ...]) -> tuple[nn.Module, Samples, ub.Graph]:
    module, x, output = build_several(name, 4)
    graph = ub.from_torch(module, x, output=output)
    outputs, kernel = (f(module, x, output=output) for f in (ub.outputs, ub.ntk))
    full = ub.ntk(module, x, outputs="full", output=output)
    for backend in backends:
        assert_within_budget(ub.outputs(graph, x, backend=backend), outputs)
        assert_within_budget(ub.ntk(graph, x, outputs="full", backend=backend), full)
        assert_within_budget(ub.ntk(graph, x, method="plain", backend=backend), kernel)
        blocks, expected = ub.jacobian(graph, x, backend=backend), ub.jacobian(module, x, output=output)
        assert_within_budget(*(np.concatenate([b[k].reshape(4, -1) for k in expected], 1) for b in (blocks, expected)))
    return module, x, graph


@pytest.mark.parametrize("name", SEVERAL)
def test_modules_of_several_inputs_cross_and_come_back(name: str, tmp_path: Path) -> None:
    module, x, graph = assert_crosses(name, ("torch", "reference"))
    assert list(graph.inputs) == (list(x) if isinstance(x, dict) else list(map(str, range(len(x)))))
    graph.save(tmp_path / "graph.safetensors")
    assert ub.Graph.load(tmp_path / "graph.safetensors") == graph
    back = ub.to_torch(graph)
    _, unexpected = back.load_state_dict(module.state_dict(), strict=False)
    assert not unexpected
    assert_within_budget(called(back, x).reshape(4, -1).numpy(), ub.outputs(graph, x))
    # What came back crosses again, without saying which output counts.
    assert_within_budget(ub.ntk(ub.from_torch(back, x), x), ub.ntk(graph, x))


@pytest.mark.julia
@pytest.mark.parametrize("name", SEVERAL)
def test_modules_of_several_inputs_cross_to_julia_and_back(name: str, tmp_path: Path) -> None:
    ub.backends.get("julia")  # it starts juliacall, with which this test calls Julia as a user of it does
    from juliacall import Main

    _, x, graph = assert_crosses(name, ("julia",))
    there, back = str(tmp_path / "there.safetensors"), str(tmp_path / "back.safetensors")
    graph.save(there)
    Main.seval("using UDLBridge: UDLBridge")
    network = Main.UDLBridge.load(there)
    Main.UDLBridge.save(network, back)
    assert ub.Graph.load(back) == graph
    # Called as in Julia: samples last, tokens from 1 on, by name or by position.
    parts = x if isinstance(x, dict) else dict(zip(graph.inputs, x, strict=True))
    kinds = {str(one.name): str(one.kind) for one in network.inputs}
    given = {key: part.T + (kinds[key] == "token") if part.dtype.kind != "b" else part.T for key, part in parts.items()}
    found = network(**given) if isinstance(x, dict) else network(*given.values())
    assert_within_budget(np.asarray(found).reshape(-1, 4).T, ub.outputs(graph, x))


def test_names_may_come_in_any_order_and_numbers_of_samples_vary() -> None:
    module, x, output = build_several("BERT with its mask", 4)
    assert isinstance(x, dict)
    graph = ub.from_torch(module, {name: part[:1] for name, part in x.items()}, output=output)
    turned = {name: torch.from_numpy(x[name]) for name in reversed(x)}
    assert_within_budget(ub.ntk(graph, turned), ub.ntk(module, x, output=output))
    assert_within_budget(
        ub.ntk(graph, x, {name: part[:2] for name, part in x.items()}), ub.ntk(module, x, output=output)[:, :2]
    )


def test_the_module_is_left_as_it_was() -> None:
    module, x, output = build_several("twins")
    forward = module.forward
    before = {key: value.clone() for key, value in module.state_dict().items()}
    ub.from_torch(module, x, output=output)
    assert module.forward == forward
    assert "forward" not in vars(module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_one_output_of_a_module_of_one_input() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), torch.tanh(self.other(x))

    module, x = Heads().double(), np.random.default_rng(0).normal(size=(4, 3))
    graph = ub.from_torch(module, x, output=1)
    assert_within_budget(ub.outputs(graph, x), ub.outputs(module, x, output=1))
    assert ub.input_jacobian(graph, x).shape == (4, 4, 3)
    assert graph.spec()["format"] == 2
    with pytest.raises(ConversionError, match=r"gives a tuple.*output='logits' or output=0"):
        ub.from_torch(module, x)
    with pytest.raises(ConversionError, match="output=2 of a tuple"):
        ub.from_torch(module, x, output=2)
    with pytest.raises(OptionError, match=r"output=1 without samples.*from_torch\(module, x"):
        ub.from_torch(module, output=1)


def test_one_input_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, *, series: Tensor) -> Tensor:
            return self.inner(series).sin()

    module, x = Named().double(), {"series": np.random.default_rng(0).normal(size=(4, 3))}
    graph = ub.from_torch(module, x)
    assert list(graph.inputs) == ["series"]
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, x, backend=backend), ub.ntk(module, x))
    assert_within_budget(called(ub.to_torch(graph), x).numpy(), ub.outputs(module, x))


def test_a_graph_of_several_inputs_by_hand() -> None:
    nodes = [
        ub.Node("row", "embedding", ("table", "x[word]"), {"padding": -1}),
        ub.Node("sum", "add", ("row", "x[shift]")),
        ub.Node("y", "multiply", ("sum", "scale")),
    ]
    table = np.random.default_rng(0).normal(size=(5, 2))
    graph = ub.Graph(
        nodes, "y", params={"table": table, "scale": np.ones(2)}, inputs={"word": ((), "int"), "shift": ((2,), "float")}
    )
    x = {"word": np.array([3, 0, 3]), "shift": np.arange(6.0).reshape(3, 2)}
    for backend in ("torch", "reference"):
        assert_within_budget(ub.outputs(graph, x, backend=backend), table[x["word"]] + x["shift"])
    assert repr(graph).startswith("Graph(3 nodes, {'word': (), 'shift': (2,)} -> (2,)")
    assert graph.astype("float32").inputs == graph.inputs
    # Tokens are held against the table behind them.
    with pytest.raises(InputError, match=r"x\['word'\] is 5 at \(1,\).*tokens from 0 to 4"):
        ub.outputs(graph, {**x, "word": np.array([0, 5, 1])})
    assert graph.random_batch((), 50)["word"].max() == 4


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[UDLBridgeError], str]] = {
    "one array": (lambda x: x["left"], InputError, "x has one input, the graph takes 'right', 'left'.*by name"),
    "by position": (lambda x: (x["left"], x["right"]), InputError, "x has the inputs '0', '1', the graph takes"),
    "one is missing": (lambda x: {"left": x["left"]}, InputError, "x has the inputs 'left'"),
    "one too many": (lambda x: {**x, "third": x["left"]}, InputError, "'right', 'left', 'third', the graph takes"),
    "none": (lambda x: {}, InputError, "x has no inputs"),
    "fewer samples": (lambda x: {**x, "left": x["left"][:2]}, ShapeError, "different numbers of samples"),
    "no samples": (lambda x: {k: v[:0] for k, v in x.items()}, InputError, r"x\['right'\] is empty"),
    "another shape": (
        lambda x: {**x, "left": x["left"][:, :3]},
        ShapeError,
        r"x\['left'\] has samples of shape \(3,\)",
    ),
    "another dtype": (lambda x: {**x, "left": x["left"].astype("f4")}, DTypeError, r"x\['left'\] has dtype float32"),
    "not finite": (lambda x: {**x, "left": np.nan * x["left"]}, InputError, r"x\['left'\] is nan at \(0, 0\)"),
    "words": (lambda x: {**x, "left": "words"}, DTypeError, r"x\['left'\] is 'words'|x\['left'\]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_samples_that_do_not_fit_are_refused(fault: str) -> None:
    change, error, words = FAULTS[fault]
    module, x, output = build_several("twins")
    graph = ub.from_torch(module, x, output=output)
    for function in (ub.outputs, ub.ntk):
        with pytest.raises(error, match=words):
            function(graph, change(dict(x)))  # type: ignore[arg-type]


def test_kinds_of_inputs_are_kept() -> None:
    module, x, output = build_several("tokens with a mask")
    graph = ub.from_torch(module, x, output=output)
    assert {name: value.kind for name, value in graph.inputs.items()} == {
        "tokens": "int", "positions": "int", "mask": "bool", "weights": "float"
    }  # fmt: skip
    assert isinstance(x, dict)
    with pytest.raises(DTypeError, match=r"x\['mask'\] has dtype int64, and the graph takes truth values"):
        ub.outputs(graph, {**x, "mask": x["mask"].astype(int)})
    with pytest.raises(DTypeError, match=r"x\['tokens'\] has dtype float64, and the graph takes whole numbers"):
        ub.outputs(graph, {**x, "tokens": x["tokens"] * 1.0})
    with pytest.raises(InputError, match=r"x\['positions'\] is 6 at .*tokens from 0 to 5"):
        ub.outputs(graph, {**x, "positions": x["positions"] * 0 + 6})


@pytest.mark.parametrize("derivative", [ub.input_jacobian, ub.input_hessian])
def test_derivatives_by_several_inputs_are_refused_as_those_of_modules_are(derivative: Any) -> None:
    module, x, output = build_several("twins")
    graph = ub.from_torch(module, x, output=output)
    said = []
    for network in (graph, ub.as_network(module, output=output)):
        with pytest.raises(UDLBridgeError) as caught:
            derivative(network, x)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_to_torch_says_how_it_is_called() -> None:
    module, x, output = build_several("twins")
    back = ub.to_torch(ub.from_torch(module, x, output=output))
    with pytest.raises(
        TypeError, match="got 2 inputs by position, and none by name; it takes 0 by position, and right"
    ):
        called(back, (np.ones((1, 4)), np.ones((1, 4))))


def described(change: Callable[[dict[str, Any]], None]) -> str:
    module, x, output = build_several("twins")
    spec = ub.from_torch(module, x, output=output).spec()
    change(spec)
    return json.dumps(spec)


SPECS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[UDLBridgeError], str]] = {
    "no list": (lambda s: s.update(inputs={"a": 1}), ModelFileError, "in the place of a list"),
    "nothing": (lambda s: s.pop("inputs"), ModelFileError, "'inputs'"),
    "no mappings": (lambda s: s.update(inputs=["left", "right"]), ModelFileError, "in the place of a mapping"),
    "a part is missing": (lambda s: s["inputs"][0].pop("shape"), ModelFileError, "'shape'"),
    "no name": (lambda s: s["inputs"][0].update(name=3), ModelFileError, "in the place of a word"),
    "an empty name": (lambda s: s["inputs"][0].update(name=""), GraphError, "an input called ''"),
    "twice": (lambda s: s["inputs"].append(s["inputs"][0]), ModelFileError, "an input twice"),
    "none": (lambda s: s.update(inputs=[]), GraphError, "without inputs"),
    "another kind": (lambda s: s["inputs"][0].update(kind="word"), GraphError, "float, int, bool"),
    "a shape of words": (lambda s: s["inputs"][0].update(shape=["a"]), ModelFileError, "in the place of an extent"),
    "too large": (lambda s: s["inputs"][0].update(shape=[2**20, 2**20]), GraphError, "at most"),
    "another width": (lambda s: s["inputs"][0].update(shape=[3]), GraphError, "linear"),
    "one that is not used": (lambda s: s["inputs"][0].update(name="other"), GraphError, r"'x\[right\]' is not there"),
    "a newer format": (lambda s: s.update(format=4), ModelFileError, "has format 4.*2 or 3"),
}


@pytest.mark.parametrize("fault", SPECS)
def test_files_that_cannot_be_are_refused(fault: str) -> None:
    change, error, words = SPECS[fault]
    module, x, output = build_several("twins")
    with pytest.raises(error, match=words):
        ub.Graph.from_spec(described(change), ub.from_torch(module, x, output=output).arrays)


def test_graphs_that_cannot_be_are_refused() -> None:
    settings: dict[str, Any] = {"params": {"w": np.ones(2)}}
    node = ub.Node("y", "multiply", ("x[a]", "w"))
    with pytest.raises(OptionError, match="inputs= together with sample_shape="):
        ub.Graph([node], "y", **settings, sample_shape=(2,), inputs={"a": ((2,), "float")})
    with pytest.raises(OptionError, match="sample_shape=None"):
        ub.Graph([node], "y", **settings)
    with pytest.raises(GraphError, match=r"the name 'x\[a\]' stands for two values"):
        ub.Graph([node], "y", params={"w": np.ones(2), "x[a]": np.ones(2)}, inputs={"a": ((2,), "float")})
    with pytest.raises(GraphError, match="an input called 'a' that is"):
        ub.Graph([node], "y", **settings, inputs={"a": (2,)})  # type: ignore[dict-item]


def test_numbers_of_another_dtype_among_the_inputs_are_refused() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.register_buffer("single", torch.ones(2, dtype=torch.float32))

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.inner(x) * (self.single * scale)

    module = Mixed()
    module.inner.double()
    with pytest.raises(ConversionError, match=r"x\[1\] has dtype float32, the module float64"):
        ub.from_torch(module, (np.ones((2, 3)), np.ones((2, 2), "float32")))
