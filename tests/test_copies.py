"""Results and values can be pickled and copied, in this process and into another."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from architectures import EVERY_LAYER, shaken
from udlbridge import errors
from udlbridge.udl.expressions import exp, total

MODEL = ub.Model([ub.Conv1d(1, 2, 2, "tanh"), ub.BatchNorm(2), ub.Flatten(), ub.Dense(4, 2)], dtype="float64")
X = np.random.default_rng(0).standard_normal((5, 1, 3))
Y = np.array([0, 1, 1, 0, 1])
KERNEL = ub.ntk(MODEL, X, backend="reference")

HOW: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "old pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["batchnorm", "residual with shortcut", "causal attention"])
def test_models(name: str, how: str) -> None:
    model = shaken(EVERY_LAYER[name][0])
    other = HOW[how](model)
    assert other == model
    assert hash(other) == hash(model)
    assert other.layers == model.layers
    assert other.dtype == model.dtype
    assert list(other.arrays) == list(model.arrays)
    assert not any(array.flags.writeable for array in other.arrays.values())
    with pytest.raises(TypeError):
        other.params["0.weight"] = np.zeros(1)


def test_a_model_of_other_bytes_is_another() -> None:
    changed = {**MODEL.arrays, "1.running_mean": MODEL.arrays["1.running_mean"] + 1}
    other = pickle.loads(pickle.dumps(ub.Model(MODEL.layers, changed)))
    assert other != MODEL
    assert hash(other) != hash(MODEL)


def test_joblib_takes_equal_models_for_equal() -> None:
    joblib = pytest.importorskip("joblib")
    other = ub.Model([*MODEL.layers], dict(MODEL.arrays))
    assert joblib.hash(other) == joblib.hash(MODEL)
    assert joblib.hash(MODEL.astype("float32")) != joblib.hash(MODEL)


def test_the_hash_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ub.Model(MODEL.layers, MODEL.arrays)
    first = model.hash()
    monkeypatch.setattr(ub.Model, "_computed_hash", lambda self: pytest.fail("computed again"))
    assert model.hash() == first
    assert len({model, model}) == 1


def test_a_pool_of_new_processes_computes_with_models_and_hands_errors_back() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        kernel = pool.submit(partial(ub.ntk, backend="reference"), MODEL, X)
        failed = pool.submit(partial(ub.ntk, backend="reference"), MODEL, X[:, :, :2])
        process = pool.submit(os.getpid)
        np.testing.assert_array_equal(kernel.result(), KERNEL)
        assert process.result() != os.getpid()
        with pytest.raises(errors.ShapeError, match="does not fit") as caught:
            failed.result()
    assert caught.value.remedy


def trained(*_: object) -> ub.TrainingRun:
    probe = ub.Probe(X, 1, quantities=("ntk",))
    options = {"loss": "cross_entropy", "epochs": 2, "batch_size": 3, "backend": "reference", "callbacks": [probe]}
    return ub.train(MODEL, X, Y, **options)


RESULTS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any]]] = {
    "Plan": (lambda folder: ub.plan(MODEL, 5, backend="reference"), lambda plan: plan),
    "Spectrum": (lambda folder: ub.spectrum(KERNEL), str),
    "Repair": (lambda folder: ub.repair(KERNEL - 0.1 * np.eye(5)), str),
    "CheckReport": (lambda folder: ub.check(MODEL, X, backends=["torch", "reference"]), str),
    "PortReport": (lambda folder: ub.compare_models(MODEL, MODEL, X, backend="reference"), str),
    "SignalReport": (lambda folder: ub.signal_report(MODEL, X, backend="reference"), str),
    "TrainingRun": (trained, lambda run: (run.to_dict(), run.model, run.state.step)),
    "Probe": (lambda folder: ub.Probe(X, 2), lambda probe: probe.spec()),
    "FactoredKernel": (lambda folder: ub.FactoredKernel(X[:, 0]), lambda kernel: np.asarray(kernel).tolist()),
    "KernelStore": (
        lambda folder: ub.compute_kernel(MODEL, X, folder / "k.zarr", backend="reference"),
        lambda store: (np.asarray(store).tolist(), store.complete, store.path),
    ),
    "Function": (
        lambda folder: ub.Function(lambda p: total(exp(p[0] * X) - 1), backend="reference"),
        lambda function: (function.value(X[0, 0]), function.gradient(X[0, 0]).tolist()),
    ),
    "GradientFlow": (
        lambda folder: ub.predict.gradient_flow(KERNEL, Y - 0.5),
        lambda flow: flow.at(2.0).train.tolist(),
    ),
    "an error": (
        lambda folder: errors.LayerError("given", allowed="allowed", remedy="remedy"),
        lambda error: (type(error), str(error), error.args, vars(error)),
    ),
    "an error that is the system's too": (
        lambda folder: errors.StoreError("given", allowed="allowed", remedy="remedy"),
        lambda error: (type(error), str(error), error.args, vars(error)),
    ),
    "TrainingDiverged": (
        lambda folder: errors.TrainingDiverged("the loss is nan", run=7, remedy="smaller steps"),
        lambda error: (type(error), str(error), error.args, vars(error)),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str, tmp_path: Path) -> None:
    make, seen = RESULTS[name]
    value = make(tmp_path)
    for copied in HOW.values():
        assert seen(copied(value)) == seen(value)


def test_operators(backend: str) -> None:
    operator = ub.ntk_operator(MODEL, X, outputs=1, backend=backend)
    for copied in HOW.values():
        np.testing.assert_array_equal(copied(operator) @ X[:, 0], operator @ X[:, 0])


def test_the_copy_of_a_store_reads_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another working directory too, and with what was appended since."""
    monkeypatch.chdir(tmp_path)
    store = ub.compute_kernel(MODEL, X, "k.zarr", backend="reference")
    packed = pickle.dumps(store)
    store.append(X + 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(packed).shape == (10, 10)
