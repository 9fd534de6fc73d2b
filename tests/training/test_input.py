"""What training refuses, and what its errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import (
    DTypeError,
    InputError,
    NumericalError,
    OptionError,
    RunFileError,
    ShapeError,
    UDLBridgeError,
    UnknownBackend,
)

X = np.random.default_rng(0).standard_normal((10, 4))
Y = np.arange(10) % 3


def model(width: int = 5, n_outputs: int = 3) -> ub.Model:
    return ub.Model([ub.Dense(4, width, "tanh"), ub.Dense(width, n_outputs)], seed=0, dtype="float64")


def train(**changes: Any) -> ub.TrainingRun:
    settings: dict[str, Any] = {"model": model(), "x": X, "y": Y, "epochs": 1, "backend": "reference", **changes}
    return ub.train(**settings)


BAD: list[tuple[dict[str, Any], type[UDLBridgeError], str]] = [
    ({"y": Y[:9]}, ShapeError, r"y has shape \(9,\) for 10 samples"),
    ({"y": np.eye(4)[Y]}, ShapeError, r"\(10, 4\) for 10 samples and 3 outputs"),
    ({"y": Y + 1}, InputError, "class numbers from 0 to 2"),
    ({"y": Y + 0.5}, InputError, "class numbers from 0 to 2"),
    ({"y": np.array(list("aab" * 3 + "b"))}, InputError, "turn words into numbers"),
    ({"y": np.full((10, 3), np.nan)}, InputError, "NaN or infinity"),
    ({"y": 2.0 * np.eye(3)[Y]}, InputError, "not probabilities"),
    ({"y": 2.0 * np.eye(3)[Y], "loss": "binary_cross_entropy"}, InputError, "0 to 1"),
    ({"y": np.ones(10), "model": model(n_outputs=1)}, InputError, "binary_cross_entropy"),
    ({"x": X.astype(np.float32)}, DTypeError, "float32"),
    ({"x": np.where(X[2, 1] == X, np.nan, X)}, InputError, r"nan at \(2, 1\)"),
    ({"x": X[:, :3]}, ShapeError, "Dense"),
    ({"validation": (X, Y[:3])}, ShapeError, "validation y"),
    ({"validation": (X[:, :3], Y)}, ShapeError, "Dense"),
    ({"loss": "hinge"}, OptionError, "unknown loss 'hinge'.*mse, cross_entropy"),
    ({"loss": "logitcrossentropy"}, OptionError, '"cross_entropy"'),
    ({"optimizer": "lion"}, OptionError, "unknown optimizer 'lion'.*sgd, momentum"),
    ({"optimizer": 3}, OptionError, "pair of a name"),
    ({"optimizer": ("sgd", 0.1)}, OptionError, "pair of a name"),
    ({"optimizer": ("sgd", {"momentum": 0.9})}, OptionError, "sgd has no setting 'momentum'.*lr, weight_decay"),
    ({"optimizer": ("adam", {"lr": -1})}, OptionError, "lr=-1"),
    ({"optimizer": ("adam", {"lr": float("nan")})}, OptionError, "lr=nan"),
    ({"optimizer": ("adam", {"lr": "big"})}, OptionError, "lr='big'"),
    ({"optimizer": ("adam", {"betas": 0.9})}, OptionError, "betas=0.9"),
    ({"optimizer": ("adam", {"betas": (0.9, 1.0)})}, OptionError, "beta2=1.0"),
    ({"lr_groups": {"7.*": 0.1}}, OptionError, r"'7\.\*' matches no parameter\. Allowed: patterns for 0\.weight"),
    ({"lr_groups": {"*": 0.1, "0.*": 0.01}}, OptionError, "earlier pattern has not taken.*special patterns first"),
    ({"lr_groups": {"*": -0.1}}, OptionError, "at least 0"),
    ({"schedule": "cosine"}, OptionError, "pair of a name"),
    ({"schedule": ("linear", {})}, OptionError, "unknown schedule 'linear'"),
    ({"schedule": ("step", {"epochs": 3})}, OptionError, "no setting 'epochs'"),
    ({"schedule": ("cosine", {"epochs": 0})}, OptionError, "at least 1"),
    ({"schedule": ("step", {"every": 1.5})}, OptionError, "whole number"),
    ({"epochs": -1}, OptionError, "epochs=-1"),
    ({"batch_size": 0}, OptionError, "batch_size=0"),
    ({"batch_size": 2.5}, OptionError, "batch_size=2.5"),
    ({"seed": -1}, OptionError, "seed=-1"),
    ({"clip_norm": 0}, OptionError, "clip_norm=0"),
    ({"clip_norm": -1.0}, OptionError, "clip_norm=-1.0"),
    ({"evaluate_every": -1}, OptionError, "evaluate_every=-1"),
    ({"backend": "tensorflow"}, UnknownBackend, "julia, torch, reference"),
    ({"device": "cuda"}, OptionError, "use backend='torch'"),
    ({"model": ub.Model([ub.Softmax()], dtype="float64"), "y": np.arange(10) % 4}, OptionError, "without parameters"),
    ({"callbacks": [ub.Probe(X, every=1), ub.Probe(X, every=2)]}, OptionError, "name of its own"),
    ({"callbacks": [ub.Probe(X[:, :2], every=1)]}, ShapeError, "Dense"),
    ({"resume": "no-such-file"}, RunFileError, "no run file"),
    ({"save_to": f"{__file__}/run.safetensors", "epochs": 10**9}, RunFileError, "test_input.py is not a folder"),
]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "error", "words"), BAD, ids=[f"{i}-{next(iter(c))}" for i, (c, _, _) in enumerate(BAD)]
)
def test_bad_input(changes: dict[str, Any], error: type[UDLBridgeError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        train(**changes)
    assert caught.value.remedy


def test_probes_that_cannot_measure() -> None:
    with pytest.raises(OptionError, match="ntk_change"):
        ub.Probe(X, every=1, quantities=("hessian",))
    with pytest.raises(OptionError, match="without a target"):
        ub.Probe(X, every=1, quantities=("ntk_alignment",))
    one_class = ub.label_kernel(np.ones(10))
    with pytest.raises(NumericalError, match="two classes"):
        train(callbacks=[ub.Probe(X, every=1, quantities=("ntk_alignment",), target=one_class)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": model(width=6)}, "of another model"),
        ({"model": model().astype("float32"), "x": X.astype(np.float32)}, "of another model"),
        ({"model": model().with_params({k: p + 1 for k, p in model().params.items()})}, "other settings.*start"),
        ({"seed": 1}, "seed: 0 in the run, 1 asked for"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"batch_size": 3}, "batch_size"),
        ({"x": X + 1}, "data"),
        ({"lr_groups": {"0.*": 0.5}}, "rates"),
        ({"callbacks": [ub.Probe(X, every=2)]}, "callbacks"),
    ],
)
def test_a_run_of_another_training_is_not_resumed(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(save_to=path)
    with pytest.raises(RunFileError, match=words):
        train(epochs=2, resume=path, **changes)


def test_a_run_is_not_shortened(tmp_path: Path) -> None:
    run = train(epochs=3)
    with pytest.raises(OptionError, match="epochs=2, but the run to resume has 3"):
        train(epochs=2, resume=run)


def test_files_that_are_no_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(save_to=path)
    whole = path.read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RunFileError, match="truncated"):
            ub.TrainingRun.load(path)
    model().save(path)
    with pytest.raises(RunFileError, match="it is a model"):
        ub.TrainingRun.load(path)
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(RunFileError, match="format version 9"):
        ub.TrainingRun.load(path)
    path.write_bytes(whole.replace(b'\\"seconds\\"', b'\\"secondz\\"'))
    with pytest.raises(RunFileError, match="whole run"):
        ub.TrainingRun.load(path)
    assert list(tmp_path.glob("*.part")) == []
    normed = ub.Model([ub.Dense(4, 3), ub.BatchNorm(3)], dtype="float64")
    ub.train(normed, X, Y, epochs=1, backend="reference").save(path)
    path.write_bytes(path.read_bytes().replace(b"state/1.running_var", b"stats/1.running_var"))
    with pytest.raises(RunFileError, match=r"state/ lacks 1\.running_var"):
        ub.TrainingRun.load(path)
