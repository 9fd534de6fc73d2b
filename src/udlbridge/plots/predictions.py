"""Pictures of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from udlbridge.displays import deviations
from udlbridge.plots.style import MARKERS, POSITIVE, line
from udlbridge.predict.flows import Prediction

SHOWN = len(MARKERS)
"""Outputs that are drawn: as many as there are markers that tell them apart."""

FOLLOWED = 20
"""Samples that are followed over time, a line each."""


def draw_outputs(ax: Axes, found: Prediction) -> Axes:
    """Outputs of the test samples, or of the training samples, by sample; by time where there are several times."""
    name, values = next(iter(found.by_samples().items()))
    kind = {"train": "training"}.get(name, name)
    several = values.ndim == 3
    count = values.shape[-1]
    of = f"outputs of the {kind} samples" + (f", the first {SHOWN} of {count}" if count > SHOWN else "")
    if several:
        times = np.arange(len(values), dtype=np.float64) if found.times is None else np.asarray(found.times)
        finite = np.isfinite(times)  # infinity has no place on an axis
        order = np.argsort(times[finite])
        drawn = values[finite][order][:, :FOLLOWED]
        for output in range(min(count, SHOWN)):
            curves = ax.plot(times[finite][order], drawn[:, :, output], **{**line(output), "markersize": 4}, lw=1)
            curves[0].set_label(f"output {output}")
        if values.shape[1] > FOLLOWED:
            of += f"; of {FOLLOWED} samples"
        ax.set_xlabel("time")
    else:
        for output in range(min(count, SHOWN)):
            style = {**line(output), "linestyle": ""}
            ax.plot(np.arange(len(values)), values[:, output], **style, label=f"output {output}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel(f"{kind} sample")
    ax.set_ylabel("output")
    ax.set_title(of)
    if count > 1:
        ax.legend()
    return ax


def draw_means(ax: Axes, mean: np.ndarray, covariance: np.ndarray | None, title: str) -> Axes:
    """Means by test sample, with bars of two standard deviations where there is a covariance.

    Args:
        ax: where it is drawn.
        mean, covariance: as a `Posterior` has them.
        title: what it is.
    """
    spread = None if covariance is None else 2 * deviations(mean, covariance)
    mean = mean.reshape(len(mean), -1)
    samples, outputs = mean.shape
    drawn = min(outputs, SHOWN)
    for output in range(drawn):
        # Side by side, so that bars of several outputs do not hide each other.
        places = np.arange(samples) + 0.5 * ((output + 0.5) / drawn - 0.5)
        bars = None if spread is None else spread[:, min(output, spread.shape[1] - 1)]
        style = {**line(output), "linestyle": ""}
        ax.errorbar(places, mean[:, output], bars, **style, lw=1, ms=5, label=f"output {output}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("test sample")
    ax.set_ylabel("mean" if spread is None else "mean, and two standard deviations")
    ax.set_title(f"{title}, the first {SHOWN} of {outputs} outputs" if outputs > SHOWN else title)
    if drawn > 1:
        ax.legend()
    return ax


NAMED = 12
"""Classes whose names find place at an axis; of more, numbers are shown."""


def draw_confusion(ax: Axes, predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Axes:
    """How many test samples of each class, down, are taken for each class, across.

    Args:
        ax: where it is drawn.
        predicted, labels: numbers of classes (m,) each.
        classes: what they are called.
    """
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    image = ax.imshow(counts, cmap=POSITIVE, interpolation="nearest")
    ax.set_xlabel("class predicted")
    ax.set_ylabel("class of the label")
    for axis in (ax.xaxis, ax.yaxis):
        if len(classes) > NAMED:
            axis.set_major_locator(MaxNLocator(integer=True))
        else:
            axis.set_ticks(range(len(classes)), labels=list(classes))
    if len(classes) <= NAMED and max(map(len, classes)) > 3:
        ax.tick_params("x", labelrotation=30)
    parent = ax.get_figure()
    assert parent is not None
    parent.colorbar(image, ax=ax, label="test samples", ticks=MaxNLocator(integer=True))
    return ax
