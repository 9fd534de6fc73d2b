"""Graphs: what they refuse, their files, their selections, and their table."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import (
    ConversionError,
    DTypeError,
    GraphError,
    InputError,
    ModelFileError,
    OptionError,
    ParameterError,
    ShapeError,
)
from udlbridge.networks.graphs.operations import OPERATIONS, table
from udlbridge.networks.graphs.values import PerSample

DOCS = Path(__file__).parents[2] / "docs" / "pages" / "operations.md"


def small(**changes: Any) -> ub.Graph:
    """tanh(x W' + b) times a buffer, with one more name for W."""
    r = np.random.default_rng(0)
    settings: dict[str, Any] = {
        "nodes": [
            ub.Node("z", "linear", ("x", "body.weight", "body.bias"), source="body"),
            ub.Node("h", "tanh", ("z",)),
            ub.Node("y", "multiply", ("h", "scale")),
        ],
        "output": "y",
        "params": {"body.weight": r.normal(size=(2, 3)), "body.bias": r.normal(size=2)},
        "buffers": {"scale": r.normal(size=2)},
        "sample_shape": (3,),
        "aliases": {"head.weight": "body.weight"},
    }
    settings.update(changes)
    nodes, output = settings.pop("nodes"), settings.pop("output")
    return ub.Graph(nodes, output, **settings)


def test_derivatives_that_are_not_followed_are_refused_and_not_zero() -> None:
    stopped = ub.Node("h", "stop_gradient", ("t",))
    nodes = [ub.Node("z", "linear", ("x", "body.weight", "body.bias")), ub.Node("t", "tanh", ("z",)), stopped]
    graph, x = small(nodes=[*nodes, ub.Node("y", "multiply", ("h", "scale"))]), np.ones((2, 3))
    for backend in ("torch", "reference"):
        for derivative in (ub.jacobian, ub.ntk, ub.ntk_operator):
            with pytest.raises(ConversionError, match=r"no derivative by the parameters body\.weight, body\.bias"):
                derivative(graph, x, backend=backend)
        with pytest.raises(ConversionError, match="no derivative by the samples"):
            ub.input_jacobian(graph, x, backend=backend)
    apart = small(nodes=[*nodes, ub.Node("y", "multiply", ("h", "body.bias"))])
    for backend in ("torch", "reference"):
        assert ub.jacobian(apart, x, backend=backend)["body.bias"].any()
        with pytest.raises(ConversionError, match=r"no derivative by the parameters body\.weight\b"):
            ub.ntk(apart, x, params="body.weight", backend=backend)


@pytest.mark.parametrize("backend", ["torch", "reference", pytest.param("julia", marks=pytest.mark.julia)])
def test_derivatives_and_kernels_are_those_of_the_formula(backend: str) -> None:
    graph, x = small(), np.random.default_rng(1).normal(size=(4, 3))
    w, b, s = graph.params["body.weight"], graph.params["body.bias"], graph.buffers["scale"]
    h = np.tanh(x @ w.T + b)
    slope = s * (1 - h**2)
    np.testing.assert_allclose(ub.outputs(graph, x, backend=backend), h * s, atol=1e-14)
    np.testing.assert_allclose(ub.input_jacobian(graph, x, backend=backend), slope[:, :, None] * w[None], atol=1e-14)
    by_bias = slope[:, None] * slope[None]
    trace = (by_bias * (1 + x @ x.T)[:, :, None]).sum(-1)
    for method in ("auto", "plain"):
        np.testing.assert_allclose(ub.ntk(graph, x, backend=backend, method=method), trace, atol=1e-13)
    parts = ub.layer_kernels(graph, x, backend=backend)
    assert list(parts) == ["body"]
    np.testing.assert_allclose(
        ub.ntk(graph, x, params="*.bias", outputs="diagonal", backend=backend), by_bias, atol=1e-13
    )
    np.testing.assert_array_equal(
        ub.ntk(graph, x, params="head.weight", backend=backend), ub.ntk(graph, x, params="body.weight", backend=backend)
    )
    operator = ub.ntk_operator(graph, x, backend=backend)
    np.testing.assert_allclose(operator @ np.ones(4), trace @ np.ones(4), atol=1e-12)


def test_the_reference_engine_has_no_structured_kernel_of_a_graph() -> None:
    x = np.zeros((2, 3))
    with pytest.raises(OptionError, match="structured"):
        ub.ntk(small(), x, backend="reference", method="structured")
    with pytest.raises(OptionError, match="second derivatives"):
        ub.input_hessian(small(), x, backend="reference")


def test_a_file_gives_the_graph_back(tmp_path: Path) -> None:
    graph = small()
    graph.save(tmp_path / "graph.safetensors")
    again = ub.Graph.load(tmp_path / "graph.safetensors")
    assert again == graph == pickle.loads(pickle.dumps(graph))
    assert again.aliases == graph.aliases
    assert again.nodes[0].source == "body"
    assert graph != graph.with_params({name: value + 1 for name, value in graph.params.items()})
    with pytest.raises(ModelFileError, match=r"holds a graph\. Allowed: a model of layers.*ub\.Graph\.load"):
        ub.Model.load(tmp_path / "graph.safetensors")
    ub.Model([ub.Dense(3, 2)]).save(tmp_path / "layers.safetensors")
    with pytest.raises(ModelFileError, match=r"ub\.Model\.load"):
        ub.Graph.load(tmp_path / "layers.safetensors")


def test_a_graph_says_who_evaluates_it() -> None:
    with pytest.raises(OptionError, match=r"a Graph called as a function.*ub\.outputs\(model, x"):
        small()(np.zeros((1, 3)))


def test_the_spec_is_json_where_a_number_is_infinite() -> None:
    nodes = [
        ub.Node("low", "fill", (), {"shape": (), "value": -float("inf")}),
        ub.Node("y", "maximum", ("x", "low")),
    ]
    graph = ub.Graph(nodes, "y", params={}, sample_shape=(3,))
    text = json.dumps(graph.spec(), allow_nan=False)
    assert ub.Graph.from_spec(text, {}).nodes == graph.nodes


def test_a_file_keeps_arrays_without_axes(tmp_path: Path) -> None:
    scaled = [ub.Node("y", "multiply", ("x", "temperature"))]
    graph = ub.Graph(scaled, "y", params={"temperature": np.array(1.5)}, sample_shape=(3,))
    graph.save(tmp_path / "graph.safetensors")
    assert ub.Graph.load(tmp_path / "graph.safetensors").params["temperature"].shape == ()


def test_the_command_line_takes_files_of_graphs(tmp_path: Path) -> None:
    from tests.helpers import udlbridge

    small().save(tmp_path / "graph.safetensors")
    done = udlbridge(
        "check", "--model", tmp_path / "graph.safetensors", "--backend", "torch,reference", "--n", 3, "--shape", "3"
    )
    assert done.returncode == 0, done.stderr
    assert "torch, reference: agree" in done.stdout
    assert ub.plan(small(), 100, calibrate=False).n == 100


def test_a_graph_in_another_dtype_computes_in_it() -> None:
    graph = small().astype("float32")
    x = np.ones((2, 3), np.float32)
    for backend in ("torch", "reference"):
        assert ub.outputs(graph, x, backend=backend).dtype == np.float32
        assert ub.ntk(graph, x, backend=backend).dtype == np.float32


NODES = small().nodes
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown operation": ({"nodes": [ub.Node("y", "frobnicate", ("x",))]}, "no operation 'frobnicate'"),
    "cycle": ({"nodes": [ub.Node("y", "add", ("x", "z")), ub.Node("z", "tanh", ("y",))]}, "cycle"),
    "unknown value": ({"nodes": [ub.Node("y", "tanh", ("nothing",))]}, "'nothing' is not there"),
    "name twice": ({"nodes": [*NODES, NODES[-1]]}, "'y' is taken"),
    "name of an array": ({"nodes": [ub.Node("scale", "tanh", ("x",))], "output": "scale"}, "'scale' is taken"),
    "too few inputs": ({"nodes": [ub.Node("y", "matmul", ("x",))]}, "1 inputs"),
    "no attribute": ({"nodes": [ub.Node("y", "softmax", ("x",))]}, "attributes none"),
    "attribute of another kind": ({"nodes": [ub.Node("y", "softmax", ("x",), {"axis": "one"})]}, "axis=one"),
    "huge attribute": ({"nodes": [ub.Node("y", "softmax", ("x",), {"axis": 10**30})]}, "axis=1000"),
    "axis": ({"nodes": [ub.Node("y", "softmax", ("x",), {"axis": 2})]}, "axis 2"),
    "shapes": ({"nodes": [ub.Node("y", "add", ("x", "scale"))]}, "do not broadcast"),
    "too large": (
        {"nodes": [ub.Node("y", "fill", (), {"shape": (PerSample(), 10**12), "value": 1.0})]},
        "at most",
    ),
    "no output": ({"output": "nothing"}, "not the name of a value"),
    "output of no samples": ({"nodes": [ub.Node("y", "tanh", ("scale",))]}, "samples along the first axis"),
    "output of all samples": (
        {"nodes": [ub.Node("a", "permute", ("x",), {"axes": (1, 0)}), ub.Node("y", "matmul", ("x", "a"))]},
        "for samples of two",
    ),
    "alias of nothing": ({"aliases": {"other": "nothing"}}, "alias"),
    "name that is a path": ({"buffers": {"scale": np.ones(2), "body": np.ones(2)}}, "'body'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_cannot_be_is_refused(fault: str) -> None:
    changes, words = WRONG[fault]
    with pytest.raises(GraphError, match=words):
        small(**changes)


def test_arrays_that_cannot_be_are_refused() -> None:
    for value in (np.full((2, 3), np.nan), np.ones((2, 3), np.float16), np.ones((2, 3), np.float32)):
        with pytest.raises(ParameterError):
            small(params={"body.weight": value, "body.bias": np.ones(2)})


def test_samples_that_do_not_fit_are_refused() -> None:
    for x, error in ((np.zeros((2, 4)), ShapeError), (np.zeros((2, 3), np.float32), DTypeError)):
        with pytest.raises(error):
            ub.outputs(small(), x)
    with pytest.raises(InputError, match="nan"):
        ub.outputs(small(), np.full((2, 3), np.nan))


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A graph's file with another spec."""
    from safetensors.numpy import save_file

    graph = small()
    spec = graph.spec()
    change(spec)
    save_file(graph.arrays, path, metadata={"udlbridge": json.dumps(spec)})


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no nodes": lambda spec: spec.pop("nodes"),
    "nodes of another type": lambda spec: spec.update(nodes=7),
    "a node of another type": lambda spec: spec.update(nodes=[7]),
    "an operation of another type": lambda spec: spec["nodes"][0].update(op=[]),
    "another format": lambda spec: spec.update(format=4),
    "an array too few": lambda spec: spec.update(buffers=[]),
    "an array too many": lambda spec: spec["buffers"].append("more"),
    "a negative extent": lambda spec: spec.update(sample_shape=[-3]),
    "attributes that are none": lambda spec: spec["nodes"][0].update(attributes={"code": "__import__('os')"}),
    "a list in an attribute": lambda spec: spec["nodes"][1].update(op="softmax", attributes={"axis": [[[[]]]]}),
    "an unhashable name": lambda spec: spec["nodes"][0].update(inputs=[["x"]]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    rewritten(tmp_path / "graph.safetensors", DAMAGE[damage])
    with pytest.raises((ModelFileError, GraphError, ParameterError)):
        ub.Graph.load(tmp_path / "graph.safetensors")


def test_a_million_nodes_are_refused() -> None:
    with pytest.raises(GraphError, match="1,000,001 nodes"):
        small(nodes=[NODES[0]] * 1_000_001)


def test_check_compares_the_engines_that_compute_graphs() -> None:
    report = ub.check(small(), np.random.default_rng(1).normal(size=(3, 3)), backends=["torch", "reference"])
    assert report.ok
    assert report.worst < 1e-14


def test_check_names_the_node_where_engines_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from udlbridge.backends.reference.graphs import network
    from udlbridge.backends.reference.graphs.rule import slope_rule

    wrong = slope_rule(lambda a, x: np.tanh(x) * 1.001, lambda a, x, y: 1 - y**2)
    monkeypatch.setitem(network.RULES, "tanh", wrong)
    report = ub.check(small(), np.random.default_rng(1).normal(size=(3, 3)), backends=["torch", "reference"])
    assert not report.ok
    assert "node 'h' (tanh)" in report.parted["torch and reference"]


def test_truth_values_tokens_and_constants() -> None:
    """A bag of words: the mean over the tokens that are no padding, where the padding gets no gradient."""
    r = np.random.default_rng(0)
    nodes = [
        ub.Node("rows", "embedding", ("table", "x"), {"padding": 0}),
        ub.Node("number", "cast", ("x",)),
        ub.Node("zero", "fill", (), {"shape": (), "value": 0.0}),
        ub.Node("one", "fill", (), {"shape": (), "value": 1.0}),
        ub.Node("word", "compare", ("number", "zero"), {"relation": "not_equal"}),
        ub.Node("common", "compare", ("number", "one"), {"relation": "equal"}),
        ub.Node("rare", "logical", ("common",), {"function": "not"}),
        ub.Node("counted", "logical", ("word", "rare"), {"function": "and"}),
        ub.Node("weights", "cast", ("counted",)),
        ub.Node("column", "reshape", ("weights",), {"shape": (PerSample(), 1, 4)}),
        ub.Node("bag", "matmul", ("column", "rows")),
        ub.Node("y", "reshape", ("bag",), {"shape": (PerSample(), 3)}),
    ]
    graph = ub.Graph(nodes, "y", params={"table": r.normal(size=(5, 3))}, sample_shape=(4,), tokens=True)
    x = np.array([[0, 1, 2, 2], [3, 4, 0, 1]])
    t = graph.params["table"]
    for backend in ("torch", "reference"):
        np.testing.assert_allclose(ub.outputs(graph, x, backend=backend), np.stack([2 * t[2], t[3] + t[4]]), atol=1e-14)
        np.testing.assert_allclose(ub.ntk(graph, x, backend=backend), np.diag([12.0, 6.0]), atol=1e-12)
    with pytest.raises(InputError, match="5 at"):
        ub.outputs(graph, np.array([[0, 1, 2, 5]]))
    with pytest.raises(InputError, match="tokens"):
        ub.input_jacobian(graph, x)


MOVED = {
    "reshape": [ub.Node("t", "reshape", ("x",), {"shape": (PerSample(), 2, 2)})],
    "permute": [
        ub.Node("r", "reshape", ("x",), {"shape": (PerSample(), 2, 2)}),
        ub.Node("t", "permute", ("r",), {"axes": (0, 2, 1)}),
    ],
    "slice": [ub.Node("t", "slice", ("x",), {"axis": 1, "start": 1, "stop": 4, "step": 2})],
    "take": [ub.Node("t", "take", ("x", "order"), {"axis": 1})],
    "expand": [
        ub.Node("r", "reshape", ("x",), {"shape": (PerSample(), 1, 4)}),
        ub.Node("t", "expand", ("r",), {"shape": (PerSample(), 3, 4)}),
    ],
    "concatenate": [
        ub.Node("first", "expand", ("start",), {"shape": (PerSample(), 1)}),
        ub.Node("t", "concatenate", ("first", "x"), {"axis": 1}),
    ],
    "stop_gradient": [ub.Node("t", "stop_gradient", ("x",))],
}
"""How tokens may come to a table, by the last operation that moves them: `order` takes the places 3 and 1."""


def lookup(moves: list[ub.Node], *, own_table: bool = False) -> ub.Graph:
    """The sum of the rows of a table of five that tokens are looked up in, after the moves."""
    extra = [ub.Node("own", "multiply", ("table", "table"))] if own_table else []
    nodes = [
        *moves,
        *extra,
        ub.Node("rows", "embedding", ("own" if own_table else "table", "t"), {"padding": -1}),
        ub.Node("flat", "reshape", ("rows",), {"shape": (PerSample(), *FLAT[moves[-1].op])}),
        ub.Node("y", "sum", ("flat",), {"axes": (1,), "keep": False}),
    ]
    return ub.Graph(
        nodes,
        "y",
        params={"table": np.random.default_rng(0).normal(size=(5, 3))},
        buffers={"order": np.array([3, 1]), "start": np.array([[0]])},
        sample_shape=(4,),
        tokens=True,
    )


FLAT = {"slice": (2, 3), "take": (2, 3), "expand": (12, 3), "concatenate": (5, 3)}
FLAT |= dict.fromkeys(("reshape", "permute", "stop_gradient"), (4, 3))


@pytest.mark.parametrize("own_table", [False, True], ids=["parameter", "value"])
@pytest.mark.parametrize("op", MOVED)
def test_tokens_are_checked_behind_whatever_moves_them(op: str, own_table: bool) -> None:
    """Also of a table that is itself a node's value; numbers that no table is asked for may be anything."""
    graph = lookup(MOVED[op], own_table=own_table)
    good = np.array([[0, 1, 2, 4]])
    assert ub.outputs(graph, good, backend="reference").shape == (1, 3)
    assert set(np.unique(graph.random_batch((4,), 50)[:, [1, 3]])) == {0, 1, 2, 3, 4}
    for wrong in (-1, 5, 7):
        x = good.copy()
        x[0, 1] = wrong
        for backend in ("torch", "reference"):
            with pytest.raises(InputError, match=rf"x is {wrong} at \(0, 1\).*from 0 to 4"):
                ub.outputs(graph, x, backend=backend)
    if op in ("slice", "take"):
        ub.outputs(graph, np.array([[99, 1, -7, 4]]), backend="reference")


def test_each_place_of_a_sample_is_held_against_its_own_table() -> None:
    """Two columns of categories, of three and of ten, and one that gives the place of a `take`."""
    columns = [ub.Node(f"c{k}", "slice", ("x",), {"axis": 1, "start": k, "stop": k + 1, "step": 1}) for k in range(3)]
    nodes = [
        *columns,
        ub.Node("a", "embedding", ("small", "c0"), {"padding": -1}),
        ub.Node("b", "embedding", ("large", "c1"), {"padding": -1}),
        ub.Node("place", "reshape", ("c2",), {"shape": (PerSample(),)}),
        ub.Node("chosen", "take", ("third", "place"), {"axis": 1}),
        ub.Node("c", "permute", ("chosen",), {"axes": (1, 0)}),
        ub.Node("c'", "reshape", ("c",), {"shape": (PerSample(), 1, 2)}),
        ub.Node("y", "concatenate", ("a", "b", "c'"), {"axis": 2}),
    ]
    tables = {"small": np.ones((3, 2)), "large": np.ones((10, 2)), "third": np.arange(8.0).reshape(2, 4)}
    graph = ub.Graph(nodes, "y", params=tables, sample_shape=(3,), tokens=True)
    assert ub.outputs(graph, np.array([[2, 9, 3]]), backend="reference")[0, -2:].tolist() == [3.0, 7.0]
    assert graph.random_batch((3,), 200).max(axis=0).tolist() == [2, 9, 3]
    for wrong, most in (([3, 9, 3], 2), ([2, 10, 3], 9), ([2, 9, 4], 3), ([2, 9, -1], 3)):
        with pytest.raises(InputError, match=f"from 0 to {most}"):
            ub.outputs(graph, np.array([wrong]), backend="reference")


def test_the_table_in_the_documentation_is_that_of_the_code() -> None:
    assert table() in DOCS.read_text(encoding="utf-8")


def test_the_documentation_says_what_each_engine_has() -> None:
    def share(names: frozenset[str]) -> str:
        return {0: "none", len(OPERATIONS): "all"}.get(len(names), ", ".join(sorted(names)))

    for name in ("torch", "julia", "reference"):
        engine = ub.backends.engine(name)
        kernels = "structured" if engine.structured_graphs else "of per-sample Jacobians"
        row = (f"`{name}`", share(engine.graph_operations), share(engine.curved_operations), kernels)
        assert f"| {' | '.join(row)} |\n" in DOCS.read_text(encoding="utf-8")


def test_every_engine_has_every_operation() -> None:
    from udlbridge.backends.pytorch.graphs import module
    from udlbridge.backends.reference.graphs import network

    assert set(network.RULES) == set(OPERATIONS)
    assert {*module.RULES, "fill", "cast"} == set(OPERATIONS)
