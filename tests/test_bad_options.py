"""What has entries, or a word, or a path, gets something else: an error of ours says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import udlbridge as ub

pytestmark = pytest.mark.usefixtures("untyped")
X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
MODEL = ub.Model([ub.Dense(4, 6, "tanh"), ub.Dense(6, 3)], dtype="float64")
K = X @ X.T
INFINITE = [ub.Dense(4, 8, "relu"), ub.Dense(8, 1)]
TRAIN = {"epochs": 1, "backend": "reference", "progress": False}
GRAPH = {"params": {"w": np.ones((4, 4))}, "sample_shape": (4,)}
NODE = ub.Node("y", "linear", ("x", "w"))

ENGINES: dict[str, Callable[[Any], Any]] = {
    "check": lambda given: ub.check(MODEL, X, backends=given),
    "converges": lambda given: ub.converges(INFINITE, widths=(4,), draws=1, engines=given),
    "study_linearization": lambda given: ub.study_linearization(MODEL, X, X[:, :3], widths=(4,), engines=given),
    "study_alignment": lambda given: ub.study_alignment((X, Y), (X, Y), backends=given, epochs=0, batch_size=12),
}
LISTS: dict[str, Callable[[Any], Any]] = {
    **ENGINES,
    "callbacks": lambda given: ub.train(MODEL, X, Y, callbacks=given, **TRAIN),
    "quantities": lambda given: ub.Probe(X, every=1, quantities=given),
    "kernels": ub.alignment_matrix,
    "widths": lambda given: ub.converges(INFINITE, widths=given, draws=1, engines="reference"),
    "widths of a study": lambda given: ub.study_linearization(MODEL, X, X[:, :3], widths=given, engines="reference"),
    "classes": lambda given: ub.study_alignment(
        (X, Y), (X, Y), backends="reference", epochs=0, batch_size=12, classes=given
    ),
    "nodes": lambda given: ub.Graph(given, "y", **GRAPH),
    "sample_shape": lambda given: ub.Graph([NODE], "y", **{**GRAPH, "sample_shape": given}),
    "inputs of a node": lambda given: ub.Graph([ub.Node("y", "linear", given)], "y", **GRAPH),
    "params": lambda given: ub.ntk(MODEL, X, params=given),
    "layers": ub.Model,
    "outputs": lambda given: ub.ntk(MODEL, X, outputs=given if given != 3 else 3.0),
    "pairs": lambda given: ub.compare_models(MODEL, MODEL, X, pairs=given),
}
WORDS: dict[str, Callable[[Any], Any]] = {
    "backend": lambda given: ub.ntk(MODEL, X, backend=given),
    "method": lambda given: ub.ntk(MODEL, X, method=given),
    "loss": lambda given: ub.train(MODEL, X, Y, loss=given, **TRAIN),
    "storage": lambda given: ub.compute_kernel(MODEL, X, "k.zarr", storage=given),
    "repair": lambda given: ub.repair(K, method=given),
    "split": lambda given: ub.data.mnist(given),
    "dtype of data": lambda given: ub.data.mnist(n=2, dtype=given),
    "practical": ub.practicals.full_name,
    "network of an estimator": lambda given: ub.estimators.NTKRidge(network=given).fit(X, Y),
    "name of a node": lambda given: ub.Graph([ub.Node(given, "linear", ("x", "w"))], "y", **GRAPH),
    "op": lambda given: ub.Graph([ub.Node("y", given, ("x", "w"))], "y", **GRAPH),
    "output": lambda given: ub.Graph([NODE], given, **GRAPH),
}
MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "params": lambda given: ub.Graph([NODE], "y", **{**GRAPH, "params": given}),
    "buffers": lambda given: ub.Graph([NODE], "y", buffers=given, **GRAPH),
    "aliases": lambda given: ub.Graph([NODE], "y", aliases=given, **GRAPH),
    "attributes": lambda given: ub.Graph([ub.Node("y", "linear", ("x", "w"), given)], "y", **GRAPH),
    "lr_groups": lambda given: ub.train(MODEL, X, Y, lr_groups=given, **TRAIN),
}
PATHS: dict[str, Callable[[Any], Any]] = {
    "a store": ub.KernelStore,
    "a new store": lambda given: ub.compute_kernel(MODEL, X, given),
    "an infinite store": ub.infinite.InfiniteStore,
    "a model": ub.Model.load,
    "a new model": MODEL.save,
    "a run": lambda given: ub.train(MODEL, X, Y, save_to=given, **TRAIN),
    "a run to resume": lambda given: ub.train(MODEL, X, Y, resume=given, **TRAIN),
    "a state": lambda given: ub.predict.solve(K, X, diag_reg=0.1, state=given, progress=False),
    "a folder": lambda given: ub.data.mnist(n=2, folder=given),
}
CASES = [
    pytest.param(call, wrong, id=f"{kind}: {name}={wrong!r}"[:80])
    for kind, table, given in (
        ("list", LISTS, (3, ..., [None])),
        ("word", WORDS, (3, [3], {"a": 3}, np.zeros((2, 2)))),
        ("mapping", MAPPINGS, (3, {3: 4}, "word")),
        ("path", PATHS, (3, [3], b"x", np.zeros((2, 2)))),
    )
    for name, call in table.items()
    for wrong in given
]


@pytest.mark.parametrize(("call", "wrong"), CASES)
def test_an_error_of_ours(call: Callable[[Any], Any], wrong: object, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ub.UDLBridgeError) as refused:
        call(wrong)
    assert refused.value.allowed or refused.value.remedy


@pytest.mark.parametrize("name", ENGINES)
def test_engines_that_are_none(name: str) -> None:
    with pytest.raises(ub.errors.OptionError, match=r"engines=3.*torch.*as \"torch,reference\""):
        ENGINES[name](3)
    with pytest.raises(ub.errors.OptionError, match=r"no engine|at least two"):
        ENGINES[name](())
    with pytest.raises(ub.errors.UnknownBackend, match=r"unknown backend 3"):
        ENGINES[name]([3])
