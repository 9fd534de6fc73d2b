"""How arrays, losses and formulas cross between Python and Julia, and how many samples go into one call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from udlbridge.backends.jobs import Slopes
from udlbridge.backends.programs import Program
from udlbridge.networks.several import fields_of

CALL_SECONDS = 0.2
"""About how long one call over samples may take, whose results are in Julia's memory besides ours."""


def sent(x: np.ndarray) -> Any:
    """Samples for Julia, with reversed axes; of several inputs, a tuple of those of each, in the graph's order."""
    return x.T if x.dtype.names is None else tuple(part.T for part in fields_of(x).values())


def assembled(
    x: np.ndarray, compute: Callable[[np.ndarray], Sequence[Any]], checkpoint: Callable[[], None]
) -> list[np.ndarray]:
    """Arrays (n, ...) in C order from those in Julia's memory that `compute` makes of a few samples at a time."""
    whole: list[np.ndarray] = []
    for rows in few_at_a_time(len(x)):
        checkpoint()
        parts = [np.asarray(part).T for part in compute(x[rows])]
        whole = whole or [np.empty((len(x), *part.shape[1:]), part.dtype) for part in parts]
        for target, part in zip(whole, parts, strict=True):
            target[rows] = part
    return whole


def few_at_a_time(n: int) -> Iterator[slice]:
    """Stretches of samples, so many that what is done with each takes about `CALL_SECONDS`."""
    start, count = 0, 1
    while start < n:
        began = time.perf_counter()
        yield slice(start, min(start + count, n))
        taken = time.perf_counter() - began
        start += count
        if taken < CALL_SECONDS / 4:
            count *= 4
        elif taken > CALL_SECONDS:
            count = max(1, count // 2)


def targets(y: np.ndarray, slopes: Slopes | None) -> Any:
    """Targets for Julia: values, or values and slopes."""
    return y.T if slopes is None else (y.T, slopes.values.T)


def loss_arguments(name: str, slopes: Slopes | None) -> tuple[str, float]:
    """A loss for Julia: its name, and the weight of slopes."""
    return name, 1.0 if slopes is None else slopes.weight


def program_arguments(program: Program, x: np.ndarray) -> tuple[str, list[np.ndarray]]:
    """A formula for Julia: the operations as JSON, and the constants, in the dtype of `x`, with reversed axes."""
    rows = [[step.operation, list(step.arguments), step.setting] for step in program]
    constants = [np.asarray(step.value, dtype=x.dtype).T for step in program if step.value is not None]
    return json.dumps(rows), constants


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy copy, in C order with samples first, of an array in Julia's memory."""
    return np.array(np.asarray(value).T, order="C", copy=True)
