"""The words that type checkers and editors offer for options: all that are taken, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import words
from udlbridge.backends import SHIPPED, optimisers
from udlbridge.backends.reduction import REDUCTIONS
from udlbridge.networks.init import FLOATS
from udlbridge.networks.layers import settings
from udlbridge.store.narrowing import STORAGE
from udlbridge.training import objectives

ROOT = Path(__file__).parents[1]


def offered(word: str, module: object) -> set[str]:
    """The words of the `Literal` that a module assigns to the name `word`."""
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == word:
            found = {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
            if found:
                return found
    raise AssertionError(f"there are no words called {word}")


@pytest.mark.parametrize(
    ("word", "module", "taken"),
    [
        ("EngineWord", words, set(SHIPPED)),
        ("OutputsWord", words, set(REDUCTIONS)),
        ("StorageWord", words, set(STORAGE)),
        ("FloatWord", words, set(FLOATS)),
        ("LossWord", words, {*objectives.LOSSES, *objectives.ALIASES}),
        ("OptimizerWord", words, {*optimisers.OPTIMISERS, *optimisers.ALIASES}),
        ("ActivationWord", settings, {*settings.ACTIVATIONS, *settings.ALIASES}),
    ],
)
def test_what_is_offered_is_what_is_taken(word: str, module: object, taken: set[str]) -> None:
    assert offered(word, module) == taken


def test_what_pytorch_and_flux_call_them() -> None:
    for name, ours in {"ReLU": "relu", "silu": "swish", "SiLU": "swish", "LeakyReLU": "leakyrelu"}.items():
        layer = ub.Dense(2, 2, name)
        assert layer.activation == ours
        assert layer == ub.Dense(2, 2, ours)
    model, x, y = ub.Model([ub.Dense(2, 2)], dtype="float64"), np.eye(2), [0, 1]
    options = {"backend": "reference", "epochs": 2, "progress": False}
    one = ub.train(model, x, y, loss="CrossEntropyLoss", optimizer="Adam", **options)
    other = ub.train(model, x, y, loss="cross_entropy", optimizer="adam", **options)
    assert one.model.hash() == other.model.hash()


RIGHT = """
import numpy as np
import udlbridge as ub

x = np.eye(2)
model = ub.Model([ub.Dense(2, 3, "silu"), ub.Dense(3, 3, "LeakyReLU"), ub.Dense(3, 2)], dtype="float64")
ub.Model([ub.Dense(2, 2)], dtype=np.float64).astype("float32")
ub.ntk(model, x, outputs="mean", backend="reference", method="plain")
ub.ntk(model, x, outputs=1)
ub.ntk(model, x, outputs=[1, 0])
ub.ntk(model, x, outputs=range(2))
ub.compute_kernel(model, x, "K.zarr", storage="bfloat16")
ub.train(model, x, [0, 1], epochs=1, loss="mse", optimizer="Adam", backend="torch")
ub.train(model, x, [0, 1], epochs=1, loss="CrossEntropyLoss", optimizer=("sgd", {"lr": 0.1}))
ub.check(model, x, backends="torch,reference")
ub.ntk(model, x, backend=ub.backends.checked_name("torch"))
"""

WRONG = """
ub.Dense(2, 2, "sigmod")
ub.Activation("reluu")
ub.Model([ub.Dense(2, 2)], dtype="float16")
ub.ntk(model, x, outputs="traces")
ub.ntk(model, x, backend="pytorch")
ub.ntk(model, x, method="structure")
ub.compute_kernel(model, x, "K.zarr", storage="int8")
ub.train(model, x, [0, 1], epochs=1, loss="cross_entrop")
ub.train(model, x, [0, 1], epochs=1, optimizer="adamm")
ub.train(model, x, [0, 1], epochs=1, optimizer=("sgdd", {"lr": 0.1}))
ub.outputs(model, x, backend="jax")
ub.plan(model, 5, outputs="ful")
"""


@pytest.mark.slow
def test_a_type_checker_refuses_words_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy, with the configuration of this package: every line of WRONG has an error, and no line of RIGHT."""
    api = pytest.importorskip("mypy.api", reason="mypy comes with the extra `dev`")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    file = tmp_path / "words.py"
    file.write_text(RIGHT + WRONG)
    said, problems, _ = api.run(["--no-pretty", "--hide-error-codes", str(file)])
    lines = {int(line.split(":")[1]) for line in said.splitlines() if line.startswith(str(file)) and ": error:" in line}
    first = RIGHT.count("\n") + 2
    assert lines == set(range(first, first + len(WRONG.strip().splitlines()))), said + problems
