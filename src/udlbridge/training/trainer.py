"""One training: what is common to all engines between their native calls."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int

from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import TrainJob, TrainState
from udlbridge.errors import NumericalError, ParameterError, TrainingDiverged
from udlbridge.kernels.expansions import moved
from udlbridge.progress import Show
from udlbridge.training.endings import objective
from udlbridge.training.ledger import Ledger
from udlbridge.training.objectives import (
    class_marks,
    classes,
    predicted,
)
from udlbridge.training.plans import (
    Data,
    Plan,
)
from udlbridge.training.probes import Callback, Measure
from udlbridge.training.runs import EpochErrors

CHUNK = 4096
"""Samples that are classified at once."""


PIECES = 20
"""Parts of an epoch after which a bar moves."""


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

    def _measure(self, step: int, model: Any) -> None:
        for callback, measure in self._measures:
            if step % callback.every == 0:
                try:
                    measured = measure(model)
                except NumericalError as error:
                    words = f"callback {callback.name!r} cannot measure the model: {error.given}"
                    self._diverged(step, words, error.remedy)
                self._ledger.add_record(callback.name, step, measured)

    def _model(self, step: int, state: TrainState) -> Any:
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

    def _error_rate(self, model: Any, data: Data) -> float | None:
        """The share of samples whose class is not the one that the network gives; None for regression."""
        wanted = classes(self._targets_of, data.y, self._marks)
        if wanted is None or self._marks is None:
            return None
        parts = [self._outputs(model, data.x[i : i + CHUNK]) for i in range(0, len(data.x), CHUNK)]
        given = predicted(self._job.loss, np.concatenate(parts), self._marks)
        return float(np.mean(given != wanted))

    def _outputs(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Of the network, or of the one that is linearised at the start, with the parameters of `model`."""
        if not self._job.linearized:
            return self._engine.outputs(model, x)
        return self._engine.expand(self._job.model, x, moved(self._job.model, model.params), 1)

    def _diverged(self, step: int, what: str, remedy: str = "") -> NoReturn:
        run = self._ledger.run()
        raise TrainingDiverged(
            f"training stopped at step {step} (epoch {self._ledger.epochs + 1}): {what}",
            run=run,
            allowed="finite losses, parameters and measurements",
            remedy=f"{remedy}{'; or ' if remedy else ''}lower the learning rate or clip the gradients; "
            f"the error's .run stands after epoch {run.epochs}",
        )
