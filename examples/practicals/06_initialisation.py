"""Initialisation: vanishing and exploding signals.

Source: practical Gradients_III. The standard deviation of activations and of loss gradients in every layer, for 5
layers of 8 units and, as its tasks ask, for 50 layers of 80, by the variance of the first weights. The variance
2 / width keeps both (He, Zhang, Ren, Sun, 2015).

Layers are numbered as in the source: layer 0 is the input, and f of layer k makes h of layer k + 1. The source prints
the gradients at preactivations, dl/df, and labels them "dl_dh"; here they are called dl/df. It draws 1,000 inputs for
the activations, and 100, one after the other, for the gradients.
"""

from functools import cache

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

# --- The source's network: all weights of one variance, no biases, one input, one output -----------------------------


def relu_network(depth, width):
    hidden = [ub.Dense(width if k else 1, width, "relu") for k in range(depth)]
    return ub.Model([*hidden, ub.Dense(width, 1)], dtype="float64")


@cache
def drawn(depth, width, variance, n):
    """The network and `n` inputs, drawn with NumPy's old generator from seed 0 in the order of the source."""
    old, model = np.random.RandomState(0), relu_network(depth, width)
    params = dict(model.params)
    for k in (0, depth, *range(1, depth)):
        params[f"{k}.weight"] = old.normal(size=params[f"{k}.weight"].shape) * np.sqrt(variance)
    return model.with_params(params), old.normal(size=(n, 1))


def by_hand(model, x):
    """Standard deviations of h in layers 1 to K, and of dl/df in layers 0 to K - 1, in a few lines of NumPy."""
    weights = [model.params[f"{k}.weight"] for k in range(len(model.layers))]
    hidden = [x]
    for weight in weights[:-1]:
        hidden.append(np.maximum(hidden[-1] @ weight.T, 0))
    error, errors = 2 * hidden[-1] @ weights[-1].T, []
    for weight, h in zip(weights[:0:-1], hidden[:0:-1], strict=True):
        error = (error @ weight) * (h > 0)
        errors.append(error.std())
    return np.array([h.std() for h in hidden[1:]]), np.array(errors[::-1])


def by_engine(model, x, backend):
    """The same from the engine's own forward and backward pass."""
    report = ub.signal_report(model, x, backend=backend)
    return np.array(report.activation_std[:-1]), np.array(report.gradient_std[:-1])


# --- 5 layers of 8 units, variance 1 ---------------------------------------------------------------------------------

HIDDEN_STDS = ("0.811", "1.472", "4.547", "8.896")
GRADIENT_STDS = ("446.654", "340.657", "109.132", "56.472")


def source_rows(backend):
    model, x = drawn(5, 8, 1.0, 1000)
    found = [practicals.solved("layer 0, std of hidden units (the input)", "0.981", x.std(), engine=False)]
    sizes, _ = by_engine(model, x, backend)
    for layer, text in enumerate(HIDDEN_STDS, start=1):
        found.append(practicals.solved(f"layer {layer}, std of hidden units", text, sizes[layer - 1]))
    _, gradients = by_engine(*drawn(5, 8, 1.0, 100), backend)
    for layer, text in enumerate(GRADIENT_STDS, start=1):
        found.append(practicals.solved(f"layer {layer}, std of dl/df", text, gradients[layer]))
    return found


# --- Tasks: 50 layers of 80 units, and a variance with which nothing explodes or vanishes -----------------------------
# A relu layer of width D and variance v multiplies the mean square of what goes through by about v D / 2, forward and
# back. With v = 1 and D = 80 that is 40 in every layer: signals explode. With a tenth of 2 / D it is 0.1: they vanish.
# With v = 2 / D it is 1.

VARIANCES = {"variance 1": 1.0, "variance 2 / 80": 2 / 80, "variance 0.2 / 80": 0.2 / 80}


def task_rows(backend):
    found = []
    for depth, width, settings in ((5, 8, {"variance 1": 1.0, "variance 2 / 8": 2 / 8}), (50, 80, VARIANCES)):
        for name, variance in settings.items():
            model, x = drawn(depth, width, variance, 100)
            for what, here, expected in zip(
                ("hidden units", "dl/df"), by_engine(model, x, backend), by_hand(model, x), strict=True
            ):
                label = f"{depth} x {width}, {name}: std of {what}"
                # Sizes differ by up to 10^40 from layer to layer: each is compared with its own.
                ratio = practicals.largest_gap(f"{label}, over NumPy's, all layers", here / expected, np.ones(depth))
                growth = [(sizes[-1] / sizes[0]) ** (1 / (depth - 1)) for sizes in (expected, here)]
                found += [ratio, practicals.closed_form(f"{label}, growth per layer", *growth)]
    model, x = drawn(50, 80, VARIANCES["variance 2 / 80"], 100)
    for what, sizes, exact in zip(
        ("hidden units", "dl/df"), by_engine(model, x, backend), by_hand(model, x), strict=True
    ):
        found.append(
            practicals.closed_form(
                f"50 x 80, variance 2 / 80: largest / smallest std of {what}", exact.max() / exact.min(),
                sizes.max() / sizes.min(),
            )
        )  # fmt: skip
    he = ub.init.he(relu_network(50, 80), seed=1)
    here, expected = by_engine(he, x, backend)[0], by_hand(he, x)[0]
    return [*found, practicals.largest_gap("50 x 80, ub.init.he: std of hidden units, all layers", here, expected)]


def rows(backend=None):
    return [*source_rows(backend), *task_rows(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw_units(backend):
    """The 5 x 8 activations of the source's network, as functions of its one input."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(5, 8, figsize=(14, 8), sharex=True, sharey="row", layout="constrained")
    grid = np.linspace(-3, 3, 61)[:, None]
    model = drawn(5, 8, 1.0, 100)[0]
    for layer, row in enumerate(axes, start=1):
        params = {name: value for name, value in model.params.items() if int(name.split(".")[0]) < layer}
        h = ub.outputs(ub.Model(model.layers[:layer], params), grid, backend=backend)
        for unit, axis in enumerate(row):
            axis.plot(grid, h[:, unit], "C0-")
            axis.axhline(0, color="0.8", lw=0.8, zorder=0)
        row[0].set_ylabel(f"layer {layer}\nactivation")
    for unit in range(8):
        axes[0, unit].set_title(f"unit {unit + 1}")
        axes[4, unit].set_xlabel("input")
    figure.suptitle("5 layers of 8 units, variance 1: activations grow from layer to layer", fontsize=11)
    return figure


def draw_sizes(backend):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 4.3), layout="constrained")
    for name, variance in {"variance 1": 1.0, "variance 2 / 8": 2 / 8}.items():
        for axis, n, sizes, first in ((axes[0], 1000, 0, 1), (axes[1], 100, 1, 0)):
            found = by_engine(*drawn(5, 8, variance, n), backend)[sizes]
            axis.semilogy(np.arange(5) + first, found, marker="o", ms=4, label=name)
    for k, (name, variance) in enumerate(VARIANCES.items()):
        model, x = drawn(50, 80, variance, 100)
        for axis, found, first in zip(axes[2:], by_engine(model, x, backend), (1, 0), strict=True):
            axis.semilogy(np.arange(50) + first, found, color=f"C{k}", ls=("-", "--", "-.")[k], label=name)
            start = found[0] if first else found[-1]
            steps = np.arange(50) if first else np.arange(50)[::-1]
            axis.semilogy(np.arange(50) + first, start * np.sqrt(variance * 40) ** steps, "k:", lw=1)
    for axis, title in zip(
        axes, ("5 x 8: activations", "5 x 8: gradients", "50 x 80: activations", "50 x 80: gradients"), strict=True
    ):
        axis.set(title=title, xlabel="layer", ylabel=f"std of {'h' if 'act' in title else 'dl/df'}")
    axes[2].plot([], [], "k:", label="a factor sqrt(v D / 2) per layer")
    # One legend for each size of network, outside of the panels: the lines fill these.
    for axis, place in ((axes[0], "outside lower left"), (axes[2], "outside lower right")):
        figure.legend(*axis.get_legend_handles_labels(), loc=place, ncols=4)
    return figure


def draw(backend=None):
    return {"": draw_sizes(backend), "units": draw_units(backend)}


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
