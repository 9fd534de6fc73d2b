"""The engine as others reach it: by the name of a method, with what cannot leave its place known by a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from udlbridge.backends.base import Training
from udlbridge.backends.jobs import KernelJob, TrainJob, TrainState
from udlbridge.backends.julia.engine import JuliaBackend
from udlbridge.backends.julia.host import Host
from udlbridge.backends.julia.networks import JuliaNetwork, Look
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model


class Service:
    """Calls a `JuliaBackend`, and holds the factors and trainings that it makes. Made and used where Julia is.

    Args:
        checkpoint: as for `JuliaBackend`.
        first: the first number of what it holds.
    """

    def __init__(self, checkpoint: Callable[[], None], first: int = 0) -> None:
        self._held: dict[int, Any] = {}
        self.engine = JuliaBackend(checkpoint, self._held)
        self._checkpoint = checkpoint
        self._numbers = itertools.count(first)
        self._threads: int | None = None

    def call(self, method: str, *args: Any) -> Any:
        """A method of this class, or else one of the engine."""
        called: Callable[..., Any] = getattr(self, method, None) or getattr(self.engine, method)
        return called(*args)

    def start(self) -> None:
        """It has started when it can be asked."""

    def leave(self) -> None:
        """Nobody asks any more, for a while: nothing is held, and all is as at the beginning."""
        self._held.clear()
        if self._threads is not None:
            self.engine.exchange_threads(self._threads)
        self.engine.call("bridge_collect")

    def exchange_threads(self, count: int) -> int:
        """As the engine's."""
        before = self.engine.exchange_threads(count)
        self._threads = before if self._threads is None else self._threads
        return before

    def network(self, number: int, outputs: dict[tuple[int, ...], int], examples: np.ndarray | None) -> JuliaNetwork:
        """The network that is known by that number elsewhere, to be given as an argument."""
        return JuliaNetwork.at(Here(self), number, outputs, examples)

    def prepare(self, job: KernelJob, x: np.ndarray) -> int:
        """The number of the factors."""
        return self._hold(self.engine.prepare(job, x))

    def fill(
        self, job: KernelJob, left: int, rows: slice, right: int, cols: slice, lower: bool, out: np.ndarray
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

    def adopt(self, model: Any) -> int:
        """The number of a user's own model."""
        return self._hold(model)

    def include(self, path: str, function: str) -> int:
        """The number of the model that a function in a file of Julia makes."""
        return self._hold(self.engine.call("bridge_included", path, function))

    def converted(self, model: int, dtype: str) -> int:
        """The number of a copy in that dtype."""
        return self._hold(self.engine.call("bridge_converted", self._held[model], dtype))

    def with_arrays(self, model: int, arrays: list[np.ndarray]) -> int:
        """The number of a copy with other parameters."""
        return self._hold(self.engine.call("bridge_with", self._held[model], [array.T for array in arrays]))

    def look(self, model: int) -> Look:
        """As the engine's, with models by their numbers."""
        return self.engine.look(self._held[model])

    def layers(self, model: int, x: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
        """As the engine's."""
        return self.engine.layers(self._held[model], x)

    def described(self, model: int) -> tuple[str, list[np.ndarray]]:
        """As the engine's."""
        return self.engine.described(self._held[model])

    def try_out(self, model: int, x: np.ndarray) -> tuple[int, bool]:
        """How many outputs the model has for each of a few samples, and whether it takes these for tokens."""
        outputs, tokens = self.engine.call("bridge_try", self._held[model], x.T)
        return int(outputs), bool(tokens)

    def translated_model(self, model: int, x: np.ndarray | None = None) -> Model | Graph:
        """The `Model` that a user's own model is, or the `Graph` that it computes of samples like `x`."""
        return self.engine.translated(self._held[model], x)

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


class Here(Host):
    """A service, for what is where it is itself."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def call(self, method: str, *args: Any) -> Any:
        """See `Host`."""
        return self._service.call(method, *args)

    def call_into(self, out: np.ndarray, method: str, *args: Any) -> None:
        """See `Host`."""
        self._service.call(method, *args, out)

    def forget(self, number: int) -> None:
        """Whoever named it keeps it."""
