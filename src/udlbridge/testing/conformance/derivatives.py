"""Outputs, derivatives, signals and formulas of an engine, against complex steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from udlbridge.backends.base import Backend
from udlbridge.backends.programs import Program, Step
from udlbridge.networks.layers import Dense
from udlbridge.networks.model import Model
from udlbridge.testing.conformance import oracle
from udlbridge.testing.conformance.held import near
from udlbridge.testing.conformance.networks import LAYERS, SMALL, TWICE, activations, batch, network

N = 3


@cache
def exact_jacobian(name: str, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """J of a network by its name on `batch(name, n, seed)`; kernels and products are held against it too."""
    return oracle.jacobian(network(name), batch(name, n, seed))


def outputs(engine: Backend[Any]) -> None:
    """f(x) of every layer and activation."""
    for name in LAYERS:
        model, x = network(name), batch(name, N)
        near(f"outputs of {name}", engine.outputs(model, x), oracle.value(model, x))
    for name, model in activations().items():
        x = batch(SMALL, 5)
        near(f"outputs with {name}", engine.outputs(model, x), oracle.value(model, x))


def jacobian(engine: Backend[Any]) -> None:
    """d f_a(x_i) / d parameter, in named blocks, in the model's order."""
    for name in LAYERS:
        _blocks(name, engine.jacobian(network(name), batch(name, N)), exact_jacobian(name, N))
    for name, model in activations().items():
        x = batch(SMALL, 5)
        _blocks(name, engine.jacobian(model, x), oracle.jacobian(model, x))


def _blocks(name: str, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected), f"the Jacobian of {name} has blocks {list(found)}, and not {list(expected)}"
    # A block of derivatives that vanish has no size of its own: errors are relative to the whole Jacobian.
    size = max(float(np.abs(block).max()) for block in expected.values())
    for key, block in expected.items():
        near(f"Jacobian of {name} by {key}", found[key], block, size=size)


def input_jacobian(engine: Backend[Any]) -> None:
    """d f_a(x_i) / d x_i."""
    for name in LAYERS:
        model, x = network(name), batch(name, N)
        if not model.takes_tokens:
            expected = _by_input(model, x)
            near(f"input Jacobian of {name}", engine.input_jacobian(model, x), expected)


def _by_input(model: Model, x: np.ndarray) -> np.ndarray:
    return oracle.by_input(lambda z: oracle.value(model, z), x)


def input_hessian(engine: Backend[Any]) -> None:
    """d2 f_a(x_i) / d x_i d x_i; the difference that it is held against is good to about 1e-11."""
    for name in TWICE:
        model, x = network(name), batch(name, N)
        near(f"input Hessian of {name}", engine.input_hessian(model, x), oracle.hessian(model, x), factor=100)


def signals(engine: Backend[Any]) -> None:
    """Outputs of the layers, and the gradient of sum (f(x) - y)^2 at them; at Dense layers before the activation."""
    for name in LAYERS:
        model, x = network(name), batch(name, N)
        y = np.random.default_rng(1).standard_normal(oracle.value(model, x).shape)
        found, errors = engine.signals(model, x, y)
        assert len(found) == len(errors) == len(model.layers), f"signals of {name}: not one for every layer"
        h: np.ndarray = x
        for index, layer in enumerate(model.layers):
            arrays = oracle.inside(model.arrays, str(index))
            point = oracle.preactivation(layer, arrays, h) if isinstance(layer, Dense) else None
            h = oracle.apply(layer, arrays, h)
            near(f"activations of {name}, layer {index}", found[index], h)
            expected = _error(model, index, h if point is None else point, y)
            near(f"errors of {name}, layer {index}", errors[index], expected)


def _error(model: Model, index: int, point: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the sum of squares at the output of a layer, or at the preactivation of a Dense layer."""
    layer = model.layers[index]
    activate = oracle.ACTIVATIONS[layer.activation] if isinstance(layer, Dense) else oracle.ACTIVATIONS["identity"]

    def loss(z: np.ndarray) -> np.ndarray:
        gap = oracle.chain(model.layers, model.arrays, activate(z), index + 1) - y
        return (gap**2).reshape(len(y), -1).sum(axis=1)

    return oracle.by_input(loss, point)


def pull_and_push(engine: Backend[Any]) -> None:
    """J' c and <c, J w>: the products with the Jacobian, and with its transpose."""
    for name in LAYERS:
        model, x, blocks = network(name), batch(name, N), exact_jacobian(name, N)
        generator = np.random.default_rng(2)
        cotangents = generator.standard_normal((N, next(iter(blocks.values())).shape[1]))
        pulled = engine.pull(model, x, cotangents)
        assert list(pulled) == list(model.params), f"pull of {name} gives {list(pulled)}"
        size = max(float(np.abs(np.tensordot(cotangents, block, axes=2)).max()) for block in blocks.values())
        for key, block in blocks.items():
            expected = np.tensordot(cotangents, block, axes=2)
            near(f"pull of {name} by {key}", pulled[key], expected, size=size)
        direction = {key: generator.standard_normal(array.shape) for key, array in model.params.items()}
        moved = sum(np.tensordot(block, direction[key], direction[key].ndim) for key, block in blocks.items())
        pushed = engine.push(model, x, direction, cotangents)
        near(f"push of {name}", pushed, (cotangents * np.asarray(moved)).sum(axis=1), factor=10)


def _steps(*rows: tuple[Any, ...]) -> Program:
    """A program from rows (operation, numbers of earlier steps, value or setting)."""
    steps = []
    for operation, *rest in rows:
        arguments = tuple(part for part in rest if isinstance(part, int))
        value = next((part for part in rest if isinstance(part, np.ndarray)), None)
        setting = next((part for part in rest if isinstance(part, float)), 0.0)
        steps.append(Step(operation, arguments, value, setting))
    return tuple(steps)


WEIGHTS = np.array([0.5, -1.25, 2.0])

# Every operation, in formulas that are written out below.
SCALAR = _steps(
    ("input",), ("item", 0, 0.0), ("item", 0, 1.0), ("item", 0, 2.0), ("constant", np.array(2.5)),
    ("sin", 1), ("exp", 5), ("softplus", 2), ("add", 6, 7), ("log", 8), ("sigmoid", 3), ("multiply", 9, 10),
    ("cos", 1), ("power", 12, 2.0), ("add", 13, 4), ("divide", 11, 14), ("power", 0, 3.0), ("sum", 16),
    ("subtract", 15, 17),
)  # fmt: skip
ROWS = _steps(
    ("input",), ("constant", WEIGHTS), ("multiply", 0, 1), ("logsumexp", 2), ("column", 0, 1.0), ("subtract", 3, 4)
)
TOTAL = (*ROWS, Step("sum", (5,), None, 0.0))


def _scalar(x: np.ndarray) -> np.ndarray:
    ratio = np.log(np.exp(np.sin(x[0])) + oracle.softplus(x[1])) * oracle.sigmoid(x[2]) / (np.cos(x[0]) ** 2 + 2.5)
    return np.asarray(ratio - (x**3).sum())


def _rows(x: np.ndarray) -> np.ndarray:
    return np.log(np.exp(x * WEIGHTS).sum(axis=-1)) - x[..., 1]


def programs(engine: Backend[Any]) -> None:
    """Formulas of every operation, and their gradients."""
    generator = np.random.default_rng(5)
    vector, matrix = generator.standard_normal(3), generator.standard_normal((4, 3))
    near("a scalar formula", np.asarray(engine.program_value(SCALAR, vector)), _scalar(vector))
    near("a formula of rows", engine.program_value(ROWS, matrix), _rows(matrix))
    formulas: list[tuple[Program, np.ndarray, Callable[[np.ndarray], Any]]] = [
        (SCALAR, vector, _scalar),
        (TOTAL, matrix, lambda x: _rows(x).sum()),
    ]
    for program, x, formula in formulas:
        near("the gradient of a formula", engine.program_gradient(program, x), oracle.derivative(formula, x))
    fixed = _steps(("input",), ("constant", np.array(2.0)))
    near("the gradient of a constant", engine.program_gradient(fixed, vector), np.zeros(3))
