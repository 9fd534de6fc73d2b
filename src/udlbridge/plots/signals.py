"""Pictures of the size of signals by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from udlbridge.analysis.signals import SignalReport
from udlbridge.plots.style import line

NAMED = 20
"""Layers up to which each has its name on the axis."""


def draw_signals(ax: Axes, report: SignalReport) -> Axes:
    """Standard deviations of outputs and of gradients by layer, on a logarithmic scale; zeros have no place there."""
    places = np.arange(len(report.rows))
    for index, (label, sizes) in enumerate(
        {"outputs": report.activation_std, "gradients of the loss": report.gradient_std}.items()
    ):
        values = np.array(sizes, dtype=np.float64)
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        ax.plot(places, shown, **line(index), label=label)
    ax.set_yscale("log")
    if len(places) <= NAMED:
        words = [row.kind if str(row.layer) == "" else f"{row.layer} {row.kind}" for row in report.rows]
        ax.set_xticks(places, words, rotation=45, ha="right", rotation_mode="anchor")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel("standard deviation")
    ax.set_title("size of the signals")
    ax.legend()
    return ax
