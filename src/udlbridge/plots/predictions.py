"""Pictures of predictions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from udlbridge.plots.style import POSITIVE


def draw_confusion(ax: Axes, predicted: np.ndarray, labels: np.ndarray, classes: int) -> Axes:
    """How many test samples of each class, down, are taken for each class, across; (m,) numbers of classes each."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    image = ax.imshow(counts, cmap=POSITIVE, interpolation="nearest")
    ax.set_xlabel("class predicted")
    ax.set_ylabel("class of the label")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    parent = ax.get_figure()
    assert parent is not None
    parent.colorbar(image, ax=ax, label="test samples", ticks=MaxNLocator(integer=True))
    return ax
