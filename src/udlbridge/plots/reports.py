"""Pictures of comparisons of engines and of networks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from udlbridge.analysis.checking import CheckReport
from udlbridge.analysis.comparing import PortReport
from udlbridge.plots.style import line

FLOOR = 1e-18
"""What a difference of zero is drawn as."""


def draw_check(ax: Axes, report: CheckReport) -> Axes:
    """The difference of each quantity, a marker for each pair of engines, and the budget as a line."""
    pairs = list(dict.fromkeys((row.first, row.second) for row in report.comparisons))
    quantities = list(dict.fromkeys(row.quantity for row in report.comparisons))
    for index, pair in enumerate(pairs):
        rows = [row for row in report.comparisons if (row.first, row.second) == pair]
        heights = [quantities.index(row.quantity) for row in rows]
        values = [max(row.difference, FLOOR) for row in rows]
        ax.plot(values, heights, **{**line(index), "linestyle": ""}, label=f"{pair[0]} and {pair[1]}")
    for limit in sorted({row.budget for row in report.comparisons}):
        ax.axvline(limit, color="black", ls="--", lw=1, label=f"budget {limit:.0e}")
    ax.set_xscale("log")
    ax.set_yticks(range(len(quantities)), quantities)
    ax.invert_yaxis()
    ax.set_xlabel("difference, relative to the largest entry")
    if pairs:
        ax.legend()
    return ax


def draw_port(ax: Axes, report: PortReport) -> Axes:
    """The difference after each layer, and the budget as a line."""
    known = [(index, step.difference) for index, step in enumerate(report.steps) if step.difference is not None]
    values = np.array([max(gap, FLOOR) for _, gap in known])
    ax.plot(values, [index for index, _ in known], **line(0), label="after the layer")
    ax.axvline(report.budget, color="black", ls="--", lw=1, label=f"budget {report.budget:.0e}")
    ax.set_xscale("log")
    ax.set_yticks(range(len(report.steps)), [step.first for step in report.steps])
    ax.invert_yaxis()
    ax.set_xlabel("difference, relative to the largest entry")
    ax.legend()
    return ax
