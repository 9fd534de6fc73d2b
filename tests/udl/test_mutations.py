"""Every figure of every practical holds, and notices when an engine is wrong.

Each engine is replaced by one that is wrong in one of three ways, and the rows of the practicals are computed with it;
the other engines stay right. A row that no mutation turns into a failure does not check the engine, and must not
pretend to: it goes, is replaced, or says that it is of the data alone (`engine=False`).
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from practical_figures import QUICK, check_figures
from udlbridge import backends
from udlbridge.backends.programs import Program
from udlbridge.errors import UDLBridgeError
from udlbridge.networks.model import Model
from udlbridge.udl import practicals
from udlbridge.udl.practicals import Row

NOISE = 1e-3
Change = Callable[[np.ndarray], np.ndarray]


class Nothing:
    """No mutation."""

    def result(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """What an engine gives."""
        return values

    def params(self, params: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What a training came to."""
        return params

    def model(self, model: Model) -> Model:
        """What a network is computed with."""
        return model

    def program(self, program: Program) -> Program:
        """What a formula is computed with."""
        return program


class Noise(Nothing):
    """Every number is off by about a tenth of a per cent, or by 1e-3 where all are zero, otherwise at every call."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def result(self, values: list[np.ndarray]) -> list[np.ndarray]:
        errors = [NOISE * self._generator.standard_normal(a.shape) for a in values]
        return [(a + e * (a if a.any() else 1)).astype(a.dtype) for a, e in zip(values, errors, strict=True)]

    def params(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(params, self.result(list(params.values())), strict=True))


class Sign(Nothing):
    """The largest number of every result has the wrong sign, and so has the last weight of what was trained."""

    def result(self, values: list[np.ndarray]) -> list[np.ndarray]:
        sizes = [float(np.max(np.abs(a), initial=0.0)) for a in values]
        worst = int(np.argmax(sizes))
        flipped = np.array(values[worst])
        entry = int(np.argmax(np.abs(flipped)))
        flipped.flat[entry] = -flipped.flat[entry]
        return [*values[:worst], flipped, *values[worst + 1 :]]

    def params(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        last = [name for name, value in params.items() if value.ndim > 1][-1]
        return {**params, last: -params[last]}


class Bias(Nothing):
    """A bias is left out: the first one of a network that is not zero, the first constant that a formula adds.

    Of a network without biases, or with biases of zero, the largest weight of the first layer is.
    """

    def model(self, model: Model) -> Model:
        for name, value in model.params.items():
            if name.endswith("bias") and value.any():
                return model.with_params({**model.params, name: np.zeros_like(value)})
        for name, value in model.params.items():
            if name.endswith("weight"):
                left = np.array(value)
                left.flat[np.argmax(np.abs(left))] = 0
                return model.with_params({**model.params, name: left})
        return model

    def program(self, program: Program) -> Program:
        constants = {k: step for k, step in enumerate(program) if step.operation == "constant"}
        for step in program:
            for k in step.arguments:
                if step.operation in ("add", "subtract") and k in constants:
                    nothing = np.zeros_like(np.asarray(constants[k].value, dtype=float))
                    return tuple(s._replace(value=nothing) if n == k else s for n, s in enumerate(program))
        return program


MUTATIONS = {"noise": Noise, "sign": Sign, "bias": Bias}


class Recorded:
    """A training of the right engine. What it once did, epoch by epoch, is told again, and not done again.

    A mutation changes what is seen of a training, and not its course: all mutants of an engine share one.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._states = [deepcopy(session.state())]
        self._losses: list[np.ndarray] = []
        self._calls: list[bytes] = []

    def after(self, position: int) -> Any:
        """The state after so many calls."""
        return deepcopy(self._states[position])

    def call(self, position: int, order: np.ndarray, *settings: Any) -> np.ndarray:
        """The losses of the call that stands there."""
        call = pickle.dumps((np.asarray(order), settings))
        if position == len(self._calls):
            self._losses.append(self._session.epoch(order, *settings))
            self._states.append(deepcopy(self._session.state()))
            self._calls.append(call)
        assert self._calls[position] == call
        return np.array(self._losses[position])


class Mutant:
    """An engine that is wrong in one way; what it does not compute it leaves to the engine."""

    def __init__(self, engine: Any, mutation: Nothing, done: dict[bytes, Recorded]) -> None:
        self._engine, self._mutation, self._done = engine, mutation, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _named(self, blocks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(blocks, self._mutation.result(list(blocks.values())), strict=True))

    def outputs(self, model: Model, x: np.ndarray) -> np.ndarray:
        return self._mutation.result([self._engine.outputs(self._mutation.model(model), x)])[0]

    def jacobian(self, model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
        return self._named(self._engine.jacobian(self._mutation.model(model), x))

    def input_jacobian(self, model: Model, x: np.ndarray) -> np.ndarray:
        return self._mutation.result([self._engine.input_jacobian(self._mutation.model(model), x)])[0]

    def input_hessian(self, model: Model, x: np.ndarray) -> np.ndarray:
        return self._mutation.result([self._engine.input_hessian(self._mutation.model(model), x)])[0]

    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        outputs, errors = self._engine.signals(self._mutation.model(model), x, y)
        return self._mutation.result(outputs), self._mutation.result(errors)

    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        return self._mutation.result([self._engine.program_value(self._mutation.program(program), x)])[0]

    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        return self._mutation.result([self._engine.program_gradient(self._mutation.program(program), x)])[0]

    def prepare(self, job: Any, x: np.ndarray) -> Any:
        return self._engine.prepare(replace(job, model=self._mutation.model(job.model)), x)

    def fill(self, job: Any, left: Any, rows: slice, right: Any, cols: slice, out: np.ndarray, **options: Any) -> None:
        self._engine.fill(replace(job, model=self._mutation.model(job.model)), left, rows, right, cols, out, **options)
        out[...] = self._mutation.result([out])[0]

    def pull(self, model: Model, *rest: Any) -> dict[str, np.ndarray]:
        return self._named(self._engine.pull(self._mutation.model(model), *rest))

    def push(self, model: Model, *rest: Any) -> np.ndarray:
        return self._mutation.result([self._engine.push(self._mutation.model(model), *rest)])[0]

    def loss_gradient(self, model: Model, *rest: Any) -> tuple[float, dict[str, np.ndarray]]:
        loss, blocks = self._engine.loss_gradient(self._mutation.model(model), *rest)
        return float(self._mutation.result([np.array(loss)])[0]), self._named(blocks)

    def training(self, job: Any, x: np.ndarray, y: np.ndarray, state: Any) -> Any:
        asked = pickle.dumps((self._engine.name, job, x, y, state))
        if asked not in self._done:
            self._done[asked] = Recorded(self._engine.training(job, x, y, state))
        return MutantTraining(self._done[asked], self._mutation, job.model)


class MutantTraining:
    """A training whose losses and parameters are wrong."""

    def __init__(self, recorded: Recorded, mutation: Nothing, model: Model) -> None:
        self._recorded, self._mutation, self._model = recorded, mutation, model
        self._position = 0

    def epoch(self, *arguments: Any) -> np.ndarray:
        losses = self._recorded.call(self._position, *arguments)
        self._position += 1
        return self._mutation.result([losses])[0]

    def state(self) -> Any:
        state = self._recorded.after(self._position)
        params = self._mutation.model(self._model.with_params(state.params)).params
        return replace(state, params=self._mutation.params(params))


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[str], ModuleType]]:
    """Loads a practical anew, so that nothing that it remembers was computed by another engine."""
    loaded = {}

    def load(name: str) -> ModuleType:
        key = f"udlbridge_practical_{name}"
        loaded.setdefault(key, sys.modules.pop(key, None))
        return practicals.load(name)

    yield load
    for key, module in loaded.items():
        sys.modules.pop(key, None)
        if module is not None:
            sys.modules[key] = module


def noticing(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch, load: Callable[[str], ModuleType]
) -> tuple[Counter[str], Counter[str]]:
    """How often every figure of an engine was computed by a mutant, and how often it noticed."""
    get, done = backends.get, {}

    def every(mutation: Nothing) -> list[Row]:
        """All figures, where the engine is wrong in this way and the others are right."""

        def changed(given: str | None = None, **options: Any) -> Mutant:
            engine = get(given or backend, **options)
            return Mutant(engine, mutation if engine.name == backend else Nothing(), done)

        load(name)
        with monkeypatch.context() as patch:
            patch.setattr(backends, "get", changed)
            return practicals.run(name, backend)

    def of_engine(found: list[Row]) -> list[Row]:
        return [row for row in found if row.engine and row.origin != practicals.SKIPPED]

    right = every(Nothing())
    check_figures(name, backend, right)
    noticed: Counter[str] = Counter()
    for mutation in MUTATIONS.values():
        with suppress(UDLBridgeError):  # the practical as a whole noticed, but which row would have is not known
            noticed.update(row.quantity for row in of_engine(every(mutation())) if not row.ok)
    load(name)
    return Counter(row.quantity for row in of_engine(right)), noticed


def marked(name: str) -> Any:
    """The name of a practical with the mark that its duration asks for."""
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.usefixtures("untyped")  # a mutant hands on what it does not know, which a checker of types cannot see
@pytest.mark.parametrize("name", [marked(name) for name in practicals.names()])
def test_every_figure_holds_and_notices_a_wrong_engine(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[str], ModuleType]
) -> None:
    rows, noticed = noticing(name, backend, monkeypatch, fresh)
    blind = [quantity for quantity in rows if not noticed[quantity]]
    assert not blind, f"{len(blind)} of {len(rows)} rows of {name} do not notice: {blind}"
