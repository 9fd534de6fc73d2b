"""Every engine passes the public suite, and the suite fails each engine that has one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import errors
from udlbridge.backends.base import Training
from udlbridge.backends.jobs import KernelJob, TrainJob, TrainState
from udlbridge.backends.reference.engine import ReferenceBackend
from udlbridge.backends.reference.training import ReferenceTraining
from udlbridge.testing import CHECKS, check_backend


@pytest.mark.costly("rectangles")
@pytest.mark.parametrize("check", CHECKS)
def test_every_engine_passes(backend: str, check: str) -> None:
    assert check_backend(backend, only=[check]) == (check,)


class ScaledOutputs(ReferenceBackend):
    def outputs(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return super().outputs(model, x) * (1 + 1e-10)


class OutputsThatAreTheInput(ReferenceBackend):
    def outputs(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1) if isinstance(model.layers[0], ub.Flatten) else super().outputs(model, x)


class WideOutputs(ReferenceBackend):
    def outputs(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return super().outputs(model, x).astype(np.float64)


class ChangedInput(ReferenceBackend):
    def outputs(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        result = super().outputs(model, x)
        if x.flags.writeable:
            x += 1
        return result


class JacobianInAnotherOrder(ReferenceBackend):
    def jacobian(self, model: ub.Model, x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(reversed(super().jacobian(model, x).items()))


class JacobianOfTheBatch(ReferenceBackend):
    def jacobian(self, model: ub.Model, x: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.repeat(b.mean(0, keepdims=True), len(b), 0) for name, b in super().jacobian(model, x).items()}


class ReversedInputJacobian(ReferenceBackend):
    def input_jacobian(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(super().input_jacobian(model, x)[..., ::-1])


class HalfAHessian(ReferenceBackend):
    def input_hessian(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return np.tril(super().input_hessian(model, x))


class ErrorsAtOutputs(ReferenceBackend):
    def signals(self, model: ub.Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        activations, found = super().signals(model, x, y)
        return activations, [*found[:-1], 2 * (activations[-1] - y)]


class OneSidedFormula(ReferenceBackend):
    def program_value(self, program: Any, x: np.ndarray) -> np.ndarray:
        return np.abs(super().program_value(program, x))


class ConstantGradient(ReferenceBackend):
    def program_gradient(self, program: Any, x: np.ndarray) -> np.ndarray:
        return np.ones_like(x)


class AllParameters(ReferenceBackend):
    def prepare(self, job: KernelJob, x: np.ndarray) -> Any:
        return super().prepare(replace(job, params=None), x)

    def fill(self, job: KernelJob, *args: Any, **options: Any) -> None:
        super().fill(replace(job, params=None), *args, **options)


class FirstRows(ReferenceBackend):
    def fill(self, job: KernelJob, left: Any, rows: slice, *args: Any, **options: Any) -> None:
        super().fill(job, left, slice(0, rows.stop - rows.start), *args, **options)


class AddsToWhatIsThere(ReferenceBackend):
    def fill(self, job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, out: Any, **options: Any) -> None:
        before = out.copy()
        super().fill(job, left, rows, right, cols, out, **options)
        out += before


class MeanIsTheTrace(ReferenceBackend):
    def fill(self, job: KernelJob, *args: Any, **options: Any) -> None:
        if job.reduction.name == "mean":
            job = replace(job, reduction=replace(job.reduction, name="trace"))
        super().fill(job, *args, **options)


class UpperHalf(ReferenceBackend):
    def fill(
        self, job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, out: Any, *, lower: bool = False
    ) -> None:
        super().fill(job, left, rows, right, cols, out)
        if lower:
            out[np.tri(len(out), k=-1, dtype=bool)] = 0


class WrongPlainMethod(ReferenceBackend):
    def prepare(self, job: KernelJob, x: np.ndarray) -> Any:
        if job.method == "plain":
            job = replace(job, model=job.model.with_params({k: v + 1e-6 for k, v in job.model.params.items()}))
        return super().prepare(job, x)


class ReleasesEverything(ReferenceBackend):
    def __init__(self) -> None:
        self.alive: list[Any] = []

    def prepare(self, job: KernelJob, x: np.ndarray) -> Any:
        self.alive.append(super().prepare(job, x))
        return self.alive[-1]

    def release(self, factors: Any) -> None:
        for each in self.alive:
            each.clear()


class NarrowProducts(ReferenceBackend):
    def fill(self, job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, out: Any, **options: Any) -> None:
        super().fill(job, left, rows, right, cols, out, **options)
        if out.dtype == np.float32:
            out[...] = out.astype(np.float16)


class PullsTheMean(ReferenceBackend):
    def pull(
        self, model: ub.Model, x: np.ndarray, cotangents: np.ndarray, device: str | None = None
    ) -> dict[str, np.ndarray]:
        return {name: value / len(x) for name, value in super().pull(model, x, cotangents).items()}


class PushesEverything(ReferenceBackend):
    def push(
        self,
        model: ub.Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: np.ndarray,
        device: str | None = None,
    ) -> np.ndarray:
        return super().push(model, x, direction, np.ones_like(cotangents))


class LeaksThreads(ReferenceBackend):
    @contextmanager
    def blas_threads(self, count: int | None) -> Iterator[None]:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count, user_api="blas")
        yield


class SwallowsErrors(ReferenceBackend):
    @contextmanager
    def blas_threads(self, count: int | None) -> Iterator[None]:
        with suppress(Exception):
            yield


class SummedLoss(ReferenceBackend):
    def loss_gradient(self, model: ub.Model, x: np.ndarray, y: np.ndarray, *args: Any) -> Any:
        value, gradient = super().loss_gradient(model, x, y, *args)
        return value * len(x), gradient


class NoSlopes(ReferenceBackend):
    def loss_gradient(self, model: ub.Model, x: np.ndarray, y: np.ndarray, loss: str, slopes: Any = None) -> Any:
        if slopes is not None:
            slopes = replace(slopes, values=np.full_like(slopes.values, np.nan))
        return super().loss_gradient(model, x, y, loss, slopes)


class Trains(ReferenceBackend):
    """An engine whose trainings are of another class."""

    kind: type[ReferenceTraining]

    def training(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> Training:
        return self.kind(job, x, y, state)


class IgnoresTheFactor(Trains):
    class kind(ReferenceTraining):  # noqa: N801 - the attribute
        def epoch(self, order: np.ndarray, batch_size: int, factor: float) -> np.ndarray:
            return super().epoch(order, batch_size, 1.0)


class DropsTheLastBatch(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def epoch(self, order: np.ndarray, batch_size: int, factor: float) -> np.ndarray:
            return super().epoch(order[: len(order) // batch_size * batch_size], batch_size, factor)


class ForgetsSlots(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def __init__(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> None:
            super().__init__(job, x, y, replace(state, slots={}))


class ForgetsTheStep(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def __init__(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> None:
            super().__init__(job, x, y, replace(state, step=0))


class TrainsTheNetworkItself(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def __init__(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> None:
            super().__init__(replace(job, linearized=False), x, y, state)


class LinearisesWhereItGoesOn(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def __init__(self, job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState) -> None:
            super().__init__(replace(job, model=job.model.with_params(state.params)), x, y, state)


class GoesOnAfterAnOverflow(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def epoch(self, order: np.ndarray, batch_size: int, factor: float) -> np.ndarray:
            parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
            return np.concatenate([super(type(self), self).epoch(part, batch_size, factor) for part in parts])


class GivesItsStateAway(Trains):
    class kind(ReferenceTraining):  # noqa: N801
        def state(self) -> TrainState:
            return TrainState(self._params, self._slots, self._step)


class NoVersions(ReferenceBackend):
    def versions(self) -> dict[str, str]:
        return {}


class CallsItselfJulia(ReferenceBackend):
    name = "torch"

    def versions(self) -> dict[str, str]:
        raise RuntimeError("no torch here")


BROKEN: dict[type[ReferenceBackend], str] = {
    ScaledOutputs: "outputs",
    OutputsThatAreTheInput: "memory",
    WideOutputs: "dtypes",
    ChangedInput: "memory",
    JacobianInAnotherOrder: "jacobian",
    JacobianOfTheBatch: "jacobian",
    ReversedInputJacobian: "input_jacobian",
    HalfAHessian: "input_hessian",
    ErrorsAtOutputs: "signals",
    OneSidedFormula: "programs",
    ConstantGradient: "programs",
    AllParameters: "some_parameters",
    FirstRows: "rectangles",
    AddsToWhatIsThere: "kernels",
    MeanIsTheTrace: "kernels",
    UpperHalf: "lower_halves",
    WrongPlainMethod: "kernels",
    ReleasesEverything: "released_factors",
    NarrowProducts: "narrow_kernels",
    PullsTheMean: "pull_and_push",
    PushesEverything: "pull_and_push",
    LeaksThreads: "threads",
    SwallowsErrors: "threads",
    SummedLoss: "loss_gradients",
    NoSlopes: "slope_losses",
    IgnoresTheFactor: "optimisers",
    DropsTheLastBatch: "optimisers",
    ForgetsSlots: "resumed_trainings",
    ForgetsTheStep: "resumed_trainings",
    TrainsTheNetworkItself: "linearized_trainings",
    LinearisesWhereItGoesOn: "linearized_trainings",
    GoesOnAfterAnOverflow: "overflowing_losses",
    GivesItsStateAway: "states",
    NoVersions: "facts",
    CallsItselfJulia: "facts",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_engine_with_one_thing_wrong_fails(kind: type[ReferenceBackend]) -> None:
    with pytest.raises(AssertionError, match=rf"the engine '\w+' fails 1 of 1 checks\n  {BROKEN[kind]}: "):
        check_backend(kind(), only=[BROKEN[kind]])


def test_every_check_fails_some_engine() -> None:
    assert set(CHECKS) == set(BROKEN.values())


def test_all_failures_are_named_and_nothing_else() -> None:
    class Both(PullsTheMean, ConstantGradient):
        pass

    words = r"fails 2 of 3 checks\n  programs: .*\n  pull_and_push: .*"
    with pytest.raises(AssertionError, match=words):
        check_backend(Both(), only=["programs", "released_factors", "pull_and_push"])
    assert check_backend(Both(), only=["released_factors"]) == ("released_factors",)


def test_a_check_that_does_not_exist() -> None:
    with pytest.raises(errors.OptionError, match=r"'speed'.*Allowed: facts, outputs"):
        check_backend("reference", only=["speed"])
