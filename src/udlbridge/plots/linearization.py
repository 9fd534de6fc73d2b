"""The picture of a study of linearisation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from udlbridge.plots.style import LINES, MARKERS, canvas, colour
from udlbridge.studies.linearization import LinearizationStudy

STYLES = LINES


def draw_departures(ax: Axes, study: LinearizationStudy, *, legend: bool = True) -> Axes:
    """Departures by step, a colour and a line style for each width, and a marker for each engine."""
    for index, (name, values) in enumerate(study.network.items()):
        for row, width in enumerate(study.widths):
            # Later engines have smaller marks, so that equal values stay visible.
            ax.plot(
                study.steps,
                values[row],
                STYLES[row % len(STYLES)] + MARKERS[index % len(MARKERS)],
                color=colour(row),
                ms=8 - 2.5 * index,
                mfc="none",
                label=f"width {width}, {name}",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(study.steps, [str(step) for step in study.steps])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("step")
    ax.set_ylabel("|f - f_lin| / |y - f_0|")
    ax.set_title("the network against its linearisation")
    if legend:  # beside the lines, which take all of the panel
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def draw_widths(ax: Axes, study: LinearizationStudy) -> Axes:
    """The largest departure by width, and the slope of -1/2 that theory gives."""
    widths = np.array(study.widths, dtype=np.float64)
    for index, (name, values) in enumerate(study.network.items()):
        label = name if len(widths) == 1 else f"{name}, slope {study.slope(name):.2f}"
        ax.plot(
            widths,
            values.max(axis=1),
            MARKERS[index % len(MARKERS)],
            color="black",
            ms=9 - 2.5 * index,
            mfc="none",
            label=label,
        )
    first = next(iter(study.network.values())).max(axis=1)[0]
    ax.plot(widths, first * np.sqrt(widths[0] / widths), "--", color="grey", lw=1, label="1 / sqrt(width)")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(widths, [str(width) for width in study.widths])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("width")
    ax.set_ylabel("largest departure")
    ax.set_title("width by width")
    ax.legend()
    return ax


def linearization_figure(study: LinearizationStudy) -> Figure:
    """Departures by step and by width, of all engines."""
    with canvas(11.0, 5.0) as drawn:
        left, right = drawn.subplots(1, 2)
        draw_departures(left, study, legend=False)
        draw_widths(right, study)
        # Columns are filled downwards, so that each engine has one.
        drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(study.network))
    return drawn
