"""The style of all pictures: colours, line styles and markers together, and letters that can be read on a slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from udlbridge.udl.practicals import SIGNED as SIGNED
from udlbridge.udl.practicals import style

FONT = 9.5
"""Points of the smallest letters."""

PIXELS = 1400
"""Width of a picture, at least 1,200."""

DPI = 130
"""Pixels per inch, at least."""

POSITIVE = "cividis"
"""The map of values without signs: its lightness grows, so that it can be read in grey."""

POINTS = 72
"""Of an inch."""

ROW, WIDE = 1.5, 0.6
"""The height of a row and the width of a letter, of a letter's height."""

NAMED, MARGIN = 2.0, 1.0
"""Inches that the names of rows may take without more width, and what stands below and above the rows."""

LINES = ("-", "--", "-.", ":")
MARKERS = "osd^v"


def settings() -> dict[str, Any]:
    """For matplotlib's rc_context: those of the practicals, with larger letters."""
    return {
        **style(),
        "font.size": FONT,
        "axes.titlesize": FONT + 1,
        "axes.labelsize": FONT,
        "xtick.labelsize": FONT,
        "ytick.labelsize": FONT,
        "legend.fontsize": FONT,
        "figure.titlesize": FONT + 2,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def colour(index: int) -> str:
    """The colour of that number, which colour-blind people tell from the others."""
    colours: list[str] = style()["axes.prop_cycle"].by_key()["color"]
    return colours[index % len(colours)]


def line(index: int) -> dict[str, Any]:
    """Colour, line style and marker of that number: each of the three tells it from the others."""
    return {
        "color": colour(index),
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markerfacecolor": "none",
    }


class Places(MaxNLocator):
    """Ticks of an axis that counts from one, as ranks do: whole numbers, 1 among them, and no 0."""

    def __init__(self) -> None:
        super().__init__(integer=True)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """The places of the ticks; matplotlib asks for them."""
        ticks = np.asarray(super().tick_values(vmin, vmax))
        later = ticks[(ticks > 1) & (ticks == np.rint(ticks))]
        # A tick that would stand in the label of the first one is left out.
        later = later[1:] if len(later) > 1 and later[0] - 1 < (later[1] - later[0]) / 2 else later
        return [1.0, *later] if vmin <= 1 else [*later]


SIZE = (7.0, 4.6)
"""Of a figure with one panel, in inches."""


def resolution(width: float) -> float:
    """Pixels per inch of a figure that is so many inches wide: letters of its points can be read then."""
    return max(DPI, PIXELS / width)


def make_room(ax: Axes) -> None:
    """Let the figure of a single panel grow until rows that have names stand apart beside a wide panel."""
    figure = ax.figure
    if not isinstance(ax.yaxis.get_major_locator(), FixedLocator) or not isinstance(figure, Figure):
        return
    letter, rows = FONT / POINTS, [label.get_text() for label in ax.get_yticklabels()]
    width, height = SIZE[0] + max(0.0, WIDE * letter * max(map(len, rows), default=0) - NAMED), ROW * letter * len(rows)
    figure.set_size_inches(max(width, figure.get_figwidth()), max(height + MARGIN, figure.get_figheight()))


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of that size in inches, drawn in this style within the block, as wide as it says."""
    with rc_context(settings()):
        yield Figure(figsize=(width, height), dpi=resolution(width), layout="constrained")


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """As `canvas`, with one panel."""
    with canvas(width, height) as result:
        yield result, result.subplots()
