"""Calls that cannot be meant say what is allowed, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.backends.reduction import checked_reduction

X = np.eye(2)
MODEL = ub.Model([ub.Dense(2, 2)], dtype="float64")
LAYER = ub.Dense(2, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ub.train(MODEL, X, [0, 1], epochs=1, lr=0.1), r'optimizer=\("sgd", {"lr": 0.1}\)'),
        (lambda: ub.train(MODEL, X, [0, 1], epochs=1, optimiser="sgd"), "perhaps 'optimizer'"),
        (lambda: ub.train(MODEL, X, [0, 1], epochs=1, momentum=0.9), r'optimizer=\("momentum"'),
        (lambda: ub.train(MODEL, X, [0, 1]), "epochs.*epochs=10"),
        (lambda: ub.train(MODEL, X, [0, 1], 3), "by name.*epochs=3"),
        (lambda: ub.Model(LAYER, LAYER), "in one list"),
        (lambda: ub.Model(LAYER, LAYER, LAYER), "in one list"),
        (lambda: ub.Model([LAYER], weights={}), "layers, params, seed, dtype"),
        (lambda: MODEL(X), r"ub.outputs\(model, x"),
        (lambda: ub.ntk(MODEL, X, backends="torch"), "perhaps 'backend'"),
        (lambda: ub.ntk(MODEL), "missing.*'x'"),
        (lambda: ub.ntk(MODEL, X, None, "trace"), "by name"),
        (lambda: ub.check(MODEL, X, backend="torch"), "backends="),
        (lambda: ub.plan(MODEL, 5, n=5), "model, n"),
        (lambda: checked_reduction([True, False], 2), r"outputs=np.flatnonzero\(mask\)"),
    ],
)
def test_what_cannot_be_meant_has_a_remedy(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ub.UDLBridgeError, match=words):
        call()


def test_signatures_stay_what_they_are() -> None:
    assert list(inspect.signature(ub.ntk).parameters)[:3] == ["model", "x", "x2"]
    assert "epochs" in inspect.signature(ub.train).parameters
    assert list(inspect.signature(ub.Model).parameters) == ["layers", "params", "seed", "dtype"]


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    options = {"backend": "reference", "save_to": file, "progress": False}
    ub.train(MODEL, X, [0, 1], epochs=1, **options)
    before = file.read_bytes()
    with pytest.raises(ub.UDLBridgeError, match=r"run.safetensors exists.*overwrite=True.*resume="):
        ub.train(MODEL, X, [1, 0], epochs=1, **options)
    assert file.read_bytes() == before
    resumed = ub.train(MODEL, X, [0, 1], epochs=2, resume=file, **options)  # going on is not overwriting
    ub.train(MODEL, X, [0, 1], epochs=3, resume=resumed, **options)
    assert ub.TrainingRun.load(file).epochs == 3
    ub.train(MODEL, X, [1, 0], epochs=1, overwrite=True, **options)
    assert ub.TrainingRun.load(file).epochs == 1
