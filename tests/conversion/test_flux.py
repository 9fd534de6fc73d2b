"""Flux chains that juliacall has made in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge import errors


@pytest.mark.julia
def test_a_chain_of_juliacall() -> None:
    from udlbridge.backends.julia import owner, runtime

    module = owner.run(runtime.start)
    layers = "Dense(3 => 4, NNlib.relu), Flux.LayerNorm(4), Dense(4 => 2; bias=false), NNlib.softmax"
    chain = module.seval(f"Chain({layers})")
    model = ub.from_flux(chain)
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "LayerNorm", "Dense", "Softmax"]
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert_within_budget(ub.outputs(model, x, backend="reference"), np.asarray(chain(x.T)).T)
    with pytest.raises(errors.ConversionError, match=r"layer 1 is the function sum, which UDLBridge cannot translate"):
        ub.from_flux(module.seval("Chain(Dense(3 => 4), sum)"))


LSTM = """
Flux.f64(Chain(Flux.LSTM(3 => 4), x -> x[:, end, :], SkipConnection(Dense(4 => 4, NNlib.gelu), vcat), Dense(8 => 2)))
"""


@pytest.mark.julia
def test_any_model_of_juliacall_is_a_graph_by_an_example() -> None:
    from udlbridge.backends.julia import owner, runtime

    model = owner.run(runtime.start).seval(LSTM)
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    graph = ub.from_flux(model, x)
    assert isinstance(graph, ub.Graph)
    assert list(graph.params) == list(ub.as_network(model).params)
    kernel = ub.ntk(model, x, outputs="full")
    for backend in ("reference", "julia"):
        assert_within_budget(ub.outputs(graph, x, backend=backend), ub.outputs(model, x))
        assert_within_budget(ub.ntk(graph, x, outputs="full", backend=backend), kernel)
        assert_within_budget(ub.input_jacobian(graph, x, backend=backend), ub.input_jacobian(model, x))
    report = ub.check(model, x, backends=["reference"])
    assert report.ok, str(report)
    assert ub.compare_models(model, graph, x, backend="reference").ok
    with pytest.raises(errors.ConversionError, match="without an example"):
        ub.from_flux(model)


def test_a_graph_of_a_file(tmp_path: Path) -> None:
    graph = ub.Graph([ub.Node("y", "linear", ("x", "w"))], "y", params={"w": np.ones((1, 2))}, sample_shape=(2,))
    path = tmp_path / "graph.safetensors"
    graph.save(path)
    assert ub.from_flux(path) == graph
    with pytest.raises(errors.OptionError, match="x with a file"):
        ub.from_flux(path, np.ones((1, 2)))


def test_what_is_neither_a_file_nor_a_chain() -> None:
    with pytest.raises(errors.ConversionError, match=r"from_flux of a Model\. Allowed: the path of a file"):
        ub.from_flux(ub.Model([ub.Dense(2, 1)]))  # type: ignore[arg-type]
