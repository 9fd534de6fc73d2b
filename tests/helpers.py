"""What several tests share."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge.networks.layers import ACTIVATIONS
from udlbridge.tolerances import BUDGETS

AGAINST_REFERENCE = pytest.mark.parametrize(
    "backend", [pytest.param("julia", marks=pytest.mark.julia), "torch"], indirect=True
)
"""For tests that compare an engine with the reference engine: the fixture `backend` without it."""

GOLDENS = Path(__file__).parent / "goldens"


def assert_within_budget(value: np.ndarray, reference: np.ndarray, factor: float = 1.0) -> None:
    """max |value - reference| <= budget * max |reference|, by the dtype of the reference."""
    assert value.shape == reference.shape
    assert value.dtype == reference.dtype
    scale = float(np.abs(reference).max(initial=0.0))
    limit = BUDGETS[reference.dtype.name] * factor * scale
    np.testing.assert_allclose(value, reference, rtol=0, atol=limit)


def load_golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spec, parameters and the other arrays of a recorded Flux run."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        spec = json.loads(str(file["spec"]))
        params = {key.removeprefix("param:"): file[key] for key in file.files if key.startswith("param:")}
        rest = {key: file[key] for key in file.files if not key.startswith("param:") and key != "spec"}
    return spec, params, rest


def numbers_of_a_fresh_process(code: str) -> list[int]:
    """What Python prints that runs nothing but `code`: its memory is its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def udlbridge(*args: object, **environment: str) -> Done:
    """The command line as a user types it, but in this process: a fresh one would import everything anew."""
    from udlbridge.cli import SPIN_COUNT, main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["udlbridge", *map(str, args)])
        patch.setenv("GOMP_SPINCOUNT", SPIN_COUNT)  # or what the command sets would stay
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def random_model(
    widths: list[int], activations: list[str], *, seed: int = 0, bias: bool = True, softmax: bool = False
) -> ub.Model:
    """A float64 chain of Dense layers with random weights and biases (biases are not zero, as they are by default)."""
    layers: list[Any] = [
        ub.Dense(a, b, act, bias=bias) for a, b, act in zip(widths[:-1], widths[1:], activations, strict=True)
    ]
    if softmax:
        layers.append(ub.Softmax())
    model = ub.Model(layers, seed=seed, dtype="float64")
    generator = np.random.default_rng(seed + 1)
    params = {name: value + 0.3 * generator.standard_normal(value.shape) for name, value in model.params.items()}
    return model.with_params(params)


@st.composite
def dense_models(draw: st.DrawFn) -> ub.Model:
    """Chains of one to three Dense layers of any activation, with or without biases and softmax, in float64."""
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    names = draw(st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=len(widths) - 1, max_size=len(widths) - 1))
    return random_model(
        widths, names, seed=draw(st.integers(0, 2**16)), bias=draw(st.booleans()), softmax=draw(st.booleans())
    )


def samples(model: ub.Model, n: int, seed: int = 0) -> np.ndarray:
    """Normal random samples (n, width of the first layer), of the model's dtype."""
    width = model.layers[0].in_features  # type: ignore[attr-defined]
    return np.random.default_rng(seed).standard_normal((n, width)).astype(model.dtype)
