"""Formulas as an engine runs them: a list of steps, each one operation on the results of earlier ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OPERATIONS: dict[str, str] = {
    "input": "the array that the function is of",
    "constant": "a fixed array",
    "add": "a + b",
    "subtract": "a - b",
    "multiply": "a * b",
    "divide": "a / b",
    "power": "a ** p for a fixed number p; p = 0 gives 1 everywhere, of slope 0",
    "item": "entry i along the first axis",
    "sin": "sin(a)",
    "cos": "cos(a)",
    "exp": "exp(a)",
    "log": "log(a)",
    "sigmoid": "1 / (1 + exp(-a))",
    "softplus": "log(1 + exp(a))",
    "sum": "the sum of all entries",
    "column": "entry i along the last axis",
    "logsumexp": "log sum exp along the last axis",
}
"""Every operation and its meaning. Binary ones broadcast as NumPy does."""


class Step(NamedTuple):
    """One operation of a program; `arguments` are numbers of earlier steps, counted from 0."""

    operation: str
    arguments: tuple[int, ...]
    value: np.ndarray | None
    setting: float


Program = tuple[Step, ...]
"""Steps in order of evaluation; the last one is the result."""
