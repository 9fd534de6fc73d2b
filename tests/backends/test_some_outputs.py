"""Kernels of some outputs, `outputs=[2, 0]`: each by itself, in the order in which they were asked for."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import Outputs, checked_reduction

OUTPUTS = 4
MODEL = ub.Model([ub.Dense(5, 7, "tanh"), ub.LayerNorm(7), ub.Dense(7, OUTPUTS)], seed=3, dtype="float64")
X, X2 = (np.random.default_rng(seed).normal(size=(n, 5)) for seed, n in ((0, 9), (1, 4)))
METHODS = ("structured", "plain")

EVERY = [list(one) for size in range(1, OUTPUTS + 1) for one in permutations(range(OUTPUTS), size)]
"""All lists that there are: 64."""


@cache
def theta() -> np.ndarray:
    """The whole kernel of X with X2, (n, m, O, O), of a network of one tanh layer, from its formula alone."""
    w, b, v = (SHALLOW.params[name] for name in ("0.weight", "0.bias", "1.weight"))
    (h, slope), (h2, slope2) = ((np.tanh(x @ w.T + b), 1 - np.tanh(x @ w.T + b) ** 2) for x in (X, X2))
    readout = (h @ h2.T + 1)[:, :, None, None] * np.eye(OUTPUTS)  # by the weights and the bias of the readout
    hidden = np.einsum("ij,ah,ih,jh,bh->ijab", X @ X2.T + 1, v, slope, slope2, v)
    return readout + hidden


SHALLOW = ub.Model([ub.Dense(5, 6, "tanh"), ub.Dense(6, OUTPUTS)], seed=1, dtype="float64")


def test_each_of_some_outputs_by_its_formula(backend: str) -> None:
    for outputs, method in product(EVERY, METHODS):
        expected = np.stack([theta()[:, :, k, k] for k in outputs], axis=2)
        assert_within_budget(ub.ntk(SHALLOW, X, X2, outputs=outputs, backend=backend, method=method), expected)


def test_a_list_is_that_part_of_the_diagonal(backend: str) -> None:
    for method, params in product(METHODS, (None, "0.weight", "2.bias")):
        options = {"backend": backend, "method": method, "params": params}
        diagonal = ub.ntk(MODEL, X, outputs="diagonal", **options)
        for outputs in EVERY:
            found = ub.ntk(MODEL, X, outputs=outputs, **options)
            assert found.shape == (9, 9, len(outputs))
            assert_within_budget(found, diagonal[..., outputs])
            np.testing.assert_array_equal(found, found.swapaxes(0, 1))


def test_whatever_names_some(backend: str) -> None:
    expected = ub.ntk(MODEL, X, outputs=[1, 2], backend=backend)
    for outputs in (
        (1, 2),
        range(1, 3),
        np.array([1, 2]),
        np.array([1, 2], dtype=np.uint8),
        torch.tensor([1, 2]),
        "1,2",
    ):
        np.testing.assert_array_equal(ub.ntk(MODEL, X, outputs=outputs, backend=backend), expected)
    one = ub.ntk(MODEL, X, outputs=[3], backend=backend)
    assert one.shape == (9, 9, 1)
    assert_within_budget(one[..., 0], ub.ntk(MODEL, X, outputs=3, backend=backend))


class Skipping(torch.nn.Module):
    """A network that is a graph: two ways from the samples to the outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(5, 6), torch.nn.Linear(6, OUTPUTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x))) + x[:, :OUTPUTS] ** 2


def test_graphs(backend: str) -> None:
    graph = ub.from_torch(Skipping().double(), X[:2])
    assert isinstance(graph, ub.Graph)
    for method in ("auto", "plain"):
        diagonal = ub.ntk(graph, X, outputs="diagonal", backend=backend, method=method)
        found = ub.ntk(graph, X, outputs=[OUTPUTS - 1, 0], backend=backend, method=method)
        assert_within_budget(found, diagonal[..., [OUTPUTS - 1, 0]])


def test_modules() -> None:
    module = Skipping().double()
    for method in METHODS:
        diagonal = ub.ntk(module, X, outputs="diagonal", method=method)
        assert_within_budget(
            ub.ntk(module, X, outputs=[OUTPUTS - 1, 0], method=method), diagonal[..., [OUTPUTS - 1, 0]]
        )


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([], r"outputs=\[\] names no output.*name one at least"),
        (range(0), "names no output"),
        (np.array([]), "names no output"),
        ([1, 1], "names output 1 twice.*each output once"),
        (np.array([0, 2, 0]), "names output 0 twice"),
        ([0, OUTPUTS], rf"which holds {OUTPUTS}, for a network with {OUTPUTS} outputs.*from 0 to {OUTPUTS - 1}"),
        ([-1], "which holds -1.*count from 0"),
        (range(10**12), f"which holds {OUTPUTS}"),
        ([True, False], r"is a mask.*outputs=np.flatnonzero\(mask\)"),
        (np.array([True, False, True, False]), "is a mask"),
        (torch.tensor([True, False]), "is a mask"),
        ([0, 1.0], r"holds 1\.0.*whole numbers"),
        (["trace", 0], "holds 'trace'"),
        ([[0, 1]], r"holds \[0, 1\]"),
        (np.eye(2, dtype=int), r"in a list, as outputs=\[0, 1\]"),
        ({0, 1}, r"in a list, as outputs=\[0, 1\]"),
    ],
    ids=str,
)
def test_lists_that_cannot_be_meant(outputs: Outputs, words: str) -> None:
    with pytest.raises(ub.errors.OutputsError, match=words):
        checked_reduction(outputs, OUTPUTS)


def test_there_is_one_way_of_writing_a_kernel() -> None:
    for outputs in EVERY:
        reduction = checked_reduction(outputs, OUTPUTS)
        assert reduction.outputs == ("diagonal" if outputs == list(range(OUTPUTS)) else outputs)
        assert checked_reduction(reduction.outputs, OUTPUTS) == reduction
        assert reduction.trailing == (len(outputs),)
        assert list(reduction.indices) == outputs


def test_only_these_outputs_are_passed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[object] = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **named: passes.append(given) or grad(*given, **named))
    ub.ntk(MODEL, X, outputs="diagonal", backend="torch")
    every = len(passes)
    passes.clear()
    ub.ntk(MODEL, X, outputs=[2, 0], backend="torch")
    assert (every, len(passes)) == (OUTPUTS, 2)
    plans = [
        ub.plan(MODEL, 100, sample_shape=(5,), outputs=outputs, calibrate=False) for outputs in ([2, 0], "diagonal")
    ]
    assert plans[0].flops < plans[1].flops
    assert plans[0].outputs == [2, 0]


def test_layers_add_up(backend: str) -> None:
    by_layer = ub.layer_kernels(MODEL, X, outputs=[2, 0], backend=backend)
    assert_within_budget(sum(by_layer.values()), ub.ntk(MODEL, X, outputs=[2, 0], backend=backend))


def test_a_store_of_some_outputs(tmp_path: Path, backend: str) -> None:
    path, options = tmp_path / "K.zarr", {"backend": backend, "progress": False}
    expected = ub.ntk(MODEL, np.concatenate([X, X2]), outputs=[2, 0], backend=backend)
    ub.compute_kernel(MODEL, X, path, outputs=(2, 0), **options)
    again = ub.compute_kernel(MODEL, X, path, outputs=np.array([2, 0]), resume=True, **options)  # the same kernel
    assert again.manifest["outputs"] == [2, 0]
    with pytest.raises(ub.errors.StoreError, match=r"\[2, 0\]"):
        ub.compute_kernel(MODEL, X, path, outputs=[0, 2], resume=True, **options)
    ub.KernelStore(path).append(X2, backend=backend, progress=False)
    store = ub.KernelStore(path)
    assert store.shape == (13, 13, 2)
    assert store.verify().ok
    assert_within_budget(np.asarray(store), expected)
    assert store.compare_with_float64(1) < 1e-12


def test_a_job_crosses_to_other_processes_whole() -> None:
    job = KernelJob(MODEL, checked_reduction([2, 0], OUTPUTS))
    assert pickle.loads(pickle.dumps(replace(job, watch=None))) == job


def test_probes_take_them_and_write_them_down(tmp_path: Path) -> None:
    y, file = np.arange(9) % OUTPUTS, tmp_path / "run.safetensors"
    options = {"backend": "reference", "progress": False, "loss": "cross_entropy"}
    first = ub.Probe(X, every=1, quantities=("ntk",), outputs=np.array([2, 0]))
    run = ub.train(MODEL, X, y, epochs=1, callbacks=[first], save_to=file, **options)
    assert run.records["probe"]["ntk"].shape[1:] == (9, 9, 2)
    same = ub.Probe(X, every=1, quantities=("ntk",), outputs=(2, 0))
    assert ub.train(MODEL, X, y, epochs=2, callbacks=[same], resume=file, **options).epochs == 2
