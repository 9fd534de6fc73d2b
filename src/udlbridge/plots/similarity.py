"""Pictures of maps of similarity. Each function takes results and returns a matplotlib Figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udlbridge.analysis.similarity import SimilarityMap
from udlbridge.plots.style import POSITIVE, figure

NUMBERED = 12
"""Layers up to which every cell has its number written in it."""


LABELS = {"cka": "CKA", "procrustes": "Procrustes similarity", "rsa": "RSA: correlation of distances"}
"""What the measures are called."""


def draw_similarity(ax: Axes, found: SimilarityMap, title: str) -> Axes:
    """A heat map, layers of the first network down and of the second one across, from 0 (or the least) to 1.

    Without a title it says what is measured.
    """
    low = min(0.0, float(found.values.min()))
    image = ax.imshow(found.values, cmap=POSITIVE, vmin=low, vmax=1, interpolation="nearest", origin="upper")
    ax.set_yticks(range(len(found.first)), found.first)
    ax.set_xticks(range(len(found.second)), found.second, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_ylabel("layer of the first network")
    ax.set_xlabel("layer of the second network")
    if max(found.values.shape) <= NUMBERED:
        for (row, column), value in zip(
            ((i, j) for i in range(len(found.first)) for j in range(len(found.second))),
            found.values.reshape(-1),
            strict=True,
        ):
            # Dark colours stand for small numbers.
            colour = "white" if value < (low + 1) / 2 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    ax.set_title(title or f"{LABELS[found.measure]}, layer by layer")
    drawn = ax.get_figure()
    assert drawn is not None
    drawn.colorbar(image, ax=ax, shrink=0.85, label=LABELS[found.measure])
    return ax


def similarity_figure(found: SimilarityMap, title: str) -> Figure:
    """One panel with the map."""
    size = 2.6 + 0.45 * max(found.values.shape)
    with figure(size + 1.6, size + 0.4) as (drawn, ax):
        draw_similarity(ax, found, title)
    return drawn
