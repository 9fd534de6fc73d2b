"""Pictures of tests of alignments."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from udlbridge.analysis.permutation import AlignmentTest
from udlbridge.plots.style import colour


def draw_test(ax: Axes, found: AlignmentTest) -> Axes:
    """A histogram of the alignments of permuted samples, and a line where that of the samples is."""
    ax.hist(found.null, bins="auto", color=colour(0), alpha=0.6, label="of permuted samples")
    ax.axvline(found.alignment, color=colour(1), linestyle="--", lw=2, label="of the samples")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"alignment ({found.estimator})")
    ax.set_ylabel("permutations")
    ax.set_title("" if found.p_value is None else f"p = {found.p_value:.3g}")
    ax.legend()
    return ax
