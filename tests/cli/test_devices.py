"""`--device`: it reaches the engine from every command that has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from udlbridge.backends.pytorch.engine import TorchBackend

NETWORK = ("--model", "m.safetensors", "--samples", "x.npy")
COMMANDS = {
    "kernel": ("kernel", *NETWORK, "--out", "k.npy"),
    "kernel plan": ("kernel", *NETWORK, "--plan"),
    "kernel store": ("kernel", *NETWORK, "--out", "k.zarr"),
    "spectrum": ("spectrum", *NETWORK),
    "spectrum by products": ("spectrum", *NETWORK, "--k", "2", "--dense-limit", "0"),
    "predict": ("predict", *NETWORK, "--labels", "y.npy"),
    "predict store": ("predict", *NETWORK, "--labels", "y.npy", "--store", "p.zarr"),
    "align": ("align", "--samples", "x.npy", "--labels", "y.npy", "--cast", "--width", "5", "--epochs", "1"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ub.Model([ub.Dense(4, 6, "tanh"), ub.Dense(6, 2)], dtype="float64").save("m.safetensors")
    np.save("x.npy", np.random.default_rng(0).normal(size=(16, 4)))
    np.save("y.npy", np.arange(16) % 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_is_used_or_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU by its number stands for a device: it computes as one would."""
    used: set[object] = set()
    pull, push, prepare, training = (getattr(TorchBackend, at) for at in ("pull", "push", "prepare", "training"))

    def job_of(function: object) -> object:
        def observed(self: object, job: object, *rest: object) -> object:
            used.add(job.device)  # type: ignore[attr-defined]
            return function(self, job, *rest)  # type: ignore[operator]

        return observed

    def last_of(function: object) -> object:
        def observed(self: object, *given: object) -> object:
            used.add(given[-1])
            return function(self, *given)  # type: ignore[operator]

        return observed

    for at, wrapped in {
        "pull": last_of(pull), "push": last_of(push), "prepare": job_of(prepare), "training": job_of(training),
    }.items():  # fmt: skip
        monkeypatch.setattr(TorchBackend, at, wrapped)
    words = (*COMMANDS[name], "--backend", "torch")
    done = udlbridge(*words, "--device", "cpu:0")
    assert done.returncode in (0, 1), done.stderr
    assert used == {"cpu:0"}
    done = udlbridge(*words, "--device", "tpu", "--force")
    allowed = "--device cpu:0" if name == "predict store" else "cpu, cuda, mps"  # a store goes on as it was begun
    assert (done.returncode, "--device tpu" in done.stderr, allowed in done.stderr) == (2, True, True)


def test_one_engine_of_several_has_devices() -> None:
    words = (*COMMANDS["align"], "--batch-size", "4")
    done = udlbridge(*words, "--backend", "torch,reference", "--device", "cpu:0")
    assert done.returncode == 0, done.stderr
    done = udlbridge(*words, "--backend", "reference", "--device", "cuda")
    assert done.returncode == 2
    assert "--device cuda with --backend reference" in done.stderr
    assert "use --backend torch" in done.stderr
