"""The engine as others reach it: by the name of a method, with what cannot leave its place known by a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from udlbridge.backends.base import Training
from udlbridge.backends.jobs import KernelJob, TrainJob, TrainState
from udlbridge.backends.julia.engine import JuliaBackend


class Service:
    """Calls a `JuliaBackend`, and holds the factors and trainings that it makes. Made and used where Julia is.

    Args:
        checkpoint: as for `JuliaBackend`.
    """

    def __init__(self, checkpoint: Callable[[], None]) -> None:
        self.engine = JuliaBackend(checkpoint)
        self._checkpoint = checkpoint
        self._held: dict[int, Any] = {}
        self._numbers = itertools.count()

    def call(self, method: str, *args: Any) -> Any:
        """A method of this class, or else one of the engine."""
        called: Callable[..., Any] = getattr(self, method, None) or getattr(self.engine, method)
        return called(*args)

    def prepare(self, job: KernelJob, x: np.ndarray) -> int:
        """The number of the factors."""
        return self._hold(self.engine.prepare(job, x))

    def fill(
        self, job: KernelJob, left: int, rows: slice, right: int, cols: slice, out: np.ndarray, lower: bool
    ) -> None:
        """As the engine's, with factors by their numbers."""
        self.engine.fill(job, self._held[left], rows, self._held[right], cols, out, lower=lower)

    def release(self, factors: int) -> None:
        """As the engine's."""
        self.engine.release(self._held.pop(factors))

    def training(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> int:
        """The number of the training."""
        return self._hold(self.engine.training(job, x, y, state))

    def epoch(self, training: int, order: np.ndarray, batch_size: int, factor: float) -> np.ndarray:
        """As the training's."""
        return self._training(training).epoch(order, batch_size, factor)

    def state(self, training: int) -> TrainState:
        """As the training's."""
        return self._training(training).state()

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody will ask for these again."""
        for number in numbers:
            self._held.pop(number, None)

    def _training(self, number: int) -> Training:
        found: Training = self._held[number]
        return found

    def _hold(self, thing: Any) -> int:
        self._checkpoint()  # who was interrupted will never ask for it
        number = next(self._numbers)
        self._held[number] = thing
        return number
