"""Pictures of trainings. Each function takes results and returns a matplotlib Figure; none touches pyplot's state."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from udlbridge.alignment_study import VARIANTS, AlignmentStudy
from udlbridge.training.runs import TrainingRun

COLOURS = dict(zip(VARIANTS, ("tab:blue", "tab:orange"), strict=True))
STYLES = ("-", "--", ":")
MARKERS = "os^"


def draw_losses(ax: Axes, run: TrainingRun, label: str) -> Axes:
    """The loss of every step, and its mean over each epoch."""
    steps = len(run.losses) // max(run.epochs, 1)
    line = ax.plot(np.arange(1, len(run.losses) + 1), run.losses, lw=0.6, alpha=0.4)[0]
    if run.epochs:
        means = run.losses.reshape(run.epochs, steps).mean(axis=1)
        centres = (np.arange(run.epochs) + 0.5) * steps
        ax.plot(centres, means, "o-", color=line.get_color(), label=label)
    ax.set_xlabel("step")
    ax.set_ylabel("loss of the batch")
    return ax


def draw_series(ax: Axes, study: AlignmentStudy, quantity: str, title: str, *, percent: bool = False) -> Axes:
    """One measured quantity by epoch: a colour for each model, a marker and a line style for each engine.

    `percent` shows a share as per cent, on a logarithmic scale.
    """
    engines = list(dict.fromkeys(backend for backend, _ in study.runs))
    for backend, variant in study.runs:
        rows = study.table(backend, variant)
        index = engines.index(backend)
        values = np.array([np.nan if row[quantity] is None else row[quantity] for row in rows], dtype=np.float64)
        ax.plot(
            np.array([row["epoch"] for row in rows], dtype=np.float64),
            100 * values if percent else values,
            STYLES[index % 3] + MARKERS[index % 3],
            color=COLOURS[variant],
            # Later engines are drawn with smaller, filled marks, so that equal values stay visible.
            ms=8 - 3 * index,
            mfc="none" if index == 0 else COLOURS[variant],
            label=f"{variant}, {backend}",
        )
    if percent:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("epoch")
    return ax


def study_figure(study: AlignmentStudy) -> Figure:
    """Errors, alignments and the change of the NTK by epoch, and the losses by step."""
    figure = Figure(figsize=(11.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    draw_series(axes[0, 0], study, "test_error", "test error (%)", percent=True)
    draw_series(axes[0, 1], study, "feature_alignment", "alignment of features and labels").set_ylim(0, 1)
    draw_series(axes[0, 2], study, "ntk_alignment", "alignment of NTK and labels").set_ylim(0, 1)
    draw_series(axes[1, 0], study, "train_error", "training error (%)", percent=True)
    draw_series(axes[1, 1], study, "ntk_change", "change of the NTK, |K - K0| / |K0|")
    first = next(iter(study.runs))[0]
    for variant in VARIANTS:
        draw_losses(axes[1, 2], study.runs[first, variant], variant)
    axes[1, 2].set_title(f"loss ({first}); dots: mean of the epoch", fontsize=10)
    axes[1, 2].legend(fontsize=8)
    axes[0, 0].legend(fontsize=8)
    digits = " against ".join(map(str, study.digits))
    figure.suptitle(f"MNIST {digits}, {study.architecture}: regular and slow features")
    return figure
