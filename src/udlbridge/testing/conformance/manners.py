"""What is asked of every method: dtypes, memory of its own, inputs that are left as they are, threads given back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.backends.base import Backend
from udlbridge.backends.jobs import KernelJob, TrainState
from udlbridge.backends.programs import Step
from udlbridge.backends.reduction import checked_reduction
from udlbridge.networks.layers import Activation, Dense, Dropout, Flatten, Residual
from udlbridge.networks.model import Model
from udlbridge.testing.conformance import training
from udlbridge.testing.conformance.held import owned
from udlbridge.testing.conformance.networks import SMALL, batch, network


def facts(engine: Backend[Any]) -> None:
    """It names itself and its versions; if it is installed under its name, its entry point agrees."""
    assert isinstance(engine.name, str), f"the engine's name is {engine.name!r}"
    versions = engine.versions()
    assert versions, "the engine has no versions"
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in versions.items()), versions
    if engine.name not in backends.engines():
        return
    entry = backends.engine(engine.name)
    assert entry.name == engine.name, f"the entry point {entry.name!r} starts an engine called {engine.name!r}"
    assert entry.devices, "the engine knows no device"
    assert entry.devices[0] == "cpu", f"the first device is {entry.devices[0]!r}, and not the default, 'cpu'"
    assert entry.footprint.fixed_bytes >= 0, f"the footprint is {entry.footprint}"
    assert entry.footprint.factor_copies >= 1, f"the footprint is {entry.footprint}"


def results(engine: Backend[Any], model: Model, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """All that an engine says of a network, by what it is: (n, *D) samples and (n, O) numbers for its outputs."""
    w = {name: np.ones_like(array) for name, array in model.params.items()}
    activations, errors = engine.signals(model, x, y)
    found = {
        "outputs": engine.outputs(model, x),
        "input_jacobian": engine.input_jacobian(model, x),
        "input_hessian": engine.input_hessian(model, x),
        **{f"activations[{index}]": array for index, array in enumerate(activations)},
        **{f"errors[{index}]": array for index, array in enumerate(errors)},
    }
    if model.params:
        job = KernelJob(model, checked_reduction("trace", y.shape[1]))
        factors = engine.prepare(job, x)
        kernel = np.empty((len(x), len(x)), dtype=model.dtype)
        engine.fill(job, factors, slice(0, len(x)), factors, slice(0, len(x)), kernel)
        engine.release(factors)
        found |= {
            **{f"jacobian[{name}]": block for name, block in engine.jacobian(model, x).items()},
            **{f"pull[{name}]": array for name, array in engine.pull(model, x, y).items()},
            "push": engine.push(model, x, w, y),
            **{f"loss_gradient[{name}]": array for name, array in engine.loss_gradient(model, x, y, "mse")[1].items()},
            "kernel": kernel,
        }
    return found


def formulas(engine: Backend[Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """What an engine makes of formulas that hardly compute."""
    same = Step("input", (), None, 0.0)
    return {
        "program_value": engine.program_value((same,), x),
        "program_gradient": engine.program_gradient((same, Step("sum", (0,), None, 0.0)), x),
    }


def dtypes(engine: Backend[Any]) -> None:
    """A dtype is never changed silently: all is in the model's, and what a formula gives in its argument's."""
    for dtype in ("float64", "float32"):
        model, x = network(SMALL, dtype), batch(SMALL, 4, dtype=dtype)
        for what, found in {**results(engine, model, x, x), **formulas(engine, x)}.items():
            assert found.dtype == dtype, f"{what} of a {dtype} model is {found.dtype}"
        job = training.job_of("adam")
        job = replace(job, model=job.model.astype(dtype))
        data = batch(SMALL, training.N, dtype=dtype), training.targets(2).astype(dtype)
        session = training.begun(engine, job, *data)
        session.epoch(training.ORDERS[0], 2, 1.0)
        for what, arrays in _arrays(session.state()):
            for name, array in arrays.items():
                assert array.dtype == dtype, f"{what} {name} of the training of a {dtype} model is {array.dtype}"


def memory(engine: Backend[Any]) -> None:
    """No result shares memory with an input, inputs stay as they are, and a result that is changed changes no other."""
    square = np.arange(12.0).reshape(3, 2, 2)
    cases: dict[str, tuple[Model, np.ndarray]] = {
        "a Flatten": (Model([Flatten()], dtype="float64"), square),
        "a Dropout": (Model([Dropout(0.5)], dtype="float64"), square.reshape(3, 4)),
        "an identity": (Model([Activation("identity"), Activation("relu")], dtype="float64"), square.reshape(3, 4)),
        "a Residual": (Model([Residual([Dropout()], [Flatten()])], dtype="float64"), square.reshape(3, 4)),
        "one Dense layer and one sample": (Model([Dense(3, 1)], dtype="float64"), np.array([[1.0, 2.0, 3.0]])),
        "a network": (network(SMALL), batch(SMALL, 4)),
    }
    for case, (model, x) in cases.items():
        y = np.ones((len(x), model.output_shape(x.shape[1:])[0]))
        before = x.copy()
        first = results(engine, model, x, y) | formulas(engine, x)
        copies = {what: array.copy() for what, array in first.items()}
        for what, array in first.items():
            owned(f"{what} of {case}", array, x=x, y=y, **{f"parameter {k}": v for k, v in model.params.items()})
            array.fill(-7.0)
        assert np.array_equal(x, before), f"the samples of {case} were changed"
        assert (y == 1).all(), f"the targets of {case} were changed"
        for what, array in (results(engine, model, x, y) | formulas(engine, x)).items():
            assert np.array_equal(array, copies[what]), f"{what} of {case} changed with an earlier result"
        x.flags.writeable = y.flags.writeable = False  # as a memory map is
        for what, array in (results(engine, model, x, y) | formulas(engine, x)).items():
            owned(f"{what} of {case}, read only", array, x=x, y=y)
            assert np.array_equal(array, copies[what]), f"{what} of {case} is another where x cannot be written to"


def states(engine: Backend[Any]) -> None:
    """A training copies what it starts from, and gives copies away."""
    x, y = batch(SMALL, training.N), training.targets(2)
    job = training.job_of("adam")
    start = {name: array.copy() for name, array in job.model.params.items()}
    zeros = {slot: {name: np.zeros_like(p) for name, p in start.items()} for slot in job.optimizer.slots}
    session = engine.training(job, x, y, TrainState(start, zeros))
    before = session.state()
    for what, arrays in _arrays(before):
        for name, array in arrays.items():
            others = {"the start": start[name], **{slot: own[name] for slot, own in zeros.items()}}
            owned(f"{what} {name} of a training's state", array, **others)
            array.fill(3.0)
    session.epoch(training.ORDERS[0], 2, 1.0)
    assert all(np.array_equal(start[name], array) for name, array in job.model.params.items()), "the start was changed"
    after, undisturbed = session.state(), training.begun(engine, job, x, y)
    undisturbed.epoch(training.ORDERS[0], 2, 1.0)
    for (what, found), (_, expected) in zip(_arrays(after), _arrays(undisturbed.state()), strict=True):
        for name, array in expected.items():
            assert np.array_equal(found[name], array), f"{what} {name}: a state that was given away is not a copy"


def _arrays(state: TrainState) -> list[tuple[str, Mapping[str, np.ndarray]]]:
    return [("parameter", state.params), *state.slots.items()]


def threads(engine: Backend[Any]) -> None:
    """Within `blas_threads` the engine computes as ever; the numbers of threads come back, also after an error."""
    from threadpoolctl import threadpool_info

    model, x = network(SMALL), batch(SMALL, 4)
    expected = engine.outputs(model, x)
    before = [pool["num_threads"] for pool in threadpool_info()]
    counts = [None, 1, 2]
    for count in counts:
        with engine.blas_threads(count):
            assert np.allclose(engine.outputs(model, x), expected, rtol=1e-12), f"other outputs with {count} threads"
        try:
            with engine.blas_threads(count):
                raise _OfOurs
        except _OfOurs:
            pass
        else:
            raise AssertionError("blas_threads swallows errors")
        after = [pool["num_threads"] for pool in threadpool_info()]
        assert after == before, (
            f"threads of the BLAS libraries were {before}, and are {after} after blas_threads({count})"
        )


class _OfOurs(Exception):  # noqa: N818 - it is not an error
    """Raised and caught here."""
