"""What a training is asked to do, checked; and whether a run to go on from was asked the same."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.backends.jobs import TrainJob
from udlbridge.errors import OptionError, RunFileError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples, output_size
from udlbridge.networks.model import Model
from udlbridge.options import brief, checked_count, checked_list, whole
from udlbridge.texts import counted, kind_of
from udlbridge.training.checksums import checksum
from udlbridge.training.endings import objective
from udlbridge.training.ledger import Ledger
from udlbridge.training.objectives import checked_targets
from udlbridge.training.probes import Callback
from udlbridge.training.runs import TrainingRun
from udlbridge.training.schedules import Schedule


@dataclass(frozen=True, eq=False)
class Data:
    """Samples (n, *D) and their targets (n, O)."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """How the loop runs; the arguments of `train` of the same names."""

    epochs: int
    batch_size: int
    seed: int
    schedule: Schedule
    evaluate_every: int
    checkpoints: tuple[int, ...]
    callbacks: tuple[Callback, ...]
    orders: np.ndarray | None = None


def checked_data(job: TrainJob, x: object, y: object, prefix: str = "") -> Data:
    """Samples and targets as the job's model and loss need them.

    Raises:
        InputError, ShapeError, DTypeError: see `checked_samples` and `checked_targets`.
        OptionError: see `objective`.
    """
    batch = checked_samples(job.model, x, f"{prefix}x")
    width, loss = output_size(job.model, batch.shape[1:]), objective(job.model, job.loss, batch).loss
    return Data(batch, checked_targets(loss, y, len(batch), width, job.model.dtype, f"{prefix}y"))


def checked_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """The callbacks, with names of their own and at least one step between measurements.

    Raises:
        OptionError: otherwise.
    """
    callbacks = checked_list("callbacks", callbacks, "a list of them", "as callbacks=[ub.Probe(x, every=10)]")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise OptionError(
                f"{kind_of(callback)} among the callbacks",
                allowed="objects with `name`, `every` and `begin`",
                remedy="use ub.Probe(x, every=10), or write such a class: udlbridge.training.probes.Callback",
            )
    for callback in callbacks:
        if not isinstance(callback.name, str):
            raise OptionError(f"a callback with the name {callback.name!r}", allowed="text", remedy="name it in words")
        checked_count(f"every of callback {callback.name!r}", callback.every, 1)
    names = [callback.name for callback in callbacks]
    if len(set(names)) < len(names):
        raise OptionError(
            f"callbacks with the names {', '.join(names)}",
            allowed="a name of its own for each",
            remedy='name them: Probe(..., name="test")',
        )
    return tuple(callbacks)


def checked_pair(validation: object) -> tuple[Any, Any]:
    """`validation` as a pair (x, y).

    Raises:
        OptionError: otherwise.
    """
    if isinstance(validation, (tuple, list)) and len(validation) == 2:
        return validation[0], validation[1]
    raise OptionError(
        f"validation={type(validation).__name__}",
        allowed="a pair (x, y)",
        remedy="validation=(x_test, y_test)",
    )


def checked_checkpoints(checkpoints: object) -> tuple[int, ...]:
    """The epochs after which the model is kept. They may lie beyond the end: the run may be resumed.

    Raises:
        OptionError: not whole numbers from 0 on.
    """
    if not isinstance(checkpoints, (tuple, list, range, set, frozenset, np.ndarray)):
        raise OptionError(
            f"checkpoints={brief(checkpoints)}", allowed="a list of epochs", remedy="as checkpoints=[0, 5]"
        )
    return tuple(sorted({checked_count("an epoch of checkpoints", epoch, 0) for epoch in checkpoints}))


def checked_orders(orders: object, n: int, epochs: int) -> np.ndarray | None:
    """The order of `n` samples in every epoch, (at least `epochs`, n); None means that the seed decides.

    Raises:
        OptionError: not rows of permutations, or not enough of them.
        DTypeError, ShapeError, InputError: no numbers, or none that can be read.
    """
    if orders is None:
        return None
    array = as_array(orders, "orders")
    fits = array.ndim == 2 and array.dtype.kind in "iu" and array.shape[1] == n and len(array) >= epochs
    if not fits or (np.sort(array, axis=1) != np.arange(n)).any():
        raise OptionError(
            f"orders of shape {array.shape} and dtype {array.dtype} for {counted(epochs, 'epoch')} of "
            f"{counted(n, 'sample')}",
            allowed=f"whole numbers (epochs, {n}): every row has each number from 0 to {n - 1} once",
            remedy="give a row for every epoch, or leave it out",
        )
    return array.astype(np.int64)


def describe(job: TrainJob, plan: Plan, data: Data, held_out: Data | None = None) -> dict[str, Any]:
    """All that determines a training and what is measured on its way, JSON-ready.

    Two with equal descriptions take the same steps and note the same.
    """
    slopes = {} if job.slopes is None else {"slopes": checksum(job.slopes.values), "weight": job.slopes.weight}
    validation = None if held_out is None else {"x": checksum(held_out.x), "y": checksum(held_out.y)}
    return {
        "model": job.model.spec(),
        "start": job.model.hash(),
        "data": {"n": len(data.x), "x": checksum(data.x), "y": checksum(data.y)},
        "validation": validation,
        "loss": job.loss,
        **slopes,
        "optimizer": job.optimizer.spec(),
        "rates": dict(job.rates),
        "schedule": plan.schedule.spec(),
        "clip_norm": job.clip_norm,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "orders": None if plan.orders is None else checksum(plan.orders),
        **({"linearized": True} if job.linearized else {}),
        "callbacks": {callback.name: _spec(callback) for callback in plan.callbacks},
    }


def _spec(callback: Callback) -> Any:
    """What a callback says of itself, which the file of the run will hold: better refused now than after the training.

    Raises:
        OptionError: it is not JSON-ready.
    """
    found = callback.spec() if hasattr(callback, "spec") else {"every": whole(callback.every)}
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the spec() of callback {callback.name!r} is not JSON-ready ({error})",
            allowed="dicts, lists, text, numbers of Python, True, False and None",
            remedy="convert arrays by .tolist(), and numbers of NumPy by int() or float()",
        ) from None
    return found


def take_over(
    ledger: Ledger, resume: TrainingRun | str | os.PathLike[str], plan: Plan, model: Model | ForeignNetwork
) -> None:
    """Let the ledger go on from a run of `model`.

    Raises:
        RunFileError: the run is of another model, of another start, or was made with other settings or data.
        OptionError: it is longer than what is asked for.
    """
    # What another Model's run is of, and what is asked for, is said below.
    given = model if isinstance(model, ForeignNetwork) else None
    run = resume if isinstance(resume, TrainingRun) else TrainingRun.load(resume, model=given)
    asked = json.loads(json.dumps(ledger.plan))
    if run.plan["model"] != asked["model"]:
        raise RunFileError(
            f"the run to resume is of another model: {_layers(run.plan)}",
            allowed=_layers(asked),
            remedy="give the model that this run started from",
        )
    differing = [key for key in {**asked, **run.plan} if run.plan.get(key) != asked.get(key)]
    if differing:
        words = "; ".join(f"{key}: {run.plan.get(key)!r} in the run, {asked.get(key)!r} asked for" for key in differing)
        raise RunFileError(
            f"the run to resume was made with other settings ({words})",
            allowed="the same start, data and settings, but for the number of epochs and the engine",
            remedy="give the settings of that run, or begin a new one",
        )
    if run.epochs > plan.epochs:
        raise OptionError(
            f"epochs={plan.epochs}, but the run to resume has {run.epochs}",
            allowed=f"at least {run.epochs}: epochs count from the start of the run",
            remedy="ask for more epochs",
        )
    ledger.take_over(run)


def _layers(plan: Any) -> str:
    if "module" in plan["model"]:
        return f"{plan['model']['dtype']} {plan['model']['module']} with the parameters {plan['model']['params']}"
    if "nodes" in plan["model"]:
        nodes, params = plan["model"]["nodes"], plan["model"]["params"]
        return (
            f"{plan['model']['dtype']} graph of {counted(len(nodes), 'node')} with the parameters {', '.join(params)}"
        )
    return f"{plan['model']['dtype']} " + ", ".join(
        f"{layer['kind']}({', '.join(str(v) for k, v in layer.items() if k != 'kind')})"
        for layer in plan["model"]["layers"]
    )
