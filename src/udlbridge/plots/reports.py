"""Pictures of comparisons of engines and of networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from udlbridge.analysis.checking import CheckReport, Comparison
from udlbridge.analysis.comparing import PortReport
from udlbridge.plots.style import line


def draw_check(ax: Axes, report: CheckReport) -> Axes:
    """The difference of each quantity, a marker for each pair of engines, and the budget as a line."""
    return draw_comparisons(ax, report.comparisons)


def draw_comparisons(ax: Axes, comparisons: Sequence[Comparison]) -> Axes:
    """As `draw_check`, of any comparisons."""
    pairs = list(dict.fromkeys((row.first, row.second) for row in comparisons))
    quantities = list(dict.fromkeys(row.quantity for row in comparisons))
    for index, pair in enumerate(pairs):
        rows = [row for row in comparisons if (row.first, row.second) == pair]
        heights = [quantities.index(row.quantity) for row in rows]
        values = [row.difference for row in rows]
        ax.plot(values, heights, **{**line(index), "linestyle": ""}, label=f"{pair[0]} and {pair[1]}")
    for limit in sorted({row.budget for row in comparisons}):
        ax.axvline(limit, color="black", ls="--", lw=1, label=f"budget {limit:.0e}")
    _logarithmic(ax, [row.difference for row in comparisons], [row.budget for row in comparisons])
    ax.set_yticks(range(len(quantities)), quantities)
    ax.invert_yaxis()
    ax.set_xlabel("difference, relative to the largest entry")
    if pairs:
        ax.legend()
    return ax


def draw_port(ax: Axes, report: PortReport) -> Axes:
    """The difference after each layer, and the budget as a line; layers that give another shape say so."""
    known = [(index, step.difference) for index, step in enumerate(report.steps) if step.difference is not None]
    values = [gap for _, gap in known]
    if known:
        ax.plot(values, [index for index, _ in known], **line(0), label="after the layer")
    for index, step in enumerate(report.steps):
        if step.difference is None:
            ax.text(0.5, index, "another shape", transform=ax.get_yaxis_transform(), ha="center", va="center")
    ax.axvline(report.budget, color="black", ls="--", lw=1, label=f"budget {report.budget:.0e}")
    _logarithmic(ax, values, [report.budget])
    ax.set_yticks(range(len(report.steps)), [step.first for step in report.steps])
    ax.set_ylim(len(report.steps) - 0.5, -0.5)  # from the top down
    ax.set_title(report.headline().partition(":")[0])
    ax.set_xlabel("difference, relative to the largest entry")
    ax.legend()
    return ax


def _logarithmic(ax: Axes, differences: Sequence[float], budgets: Sequence[float]) -> None:
    """A logarithmic x axis, which goes on to zero at its left end where two sides are equal to the last bit."""
    if differences and all(differences):
        ax.set_xscale("log")
        return
    least = min((gap for gap in differences if gap), default=min(budgets) / 1000)
    most = max([*differences, *budgets])
    below = 10.0 ** math.floor(math.log10(min(least, *budgets)))
    ax.set_xscale("symlog", linthresh=below, linscale=0.5)
    ax.set_xlim(-0.2 * below, 3 * most)
