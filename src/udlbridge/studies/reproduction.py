"""The Flux kernel notebook, reproduced on every engine and compared with what Flux itself recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge import backends, data
from udlbridge.analysis.checking import Comparison
from udlbridge.analysis.spectra import spectrum
from udlbridge.analysis.verdicts import Spectrum
from udlbridge.displays import Displayed, draw
from udlbridge.kernels.ntk import ntk
from udlbridge.networks import models
from udlbridge.networks.model import Model
from udlbridge.reports import json_ready
from udlbridge.studies.recorded import flux
from udlbridge.tolerances import budget, relative_difference
from udlbridge.words import EngineWord

RECORDED = "recorded Flux"


@dataclass(frozen=True)
class KernelResult:
    """A kernel of one output from one engine, and its spectrum."""

    kernel: np.ndarray
    spectrum: Spectrum

    def to_dict(self) -> dict[str, Any]:
        """Kernel, eigenvalues, number of negative ones and the verdict, JSON-ready."""
        return {
            "kernel": self.kernel.tolist(),
            "eigenvalues": self.spectrum.eigenvalues.tolist(),
            "negative": self.spectrum.negative,
            "verdict": self.spectrum.verdict,
        }


@dataclass(frozen=True, repr=False)
class Reproduction(Displayed):
    """Both methods of the notebook on every engine that ran, how well they agree, and who was left out."""

    method1: Mapping[str, KernelResult]
    method2: Mapping[str, KernelResult]
    comparisons: tuple[Comparison, ...]
    skipped: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def worst(self) -> float:
        """The largest relative difference."""
        return max(row.difference for row in self.comparisons)

    @property
    def ok(self) -> bool:
        """Whether everything agrees within the budget."""
        return all(row.ok for row in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        found = {
            "method1": {name: result.to_dict() for name, result in self.method1.items()},
            "method2": {name: result.to_dict() for name, result in self.method2.items()},
            "agreement": {
                "ok": self.ok,
                "worst": self.worst,
                "comparisons": [row.to_dict() for row in self.comparisons],
            },
            "skipped": dict(self.skipped),
            "versions": dict(self.versions),
        }
        return dict(json_ready(found))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: a row for each comparison."""
        return [row.as_row() for row in self.comparisons]

    def plot(self, ax: Any = None) -> Any:
        """Differences of the kernels with the budget, on `ax` or a new figure; returns the Axes."""
        return draw("reports:draw_comparisons", ax, self.comparisons)

    def headline(self) -> str:
        """The verdict."""
        verdict = "all agree" if self.ok else "THEY DO NOT AGREE"
        return f"{verdict}: worst {self.worst:.2e}, budget {self.comparisons[0].budget:.0e}"

    def __str__(self) -> str:
        lines = []
        titles = (
            ("Method 1: the fixed network, two points, output 0", self.method1),
            ("Method 2: model_3LS (784-60-60-10), first 10 MNIST training images, output 0", self.method2),
        )
        for title, results in titles:
            lines += [title, ""]
            for name, result in results.items():
                lines += [f"  {name}", *(f"    {row}" for row in _rows(result.kernel))]
                lines += [f"    {line}" for line in str(result.spectrum).splitlines()] + [""]
        lines += ["Agreement (largest difference relative to the largest entry)", ""]
        width = max(len(f"{row.first} - {row.second}") for row in self.comparisons)
        for row in self.comparisons:
            pair = f"{row.first} - {row.second}"
            lines.append(
                f"  {row.quantity:<24} {pair:<{width}}  {row.difference:.2e}  {'ok' if row.ok else 'DIFFERENT'}"
            )
        lines += ["", self.headline()]
        lines += [f"{name} was not compared: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def reproduce(
    engines: str | Sequence[str], *, skipped: Mapping[str, str] | None = None, folder: Path | None = None, seed: int = 0
) -> Reproduction:
    """Both methods of the notebook on the named engines.

    Method 1 is the fixed all-ones network on two points. Method 2 is `model_3LS` with fresh weights from `seed` on the
    first ten MNIST training images. Each engine is also compared with the recorded Flux runs: on the same all-ones
    network, and on `model_3LS` with the recorded weights.

    Args:
        engines: names of backends.
        skipped: engines left out by the caller, with the reason, to be reported.
        folder: where the MNIST files are; None as for `data.mnist`.
        seed: of the weights of method 2.

    Raises:
        BackendUnavailable: a named engine cannot run.
        DataError: MNIST cannot be had.
    """
    images, _ = data.mnist("train", n=10, folder=folder)
    names = backends.selected(engines)
    points = models.NOTEBOOK_POINTS
    method1 = {name: _result(models.notebook_method1(), points, name) for name in names}
    method2 = {name: _result(models.three_layer_sigmoid(seed), images, name) for name in names}
    rows = []
    for title, results in (("method 1 kernel", method1), ("method 2 kernel", method2)):
        for first, second in combinations(names, 2):
            rows.append(_compared(title, first, results[first].kernel, second, results[second].kernel))
    for title, key, x in (
        ("method 1 kernel", "notebook_method1", points),
        ("recorded weights kernel", "mnist_3ls", images),
    ):
        recording = flux(key)
        for name in names:
            kernel = ntk(recording.model, x, outputs=0, backend=name)
            rows.append(_compared(title, name, kernel, RECORDED, recording.kernel))
    versions = {part: version for name in names for part, version in backends.get(name).versions().items()}
    return Reproduction(method1, method2, tuple(rows), dict(skipped or {}), versions)


def _result(model: Model, x: np.ndarray, backend: EngineWord) -> KernelResult:
    kernel = ntk(model, x, outputs=0, backend=backend)
    return KernelResult(kernel, spectrum(kernel, rank=model.n_params))


def _compared(quantity: str, first: str, value: np.ndarray, second: str, reference: np.ndarray) -> Comparison:
    return Comparison(quantity, first, second, relative_difference(value, reference), budget(reference.dtype))


def _rows(kernel: np.ndarray) -> list[str]:
    """The matrix as the notebook prints it: six digits, and the middle columns and rows of a large one left out."""
    n = len(kernel)
    shown = list(range(n)) if n <= 6 else [0, 1, 2, n - 3, n - 2, n - 1]
    lines = []
    for i in shown:
        cells = [f"{kernel[i, j]:>10.6g}" for j in shown]
        if n > 6:
            cells.insert(3, "...")
        lines.append(" ".join(cells))
    return [*lines[:3], "       ...", *lines[3:]] if n > 6 else lines
