"""Formulas in PyTorch: torch's own functions, differentiated by its autograd."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from udlbridge.backends.programs import Program, Step
from udlbridge.backends.pytorch.tensors import array

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "log": torch.log,
    "sigmoid": torch.sigmoid,
    # Above `threshold` torch returns the argument itself, which costs 2e-9 at the default of 20.
    "softplus": lambda a: torch.nn.functional.softplus(a, threshold=50.0),
    "sum": torch.sum,
    "logsumexp": lambda a: torch.logsumexp(a, dim=-1),
}


def _run_step(step: Step, x: Tensor, args: list[Tensor]) -> Tensor:
    if step.operation == "input":
        return x
    if step.operation == "constant":
        return torch.tensor(step.value, dtype=x.dtype)
    if step.operation == "power":
        return torch.pow(args[0], step.setting)
    if step.operation == "item":
        return args[0][int(step.setting)]
    if step.operation == "column":
        return args[0][..., int(step.setting)]
    return OPERATIONS[step.operation](*args)


def run(program: Program, x: Tensor) -> Tensor:
    """The value of the last step."""
    values: list[Tensor] = []
    for step in program:
        values.append(_run_step(step, x, [values[i] for i in step.arguments]))
    return values[-1]


def value(program: Program, x: np.ndarray) -> np.ndarray:
    """The value of the last step, as NumPy."""
    with torch.no_grad():
        return np.array(run(program, torch.tensor(x)).numpy())


def gradient(program: Program, x: np.ndarray) -> np.ndarray:
    """d(last step)/dx by autograd; zero where the result does not depend on x."""
    argument = torch.tensor(x, requires_grad=True)
    result = run(program, argument)
    if not result.requires_grad:
        return np.zeros_like(x)
    (pulled,) = torch.autograd.grad(result.reshape(()), argument)
    return array(pulled)
