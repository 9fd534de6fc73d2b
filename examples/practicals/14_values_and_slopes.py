"""Fitting values and slopes together.

Source: the question on the slopes of a network. Its data give y at some points, dy/dx1 at others, and dy/dx2 at the
rest. A network is fitted to such data of y = sin(x1) x2 with a Sobolev loss: squared gaps, over what was observed.
After as many steps on the values alone, the error elsewhere is more than twice as large. The rate of 0.2 is one at
which the descent is stable: engines stay together to rounding.
"""

from functools import cache

import numpy as np

import udlbridge as ub
from udlbridge import backends
from udlbridge.udl import practicals

KINDS = ("values and slopes", "values alone")


def truth(x):
    return np.sin(x[:, :1]) * x[:, 1:]


def task():
    """Samples (36, 2), values at the first 12, one slope each at the others; what is missing is NaN."""
    x = np.random.default_rng(1).uniform(-2, 2, (36, 2))
    y, slopes = np.full((36, 1), np.nan), np.full((36, 1, 2), np.nan)
    y[:12] = truth(x[:12])
    slopes[12:24, 0, 0] = np.cos(x[12:24, 0]) * x[12:24, 1]
    slopes[24:, 0, 1] = np.sin(x[24:, 0])
    return x, y, slopes


@cache
def fitted(engine, kind):
    """The run of a small network, fitted by gradient descent to all data, or to the values alone."""
    x, y, slopes = task()
    if kind == "values alone":
        x, y, slopes = x[:12], y[:12], np.full((12, 1, 2), np.nan)
    model = ub.Model([ub.Dense(2, 12, "tanh"), ub.Dense(12, 1)], seed=2, dtype="float64")
    settings = {"optimizer": ("sgd", {"lr": 0.2}), "epochs": 400, "threads": 1, "progress": False}
    return ub.train(model, x, y, loss=ub.losses.sobolev(slopes), backend=engine, **settings)


def error(model, engine):
    """Root mean square error at 200 other points, as a share of the spread of the truth."""
    held = np.random.default_rng(2).uniform(-1.5, 1.5, (200, 2))
    gap = ub.outputs(model, held, backend=engine) - truth(held)
    return np.sqrt((gap**2).mean()) / truth(held).std()


def rows(backend=None):
    engine = backends.get(backend).name
    other = "reference" if engine == "torch" else "torch"
    both, alone = (fitted(engine, kind) for kind in KINDS)
    there = [fitted(other, kind) for kind in KINDS]
    x, y, slopes = task()
    loss = ub.optimize.LossFunction(both.model, x, y, loss=ub.losses.sobolev(slopes), backend=engine)
    end, e = loss.start(), 1e-6 * np.eye(both.model.n_params)[7]
    difference = (loss.value(end + e) - loss.value(end - e)) / 2e-6
    shared, apart = error(both.model, engine), error(alone.model, engine)
    return [
        practicals.differences("gradient by one weight", difference, loss.gradient(end)[7], 1e-6),
        practicals.below("loss, a twentieth of the first", both.losses[0] / 20, both.losses[-1]),
        practicals.closed_form("loss at the end, as with another engine", there[0].losses[-1], both.losses[-1]),
        practicals.closed_form("error elsewhere / spread", error(there[0].model, other), shared, 1e-11),
        practicals.closed_form("the same from values alone", error(there[1].model, other), apart, 1e-11),
        practicals.below("error elsewhere, half of that from values alone", apart / 2, shared),
    ]


def draw(backend=None):
    from matplotlib import pyplot

    engine = backends.get(backend).name
    grid, (x, y, slopes) = np.linspace(-2, 2, 41), task()
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    panels = {"sin(x1) x2": truth(points)}
    for kind in KINDS:
        model = fitted(engine, kind).model
        label = f"fitted to {kind}: error {error(model, engine):.3f}"
        panels[label] = ub.outputs(model, points, backend=engine)
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        settings = {"levels": np.linspace(-2, 2, 17), "extend": "both", "cmap": practicals.SIGNED}
        drawn = axis.contourf(grid, grid, values.reshape(41, 41), **settings)
        axis.contour(drawn, colors="k", linewidths=0.5)  # negative ones are dashed: signs are seen in grey too
        axis.set(title=title, xlabel="x1")
    known = {"y": ~np.isnan(y[:, 0]), "dy/dx1": ~np.isnan(slopes[:, 0, 0]), "dy/dx2": ~np.isnan(slopes[:, 0, 1])}
    for (label, mask), marker in zip(known.items(), ("ko", "w>", "w^"), strict=True):
        for axis in axes[1:] if label == "y" else axes[1:2]:
            axis.plot(*x[mask].T, marker, ms=4, mec="k", label=label)
    axes[0].set_ylabel("x2")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.colorbar(drawn, ax=axes, label="y", ticks=[-2, -1, 0, 1, 2])
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
