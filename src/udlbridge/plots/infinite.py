"""The picture of kernels of finite networks that approach those of infinite width."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from udlbridge.infinite.convergence import Convergence
from udlbridge.plots.style import colour, figure

SERIES = {
    "single": ("NTK of one draw", colour(1), "o"),
    "ntk": ("NTK, mean over draws", colour(0), "s"),
    "nngp": ("NNGP, mean over draws", colour(2), "^"),
}


def draw_convergence(ax: Axes, found: Convergence, title: str) -> Axes:
    """Distances by width on logarithmic axes, a mark for each engine, and the lines that theory gives."""
    widths = np.array(found.widths, dtype=np.float64)
    for name, (label, shade, marker) in SERIES.items():
        for index, (engine, values) in enumerate(getattr(found, name).items()):
            # Later engines are drawn smaller, so that equal values stay visible.
            ax.plot(widths, values, marker, color=shade, ms=9 - 2.5 * index, mfc="none", label=f"{label}, {engine}")
    first = next(iter(found.single))
    for values, words in ((found.single[first], "1 / sqrt(width)"), (found.ntk[first], "1 / sqrt(width x draws)")):
        # Through the middle of what was measured: one constant for all widths.
        constant = np.exp(np.mean(np.log(values * np.sqrt(widths))))
        style = "--" if values is found.single[first] else ":"
        ax.plot(widths, constant / np.sqrt(widths), style, color="grey", lw=1, label=words)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(widths, [str(width) for width in found.widths])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("width")
    ax.set_ylabel("distance from the infinite kernel, relative")
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    return ax


def convergence_figure(found: Convergence, title: str) -> Figure:
    """One panel with the distances of all engines."""
    with figure(9.0, 4.8) as (drawn, ax):
        draw_convergence(ax, found, title)
    return drawn
