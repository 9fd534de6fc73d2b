"""Line search, and a straight line fitted with it.

Sources: practicals Training_I and Training_II. A bracketing line search on a function with two dips; gradient descent
with that search on the sum of squares of a straight line.

The source's search answers with the middle of its last bracket. The library's own rule answers with the lowest point
that it saw, measures its threshold relative to the interval, and goes on for longer: it is never above its start. Both
are shown: `rule="source"` is the source's, to the digit.
"""

import numpy as np
from scipy.optimize import minimize_scalar

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import exp, total

# --- Training I: the minimum of a function of one number on [0, 1] ---------------------------------------------------
# Four points a < b < c < d. If a is the lowest, the others move to it; if b is lower than c, d moves to c; otherwise a
# moves to b. After the last two, b and c go to the thirds of [a, d].


def dips(t):
    """The source's function, in NumPy."""
    return 1 - 0.5 * np.exp(-((t - 0.65) ** 2) / 0.1) - 0.45 * np.exp(-((t - 0.35) ** 2) / 0.02)


def search(backend, **settings):
    """The line search on the same function, evaluated by the engine."""
    function = ub.Function(
        lambda p: 1 - 0.5 * exp(-((p[0] - 0.65) ** 2) / 0.1) - 0.45 * exp(-((p[0] - 0.35) ** 2) / 0.02),
        backend=backend,
    )
    return ub.optimize.line_search(lambda t: function.value(np.array([t])), **settings)


def brackets_by_hand(f, iterations):
    """The brackets of a search in which a is never the lowest point, (iterations, 4)."""
    a, b, c, d = 0.0, 0.33, 0.66, 1.0
    found = []
    for _ in range(iterations):
        found.append((a, b, c, d))
        a, d = (a, c) if f(b) < f(c) else (b, d)
        b, c = a + (d - a) / 3, a + 2 * (d - a) / 3
    return np.array(found)


def search_rows(backend):
    source = search(backend, threshold=1e-4, iterations=10, rule="source")
    ours, long = search(backend, iterations=10), search(backend, threshold=1e-9, iterations=100)
    by_hand = brackets_by_hand(dips, 10)
    looked_at = by_hand.ravel()
    lowest = looked_at[np.argmin(dips(looked_at))]
    bottom = minimize_scalar(dips, bounds=(0.2, 0.5), options={"xatol": 1e-10}).x
    found = [
        practicals.solved("Soln after 10 iterations", "0.383", source.minimum),
        practicals.solved("loss there", "0.329", source.value),
        practicals.largest_gap("the brackets of all iterations", source.brackets, by_hand),
    ]
    for point, text, figure in zip("abcd", ("0.366", "0.375", "0.383", "0.392"), source.brackets[-1], strict=True):
        found.append(practicals.solved(f"iteration 10, {point}", text, figure))
    return [
        *found,
        practicals.closed_form("ours, 10 iterations: lowest point seen", lowest, ours.minimum),
        practicals.below("ours: loss there, below the source's", dips(source.minimum), ours.value),
        practicals.closed_form("ours, to the end: minimum", bottom, long.minimum, 1e-7),
    ]


# --- Training II: a straight line, and its sum of squares ------------------------------------------------------------

# fmt: off
DATA = np.array([
    [0.03, 0.19, 0.34, 0.46, 0.78, 0.81, 1.08, 1.18, 1.39, 1.60, 1.65, 1.90],
    [0.67, 0.85, 1.05, 1.00, 1.40, 1.50, 1.30, 1.54, 1.55, 1.68, 1.73, 1.60],
])
# fmt: on
POINT, START = np.array([0.6, -0.2]), np.array([1.6, -0.5])


def loss(backend):
    """Sum of squares of the straight line phi_0 + phi_1 x."""
    x, y = DATA
    return ub.Function(lambda p: total((p[0] + p[1] * x - y) ** 2), backend=backend)


def by_numpy(p):
    """The same in NumPy; the parameters may be grids."""
    return ((np.asarray(p[0])[..., None] + np.asarray(p[1])[..., None] * DATA[0] - DATA[1]) ** 2).sum(-1)


def gradient_rows(backend):
    """The task: write down the gradient, and check it with finite differences forward by 1e-4."""
    function = loss(backend)
    found = [practicals.printed("loss at (0.6, -0.2)", "12.367", function.value(POINT))]
    gradient, step = function.gradient(POINT), 1e-4
    x, residual = DATA[0], POINT[0] + POINT[1] * DATA[0] - DATA[1]
    by_hand = 2 * residual.sum(), 2 * (residual * x).sum()
    for k, (text, forward) in enumerate((("-21.904", "-21.903"), ("-26.840", "-26.839"))):
        difference = (function.value(POINT + step * np.eye(2)[k]) - function.value(POINT)) / step
        found.append(practicals.solved(f"dL/dphi_{k}", text, gradient[k]))
        found.append(practicals.solved(f"dL/dphi_{k} by finite differences", forward, difference))
        found.append(practicals.closed_form(f"dL/dphi_{k} by hand", by_hand[k], gradient[k]))
    return found


# --- Ten steps of gradient descent, each as long as the line search says ---------------------------------------------

SOURCE_LOSSES = ("5.020125", "2.835363", "1.656856", "1.005509", "0.649115", "0.450457", "0.339669", "0.277867",
                 "0.243372", "0.224128", "0.213405")  # fmt: skip


def descents(backend, steps=10):
    """The source's descent, and the same with the library's own rule."""
    settings = {"steps": steps, "maximum": 0.1}
    return {
        rule: ub.optimize.descend_by_line_search(loss(backend), START, rule=rule, **settings)
        for rule in ("source", "lowest")
    }


def descent_rows(backend):
    paths = descents(backend)
    found = [
        practicals.solved(f"loss after {k} step{'s' * (k != 1)}", text, value)
        for k, (text, value) in enumerate(zip(SOURCE_LOSSES, paths["source"].values, strict=True))
    ]
    design = np.stack([np.ones(12), DATA[0]], axis=1)
    solution, residual, *_ = np.linalg.lstsq(design, DATA[1], rcond=None)
    ours, long = paths["lowest"], descents(backend, steps=150)["lowest"]
    return [
        *found,
        practicals.closed_form("ours, 10 steps: loss, by NumPy", by_numpy(ours.minimum), ours.values[-1]),
        practicals.below(
            "ours, 10 steps: loss by NumPy, below the source's", float(SOURCE_LOSSES[-1]), by_numpy(ours.minimum)
        ),
        practicals.closed_form("ours, 150 steps: loss of least squares", residual[0], long.values[-1], 1e-8),
        practicals.closed_form("ours, 150 steps: intercept", solution[0], long.minimum[0], 1e-4),
        practicals.closed_form("ours, 150 steps: slope", solution[1], long.minimum[1], 1e-4),
    ]


def rows(backend=None):
    return [*search_rows(backend), *gradient_rows(backend), *descent_rows(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw_brackets(backend):
    """As the source draws them: the function, the interval [a, d] shaded, and lines at all four points."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 5, figsize=(13, 5), sharex=True, sharey=True, layout="constrained")
    grid = np.linspace(0, 1, 201)
    found = search(backend, threshold=1e-4, iterations=10, rule="source")
    for number, (axis, bracket) in enumerate(zip(axes.flat, found.brackets, strict=True), start=1):
        axis.axvspan(bracket[0], bracket[3], color="0.85")
        for name, point, style in zip("abcd", bracket, ("-", "--", "-.", ":"), strict=True):
            axis.axvline(point, color="C1", ls=style, lw=1, label=name)
        axis.plot(grid, dips(grid), "C0-")
        axis.set(title=f"iteration {number}", xlim=(0, 1), ylim=(0, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    axes[1, 4].plot(found.minimum, found.value, "ko")
    axes[1, 4].set_title(f"iteration 10: answer {found.minimum:.3f}")
    for axis in axes[1]:
        axis.set_xlabel("phi")
    for axis in axes[:, 0]:
        axis.set_ylabel("loss")
    return figure


def draw_models(backend):
    """The straight line over the data, after every step of the source's descent."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 6, figsize=(13, 5), sharex=True, sharey=True, layout="constrained")
    path, x = descents(backend)["source"], np.array([0.0, 2.0])
    first = loss(backend).value(POINT)
    points = [(f"({POINT[0]}, {POINT[1]})\nloss {first:.3f}", POINT)]
    points += [
        (f"{f'step {k}' if k else 'start'}\nloss {value:.3f}", point)
        for k, (value, point) in enumerate(zip(path.values, path.points, strict=True))
    ]
    for axis, (title, point) in zip(axes.flat, points, strict=True):
        axis.plot(*DATA, "k.", label="data")
        axis.plot(x, point[0] + point[1] * x, "C0-", label="model")
        axis.set(title=title, xlim=(0, 2), ylim=(0, 2))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    for axis in axes[1]:
        axis.set_xlabel("x")
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    return figure


def draw_paths(backend):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    u, v = np.meshgrid(np.linspace(0, 2, 101), np.linspace(-1, 1, 101))
    squares = by_numpy((u, v))
    levels = np.geomspace(0.15, 75, 26)
    shades = left.contourf(u, v, squares, levels, norm="log")
    left.contour(u, v, squares, levels, colors="0.8", linewidths=0.3)
    figure.colorbar(shades, ax=left, label="loss", ticks=[0.2, 0.5, 1, 2, 5, 10, 20, 50], format="{x:g}")
    names = {"source": "the source's rule", "lowest": "our rule"}
    for (rule, path), style, colour in zip(descents(backend).items(), ("o-", "s--"), ("w", "C1"), strict=True):
        left.plot(*path.points.T, style, color=colour, ms=4, lw=1, label=names[rule])
        right.semilogy(path.values, style, color="C0" if colour == "w" else colour, ms=4, label=names[rule])
    left.set(title="the loss and ten steps with line search", xlabel="intercept phi_0", ylabel="slope phi_1")
    left.legend(loc="lower left", facecolor="0.6")
    right.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    right.tick_params(which="minor", labelleft=False)
    right.set(title="loss after every step", xlabel="step", ylabel="loss")
    right.legend()
    return figure


def draw(backend=None):
    return {"": draw_brackets(backend), "models": draw_models(backend), "paths": draw_paths(backend)}


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
