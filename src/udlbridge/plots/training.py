"""Pictures of trainings. Each function takes results and returns a matplotlib Figure; none touches pyplot's state."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from udlbridge.plots.style import LINES, MARKERS, Places, canvas, colour
from udlbridge.studies.alignment_results import VARIANTS, AlignmentStudy
from udlbridge.training.runs import TrainingRun

COLOURS = {variant: colour(index) for index, variant in enumerate(VARIANTS)}
"""A colour for each model; each engine has a marker, and each model a line style besides."""
STYLES = dict(zip(VARIANTS, LINES, strict=False))


def draw_losses(ax: Axes, run: TrainingRun, label: str) -> Axes:
    """The loss of every step, and its mean over each epoch; empty for a run without epochs."""
    steps = max(1, len(run.losses) // max(run.epochs, 1))
    line = ax.plot(np.arange(1, len(run.losses) + 1), run.losses, lw=0.6, alpha=0.4)[0]
    means = run.losses.reshape(run.epochs, steps).mean(axis=1)
    centres = np.arange(run.epochs) * steps + (1 + steps) / 2  # steps count from 1
    ax.plot(centres, means, "o", linestyle=line.get_linestyle(), color=line.get_color(), label=label)
    ax.xaxis.set_major_locator(Places())
    ax.set_xlabel("step")
    ax.set_ylabel("loss of the batch")
    return ax


def draw_series(ax: Axes, study: AlignmentStudy, quantity: str, title: str, *, percent: bool = False) -> Axes:
    """One measured quantity by epoch: a colour for each model, a marker and a line style for each engine.

    `percent` shows a share as per cent, on a logarithmic scale that goes on to zero where a zero is drawn.
    """
    engines = list(dict.fromkeys(backend for backend, _ in study.runs))
    for backend, variant in study.runs:
        rows = study.table(backend, variant)
        index = engines.index(backend)
        values = np.array([np.nan if row[quantity] is None else row[quantity] for row in rows], dtype=np.float64)
        ax.plot(
            np.array([row["epoch"] for row in rows], dtype=np.float64),
            100 * values if percent else values,
            STYLES[variant] + MARKERS[index % len(MARKERS)],
            color=COLOURS[variant],
            # Later engines are drawn with smaller, filled marks, so that equal values stay visible.
            ms=8 - 3 * index,
            mfc="none" if index == 0 else COLOURS[variant],
            label=f"{variant}, {backend}",
        )
    if percent:
        _scale_by_decades(ax)
    else:  # where a quantity hardly changes, more labels would differ in their last digit alone
        ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(title)
    ax.set_xlabel("epoch")
    return ax


def _scale_by_decades(ax: Axes) -> None:
    """A logarithmic y axis for what is drawn; below the smallest positive value it is linear, if zeros are drawn."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines])
    positive = drawn[drawn > 0]
    if not len(positive):
        return
    smallest, decades = float(positive.min()), LogLocator(subs=(1, 2, 5))
    if (drawn == 0).any():
        ax.set_yscale("symlog", linthresh=smallest, linscale=0.4)
        # Where the scale turns linear is marked itself; ticks of decades that would stand in its label are left out.
        above = [tick for tick in decades.tick_values(smallest, positive.max()) if tick > 1.4 * smallest]
        ax.yaxis.set_major_locator(FixedLocator([0, smallest, *above]))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(-0.3 * smallest, 1.4 * positive.max())
    else:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(decades)
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def study_figure(study: AlignmentStudy) -> Figure:
    """Errors, alignments and the change of the NTK by epoch, and the losses by step."""
    with canvas(12.5, 7.2) as figure:
        _draw_study(figure, study)
    return figure


def _draw_study(figure: Figure, study: AlignmentStudy) -> None:
    axes = figure.subplots(2, 3)
    draw_series(axes[0, 0], study, "test_error", "test error", percent=True)
    # Not from 0 to 1: what tells the two models apart is a small part of that.
    draw_series(axes[0, 1], study, "feature_alignment", "alignment of features and labels")
    draw_series(axes[0, 2], study, "ntk_alignment", "alignment of NTK and labels")
    draw_series(axes[1, 0], study, "train_error", "training error", percent=True)
    draw_series(axes[1, 1], study, "ntk_change", "change of the NTK, |K - K0| / |K0|")
    labels = ("error (%)", "centred alignment", "centred alignment", "error (%)", "relative change")
    for ax, label in zip(axes.flat, labels, strict=False):
        ax.set_ylabel(label)
    first = next(iter(study.runs))[0]
    for variant in VARIANTS:
        draw_losses(axes[1, 2], study.runs[first, variant], variant)
    axes[1, 2].set_title(f"loss ({first}); dots: mean of the epoch")
    # One legend for all panels, outside of them: with three engines it would cover the lines of one.
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"{study.subject}, {study.architecture}: regular and slow features")
