"""What the kernel alignment study found: its runs, as tables, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from udlbridge.displays import Displayed, draw
from udlbridge.reports import json_ready
from udlbridge.texts import counted
from udlbridge.tolerances import relative_difference
from udlbridge.training.runs import TrainingRun

LR = 0.01
"""The notebook's learning rate."""


VARIANTS: dict[str, Mapping[str, float]] = {"regular": {"*": LR}, "slow": {"0.*": LR / 10, "*": LR}}
"""The two models of the study, and their learning rates by parameter."""


MEASURED = ("feature_alignment", "ntk_alignment", "ntk_change")


@dataclass(frozen=True)
class Drift:
    """How far two engines are apart at the end of one model's training.

    `losses`, `weights`: relative to the largest; `alignments`: the largest absolute difference over all epochs.
    """

    variant: str
    first: str
    second: str
    losses: float
    weights: float
    alignments: float


@dataclass(frozen=True, eq=False, repr=False)
class AlignmentStudy(Displayed):
    """The runs of the study by (engine, model), and what they show.

    `architecture`: the network in words, as "784-2000-2 ReLU"; `width`: d, the number of features of an image, those
    that the readout sees; `names`: what the classes are called, in the order of `digits`; `source`: of what data.

    Examples:
        >>> data = np.eye(784, dtype="float32")[:8], np.tile([8, 9], 4)
        >>> study = ub.study_alignment(data, data, backends=["torch"], width=8, epochs=1, batch_size=4, progress=False)
        >>> study.digits, study.n_train, study.width
        ((8, 9), 8, 8)
    """

    digits: tuple[int, ...]
    n_train: int
    n_test: int
    architecture: str
    width: int
    runs: Mapping[tuple[str, str], TrainingRun]
    names: tuple[str, ...] = ()
    source: str = ""

    @property
    def subject(self) -> str:
        """What is told apart, in words: "MNIST 8 against 9", "setosa against virginica"."""
        return f"{self.source} {' against '.join(self.names or map(str, self.digits))}".strip()

    def table(self, backend: str, variant: str) -> list[dict[str, float | int | None]]:
        """One row for each epoch, 0 being the start."""
        run = self.runs[backend, variant]
        series = run.records["alignment"]
        return [
            {
                "epoch": e.epoch,
                "train_error": e.train,
                "test_error": e.validation,
                **{key: float(series[key][row]) for key in MEASURED},
            }
            for row, e in enumerate(run.errors)
        ]

    def drift(self) -> list[Drift]:
        """The differences of all pairs of engines, for each model."""
        engines = list(dict.fromkeys(backend for backend, _ in self.runs))
        return [
            _drift(variant, first, second, self.runs[first, variant], self.runs[second, variant])
            for first, second in combinations(engines, 2)
            for variant in VARIANTS
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = {
            "digits": list(self.digits),
            "names": list(self.names or map(str, self.digits)),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "architecture": self.architecture,
            "width": self.width,
            "runs": [
                {
                    "backend": backend,
                    "model": variant,
                    "epochs": self.table(backend, variant),
                    "seconds": run.seconds,
                    "versions": dict(run.versions),
                    "plan": dict(run.plan),
                    "losses": run.losses,
                }
                for (backend, variant), run in self.runs.items()
            ],
            "drift": self.drift(),
        }
        return dict(json_ready(found))

    def __str__(self) -> str:
        """A table for each model and engine, and the drift between engines."""
        lines = [
            f"{self.subject}: {counted(self.n_train, 'sample')} to learn, {self.n_test:,} to test; "
            f"{self.architecture}; alignments with the label kernel on the test samples"
        ]
        head = f"{'epoch':>5} {'train error':>12} {'test error':>12} {'features':>10} {'NTK':>10} {'NTK change':>11}"
        for (backend, variant), run in self.runs.items():
            lines += ["", f"{variant}, {backend} ({run.seconds:.1f} s)", head]
            lines += [
                f"{row['epoch']:>5} {row['train_error']:>12.2%} {row['test_error']:>12.2%} "
                f"{row['feature_alignment']:>10.4f} {row['ntk_alignment']:>10.4f} {row['ntk_change']:>11.4f}"
                for row in self.table(backend, variant)
            ]
        if drifts := self.drift():
            lines += ["", "drift between engines: losses and weights relative to the largest, alignments absolute"]
            lines += [
                f"{d.variant:>8}, {d.first} and {d.second}: losses {d.losses:.1e}, weights {d.weights:.1e}, "
                f"alignments {d.alignments:.1e}"
                for d in drifts
            ]
        return "\n".join(lines)

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [
            {"model": variant, "engine": backend, **row}
            for backend, variant in self.runs
            for row in self.table(backend, variant)
        ]

    def plot(self, ax: Any = None) -> Any:
        """The alignment of the NTK with the labels by epoch, on `ax` or a new figure; returns the Axes."""
        return draw("training:draw_series", ax, self, "ntk_alignment", "alignment of NTK and labels")


def _drift(variant: str, first: str, second: str, a: TrainingRun, b: TrainingRun) -> Drift:
    weights = [relative_difference(b.model.params[name], value) for name, value in a.model.params.items()]
    one, two = a.records["alignment"], b.records["alignment"]
    alignments = [np.abs(one[key] - two[key]).max() for key in MEASURED if key.endswith("_alignment")]
    return Drift(variant, first, second, relative_difference(b.losses, a.losses), max(weights), float(max(alignments)))
