"""`train`: the loop over epochs, the same for every engine; the steps are the engine's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int

from udlbridge import backends
from udlbridge.atomic import check_target
from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import TrainJob, TrainState
from udlbridge.backends.optimisers import checked_optimizer, group_rates
from udlbridge.errors import NumericalError, OptionError, ParameterError, RunFileError, TrainingDiverged
from udlbridge.networks.inputs import check_model, checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_not_negative, thread_count
from udlbridge.progress import Show, progress_bar
from udlbridge.training.endings import objective
from udlbridge.training.ledger import Ledger
from udlbridge.training.objectives import (
    Loss,
    Sobolev,
    check_several_classes,
    checked_loss,
    checked_slopes,
    checked_targets,
    class_marks,
    classes,
    predicted,
)
from udlbridge.training.plans import (
    Data,
    Plan,
    checked_callbacks,
    checked_checkpoints,
    checked_data,
    checked_orders,
    checked_pair,
    describe,
    take_over,
)
from udlbridge.training.probes import Callback, Measure
from udlbridge.training.runs import EpochErrors, TrainingRun
from udlbridge.training.schedules import checked_schedule

CHUNK = 4096
"""Samples that are classified at once."""

PIECES = 20
"""Parts of an epoch after which a bar moves."""


def loss_gradient(
    model: Model, x: np.ndarray, y: np.ndarray, *, loss: Loss = "cross_entropy", backend: str | None = None
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss of a batch, and its derivative with respect to every parameter.

    Args:
        model, x, y, loss, backend: as for `train`.

    Returns:
        The loss, and an array of each parameter's shape by its name.

    Raises:
        As `train`.
    """
    batch = checked_batch(model, x)
    computed = objective(model, checked_loss(loss), batch)
    targets = checked_targets(computed.loss, y, len(batch), output_size(model, batch.shape[1:]), model.dtype)
    slopes = checked_slopes(loss, targets, batch, model.dtype) if isinstance(loss, Sobolev) else None
    return backends.get(backend).loss_gradient(computed.model, batch, targets, computed.loss, slopes)


def train(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epochs: int,
    batch_size: int | None = None,
    backend: str | None = None,
    loss: Loss = "cross_entropy",
    optimizer: Any = ("sgd", {"lr": 0.01}),
    seed: int = 0,
    orders: np.ndarray | None = None,
    lr_groups: Mapping[str, float] | None = None,
    schedule: Any = None,
    clip_norm: float | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    evaluate_every: int = 1,
    checkpoints: Sequence[int] = (),
    callbacks: Sequence[Callback] = (),
    resume: TrainingRun | str | os.PathLike[str] | None = None,
    save_to: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> TrainingRun:
    """Train a network by minibatch descent; the same batches in the same order on every engine.

    The network is evaluated in inference mode here too: Dropout passes everything on, and BatchNorm keeps its
    statistics.

    Args:
        model: where training starts; it is not changed.
        x: samples (n, *D), of the model's dtype.
        y: class numbers (n,), or targets (n, O); see `udlbridge.training.objectives.checked_targets`.
        epochs: passes over the samples, counted from the start of the run (also of one that is resumed).
        batch_size: samples in a batch; the last of an epoch may be smaller. None means all.
        backend: "torch", "julia" or "reference"; None is the default of `udlbridge.backends.default_name`.
        loss: "mse" (mean over all entries); "cross_entropy" or "binary_cross_entropy", both of logits; "nll", the
            negative log likelihood, of a network that ends in Softmax, LogSoftmax or a sigmoid, and so gives
            probabilities: its value is that of the cross-entropy of the logits; or
            `udlbridge.udl.losses.sobolev(slopes)`, for values of some samples and derivatives by the input of others.
        optimizer: a name, or (name, settings), as ("adam", {"lr": 0.01, "betas": (0.9, 0.999)}); the registry is
            `udlbridge.backends.optimisers.OPTIMISERS`.
        seed: of the order of the samples, which NumPy draws anew for every epoch.
        orders: their order itself, whole numbers (at least `epochs`, n): a permutation of the samples for each epoch,
            as another program drew it; the seed is then without effect. None leaves the order to the seed.
        lr_groups: learning rates by glob pattern on parameter names; the first match counts, and the optimiser's lr
            serves the rest: {"0.*": 1e-3} slows the first layer.
        schedule: None, ("step", {"every": 2, "factor": 0.5}) or ("cosine", {"epochs": 10, "floor": 0.0}): a factor on
            all learning rates, for each epoch.
        clip_norm: gradients are multiplied by min(1, clip_norm / their norm over all parameters together).
        validation: (x, y) whose error rate is reported too.
        evaluate_every: epochs between two evaluations of the error rates; 0 means never.
        checkpoints: epochs after which the model is kept in the run; 0 is the start. Those behind `epochs` are for the
            time when the run is resumed.
        callbacks: measurements in the course of training, as `udlbridge.Probe`.
        resume: a run, or its file, to go on from; all other settings must be those of that run, its data, validation
            data and callbacks too. The engine may differ.
        save_to: file to which the run is saved after every epoch.
        progress: a bar with loss, error and remaining time; None shows it on a terminal.
        threads: for the engine's BLAS; None leaves it alone.
        device: where torch computes: "cpu", "cuda", "mps".

    Returns:
        The run. On the same engine, a run that was resumed equals one that was not interrupted, bit for bit.

    Raises:
        TrainingDiverged: a loss or a parameter is no longer finite, or a callback's measurement is no longer defined;
            `.run` is the run up to the last good epoch.
        OptionError: a setting that does not exist or does not fit, as a pattern that matches nothing; a cross-entropy
            of probabilities, to which softmax or sigmoid would be applied a second time.
        RunFileError: `resume` belongs to another model, or was made with other settings; `save_to` cannot be written.
        InputError, ShapeError, DTypeError: what is wrong with `x` and `y`.
        UnknownBackend, BackendUnavailable: what is wrong with `backend`.
    """
    check_model(model)
    if save_to is not None:
        check_target(Path(save_to), RunFileError)
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    device = backends.checked_device(name, device)
    optimiser = checked_optimizer(optimizer)
    rates = group_rates(list(model.params), optimiser.settings["lr"], lr_groups)
    if not model.params:
        raise OptionError("a model without parameters", allowed="at least one layer with some", remedy="add one")
    clip = None if clip_norm is None else checked_not_negative("clip_norm", clip_norm)
    if clip == 0:
        raise OptionError("clip_norm=0", allowed="a number above 0, or None", remedy="use None to leave it out")
    thread_count(threads)
    job = TrainJob(model, checked_loss(loss), optimiser, rates, clip, threads, device)
    data = checked_data(job, x, y)
    if isinstance(loss, Sobolev):
        job = replace(job, slopes=checked_slopes(loss, data.y, data.x, model.dtype))
    computed = objective(model, job.loss, data.x)
    check_several_classes(computed.loss, data.y)
    held_out = None if validation is None else checked_data(job, *checked_pair(validation), "validation ")
    plan = Plan(
        epochs=checked_count("epochs", epochs, 0),
        batch_size=len(data.x) if batch_size is None else min(checked_count("batch_size", batch_size, 1), len(data.x)),
        seed=checked_count("seed", seed, 0),
        schedule=checked_schedule(schedule),
        evaluate_every=checked_count("evaluate_every", evaluate_every, 0),
        checkpoints=checked_checkpoints(checkpoints),
        callbacks=checked_callbacks(callbacks),
        orders=checked_orders(orders, len(data.x), checked_count("epochs", epochs, 0)),
    )
    engine = backends.get(name)
    versions = {"udlbridge": metadata.version("udlbridge"), **engine.versions()}
    ledger = Ledger(describe(job, plan, data, held_out), name, versions, model)
    if resume is not None:
        take_over(ledger, resume, plan)
    native = replace(job, model=computed.model, loss=computed.loss)
    session = engine.training(native, data.x, data.y, ledger.state)
    trainer = Trainer(job, plan, engine, session, data, held_out, ledger, save_to)
    with progress_bar(f"training ({name})", ledger.epochs, plan.epochs, progress) as show:
        trainer.begin(fresh=resume is None)
        while ledger.epochs < plan.epochs:
            trainer.run_epoch(show)
    run = ledger.run()
    if save_to is not None and resume is not None:
        run.save(save_to)  # a run that was complete already had no epoch to save it after
    return run


def batch_order(n: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """The order of `n` samples in one epoch (counted from 0): a permutation that seed and epoch alone determine."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class Trainer:
    """One training: what is common to all engines between their native calls."""

    def __init__(
        self,
        job: TrainJob,
        plan: Plan,
        engine: Backend[Any],
        session: Training,
        data: Data,
        held_out: Data | None,
        ledger: Ledger,
        save_to: str | os.PathLike[str] | None,
    ) -> None:
        self._job, self._plan, self._engine, self._session = job, plan, engine, session
        self._data, self._held_out, self._ledger, self._save_to = data, held_out, ledger, save_to
        self._measures: list[tuple[Callback, Measure]] = []
        # How classes are marked is a matter of the training data: others may not have all of them.
        self._targets_of = objective(job.model, job.loss, data.x).loss
        self._marks = class_marks(self._targets_of, data.y)

    def begin(self, fresh: bool) -> None:
        """Let the callbacks begin at the start of the run; a fresh run is measured and evaluated there."""
        start = self._job.model
        self._measures = [(callback, callback.begin(start, self._engine.name)) for callback in self._plan.callbacks]
        if fresh:
            self._measure(0, start)
            self._close_epoch(0)

    def run_epoch(self, show: Show | None = None) -> None:
        """One epoch, in one native call, or in as many as measurements and the bar cut it into."""
        epoch, size, n = self._ledger.epochs, self._plan.batch_size, len(self._data.x)
        given = self._plan.orders
        order = batch_order(n, self._plan.seed, epoch) if given is None else given[epoch]
        factor = self._plan.schedule.factor(epoch)
        steps = -(-n // size)
        before = epoch * steps
        start = 0
        for stop in self._cuts(before, steps, 1 if show is None else PIECES):
            losses = self._session.epoch(order[start * size : stop * size], size, factor)
            if not np.isfinite(losses).all():
                self._diverged(before + start + len(losses), f"the loss is {losses[-1]}")
            self._ledger.add_losses(losses)
            due = [callback for callback, _ in self._measures if (before + stop) % callback.every == 0]
            if due:
                self._measure(before + stop, self._model(before + stop, self._session.state()))
            start = stop
            if show is not None and stop < steps:
                show(epoch + stop / steps, float(losses[-1]), self._ledger.last_error())
        self._close_epoch(epoch + 1)
        if show is not None:
            show(float(epoch + 1), float(losses[-1]), self._ledger.last_error())

    def _cuts(self, before: int, steps: int, pieces: int) -> list[int]:
        """Steps of the epoch after which the engine hands back: where a callback is due, for the bar, and at the end.

        Where an epoch is cut does not change what is computed.
        """
        cuts = {-(-steps * piece // pieces) for piece in range(1, pieces + 1)}
        for callback in self._plan.callbacks:
            cuts |= {step - before for step in range(before + 1, before + steps + 1) if step % callback.every == 0}
        return sorted(cuts)

    def _measure(self, step: int, model: Model) -> None:
        for callback, measure in self._measures:
            if step % callback.every == 0:
                try:
                    measured = measure(model)
                except NumericalError as error:
                    words = f"callback {callback.name!r} cannot measure the model: {error.given}"
                    self._diverged(step, words, error.remedy)
                self._ledger.add_record(callback.name, step, measured)

    def _model(self, step: int, state: TrainState) -> Model:
        try:
            return self._job.model.with_params(state.params)
        except ParameterError as error:
            self._diverged(step, error.given)

    def _close_epoch(self, epochs: int) -> None:
        steps = -(-len(self._data.x) // self._plan.batch_size)
        state = self._session.state() if epochs else self._ledger.state
        model = self._model(epochs * steps, state) if epochs else self._job.model
        every = self._plan.evaluate_every
        if every and epochs % every == 0:
            held_out = None if self._held_out is None else self._error_rate(model, self._held_out)
            self._ledger.add_errors(EpochErrors(epochs, self._error_rate(model, self._data), held_out))
        if epochs in self._plan.checkpoints:
            self._ledger.keep(epochs, model)
        self._ledger.close_epoch(epochs, model, state)
        if self._save_to is not None:
            self._ledger.run().save(self._save_to)

    def _error_rate(self, model: Model, data: Data) -> float | None:
        """The share of samples whose class is not the one that the network gives; None for regression."""
        wanted = classes(self._targets_of, data.y, self._marks)
        if wanted is None or self._marks is None:
            return None
        parts = [self._engine.outputs(model, data.x[i : i + CHUNK]) for i in range(0, len(data.x), CHUNK)]
        given = predicted(self._job.loss, np.concatenate(parts), self._marks)
        return float(np.mean(given != wanted))

    def _diverged(self, step: int, what: str, remedy: str = "") -> NoReturn:
        run = self._ledger.run()
        raise TrainingDiverged(
            f"training stopped at step {step} (epoch {self._ledger.epochs + 1}): {what}",
            run=run,
            allowed="finite losses, parameters and measurements",
            remedy=f"{remedy}{'; or ' if remedy else ''}lower the learning rate or clip the gradients; "
            f"the error's .run stands after epoch {run.epochs}",
        )
