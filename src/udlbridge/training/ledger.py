"""The results of a training so far, and those up to the last good epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.backends.jobs import TrainState
from udlbridge.errors import DTypeError, OptionError
from udlbridge.texts import kind_of
from udlbridge.training.probes import Measurement
from udlbridge.training.runs import EpochErrors, TrainingRun


class Ledger:
    """Collects losses, errors, checkpoints and measurements; `close_epoch` makes them part of the run.

    What comes after the last closed epoch is not in `run()`: that is the run to go on from if a later step fails.
    """

    def __init__(self, plan: Mapping[str, Any], backend: str, versions: Mapping[str, str], start: Any) -> None:
        self.plan, self._backend, self._versions = plan, backend, versions
        self._losses: list[np.ndarray] = []
        self._errors: list[EpochErrors] = []
        self._checkpoints: dict[int, Any] = {}
        self._records: dict[str, list[tuple[int, Measurement]]] = {}
        self._closed_losses = 0
        self._closed_records: dict[str, int] = {}
        self._model, self._state, self.epochs = start, TrainState(dict(start.params)), 0
        self._before, self._began = 0.0, time.perf_counter()

    def take_over(self, run: TrainingRun) -> None:
        """Go on from where a run ended."""
        self._losses = [run.losses]
        self._errors = list(run.errors)
        self._checkpoints = dict(run.checkpoints)
        for name, series in run.records.items():
            keys = [key for key in series if key != "step"]
            self._records[name] = [
                (int(step), {key: series[key][row] for key in keys}) for row, step in enumerate(series["step"])
            ]
        self._before = run.seconds
        self.close_epoch(run.epochs, run.model, run.state)

    @property
    def state(self) -> TrainState:
        """At the end of the last closed epoch."""
        return self._state

    def add_losses(self, losses: np.ndarray) -> None:
        """Losses of further steps."""
        self._losses.append(losses)

    def add_errors(self, errors: EpochErrors) -> None:
        """Error rates after an epoch."""
        self._errors.append(errors)

    def add_record(self, name: str, step: int, measured: Measurement) -> None:
        """A callback's measurement after so many steps.

        Raises:
            OptionError: its names or shapes are not those of its measurements before, or it is not arrays by name.
            InputError: an array that is not of real numbers.
        """
        measured = _as_arrays(name, measured)
        shapes = {key: np.shape(value) for key, value in measured.items()}
        if "step" in shapes:
            raise OptionError(
                f"callback {name!r} measures something called 'step'",
                allowed="any other name: steps are noted anyway",
                remedy="rename it",
            )
        before = self._records.get(name)
        if before and shapes != {key: np.shape(value) for key, value in before[0][1].items()}:
            raise OptionError(
                f"callback {name!r} gives {shapes} after step {step}, and gave something else before",
                allowed="the same names and shapes each time",
                remedy="measure on samples that do not change, or under another name",
            )
        self._records.setdefault(name, []).append((step, measured))

    def keep(self, epoch: int, model: Any) -> None:
        """A checkpoint."""
        self._checkpoints[epoch] = model

    def close_epoch(self, epochs: int, model: Any, state: TrainState) -> None:
        """All that was added up to now belongs to the run."""
        self.epochs, self._model, self._state = epochs, model, state
        self._closed_losses = len(self._losses)
        self._closed_records = {name: len(rows) for name, rows in self._records.items()}

    def last_error(self) -> float | None:
        """The latest error rate: on validation data if there are any."""
        if not self._errors:
            return None
        last = self._errors[-1]
        return last.train if last.validation is None else last.validation

    def run(self) -> TrainingRun:
        """The run up to the last closed epoch."""
        return TrainingRun(
            model=self._model,
            losses=np.concatenate([np.zeros(0), *self._losses[: self._closed_losses]]),
            errors=tuple(e for e in self._errors if e.epoch <= self.epochs),
            checkpoints={epoch: model for epoch, model in self._checkpoints.items() if epoch <= self.epochs},
            records={name: _stack(self._records[name][:count]) for name, count in self._closed_records.items()},
            plan=dict(self.plan),
            state=self._state,
            epochs=self.epochs,
            backend=self._backend,
            seconds=self._before + time.perf_counter() - self._began,
            versions=dict(self._versions),
        )


def _as_arrays(callback: str, measured: object) -> dict[str, np.ndarray]:
    """What a callback measured as arrays that the file of the run can hold.

    Raises:
        OptionError: something else than arrays by name.
        InputError: an array that is not of real numbers.
    """
    if not isinstance(measured, Mapping) or not all(isinstance(key, str) for key in measured):
        raise OptionError(
            f"callback {callback!r} gives {kind_of(measured)}",
            allowed="arrays and numbers by name, in a dict",
            remedy='as {"loss": 0.5}',
        )
    found = {str(key): as_array(value, f"{key!r} of callback {callback!r}") for key, value in measured.items()}
    for key, array in found.items():
        if array.dtype.kind == "c" or array.dtype.itemsize > 8:
            raise DTypeError(
                f"{key!r} of callback {callback!r} has dtype {array.dtype}",
                allowed="real numbers of up to 8 bytes, which the file of a run can hold",
                remedy="give the real and the imaginary part by names of their own, or convert it",
            )
    return found


def _stack(rows: Sequence[tuple[int, Measurement]]) -> dict[str, np.ndarray]:
    series = {key: np.stack([np.asarray(measured[key]) for _, measured in rows]) for key in rows[0][1]}
    return {"step": np.array([step for step, _ in rows]), **series}
