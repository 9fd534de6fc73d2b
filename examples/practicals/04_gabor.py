"""The Gabor model: a loss with many valleys.

Source: practical Training_III. Gradient descent with line search, with a fixed step, and on random batches, from the
source's starts and with its random numbers; then its tasks: other starts, steps, batch sizes, and a schedule.

Where the descents end is held against the source's program, step by step against the same descents written in NumPy,
and against the deepest valley, which a grid over the source's picture and SciPy's minimiser find.
"""

from functools import cache

import numpy as np
from scipy.optimize import minimize

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import exp, sin, total

# fmt: off
DATA = np.array([
    [-1.920, -14.22, 1.490, -1.940, -2.389, -5.090, -8.861, 3.578, -6.010, -6.995, 3.634, 0.8743, -10.96, 0.4073,
     -9.467, 8.560, 10.62, -0.1729, 10.40, -12.61, 0.1574, -13.04, -2.156, -12.10, -11.19, 2.902, -8.220, -11.79,
     -8.391, -4.505],
    [-1.051, -0.02482, 0.8896, -0.4943, -0.9371, 0.4306, 0.009577, -0.07944, 0.1624, -0.2682, -0.3129, 0.8303, -0.02365,
     0.5098, -0.2777, 0.3367, 0.1927, -0.2222, 0.06352, 0.006888, 0.03224, 0.01091, -0.5706, -0.05258, -0.03666, 0.1709,
     -0.04805, 0.2008, -0.1904, 0.5952],
])
# fmt: on

# --- The model, its sum of squares, and the gradient -----------------------------------------------------------------


def model(p, x):
    """A sine under a bell, in NumPy: phi_0 moves it, phi_1 is its frequency."""
    z = p[0] + 0.06 * p[1] * x
    return np.sin(z) * np.exp(-(z**2) / 32)


def loss(backend, batch=slice(None)):
    """The loss of all data, or of some, for the engine."""
    x, y = DATA[:, batch]

    def formula(p):
        z = p[0] + 0.06 * p[1] * x
        return total((sin(z) * exp(-(z**2) / 32) - y) ** 2)

    return ub.Function(formula, backend=backend)


def by_numpy(p):
    """The loss in NumPy; the parameters may be grids."""
    offset, frequency = (np.asarray(part)[..., None] for part in p)
    return ((model((offset, frequency), DATA[0]) - DATA[1]) ** 2).sum(-1)


def gradient_by_hand(p, batch=slice(None)):
    """The source's derivative, written out."""
    x, y = DATA[:, batch]
    z = p[0] + 0.06 * p[1] * x
    bell = np.exp(-(z**2) / 32)
    slope = 2 * (np.cos(z) - np.sin(z) * z / 16) * bell * (np.sin(z) * bell - y)
    return np.array([slope.sum(), (slope * 0.06 * x).sum()])


def gradient_rows(backend):
    whole, point, step = loss(backend), np.array([-5.0, 25.0]), 1e-4
    found = [practicals.printed("loss at (0.6, -0.2)", "16.419", whole.value(np.array([0.6, -0.2])))]
    gradient, by_hand = whole.gradient(point), gradient_by_hand(point)
    for k, text in enumerate(("3.344", "0.519")):
        difference = (whole.value(point + step * np.eye(2)[k]) - whole.value(point)) / step
        found.append(practicals.solved(f"dL/dphi_{k} at (-5, 25)", text, gradient[k]))
        found.append(practicals.solved(f"dL/dphi_{k} by finite differences", text, difference))
        found.append(practicals.closed_form(f"dL/dphi_{k} by hand", by_hand[k], gradient[k]))
    return found


# --- Three descents, with the source's starts, steps and draws -------------------------------------------------------

START, RANDOM_START = np.array([-1.5, 8.5]), np.array([3.5, 6.5])
LINE, FIXED, BATCHES = "line search", "steps of 0.2", "batches of 5"
# What the source prints: the loss at the start, and after every 4th (8th) step from the first one on.
SOURCE_LOSSES = {
    LINE: (4, "11.696017", "9.325499", "2.311965", "1.426215", "1.070144", "0.884877", "0.783154"),
    FIXED: (4, "11.696017", "10.800399", "7.716316", "4.818621", "2.750014", "1.825304", "1.388376"),
    BATCHES: (8, "17.285137", "17.712672", "10.037474", "12.918912", "8.145606", "5.007205", "4.624355"),
}


def by_line_search(backend, start, rule="source", steps=21):
    return ub.optimize.descend_by_line_search(loss(backend), start, steps=steps, maximum=2.0, rule=rule)


def on_batches(backend, size=5, step=0.8, schedule=None, steps=41):
    """`np.random.seed(1)` and `np.random.permutation(30)[:size]` at every step, as in the source."""
    return ub.optimize.descend_stochastically(
        lambda batch: loss(backend, batch), RANDOM_START, n=30, batch_size=size, steps=steps, step_size=step,
        seed=np.random.RandomState(1), schedule=schedule,
    )  # fmt: skip


@cache
def paths(backend):
    return {
        LINE: by_line_search(backend, START),
        FIXED: ub.optimize.descend(loss(backend), START, steps=21, step_size=0.2),
        BATCHES: on_batches(backend),
    }


def losses_by_hand(start, steps, step_size, batch_size=None, factor=lambda k: 1.0):
    """The losses along a descent with given steps, in NumPy alone; on batches if a size is given."""
    old, p = np.random.RandomState(1), start
    found = [by_numpy(p)]
    for k in range(steps):
        batch = slice(None) if batch_size is None else old.permutation(30)[:batch_size]
        p = p - step_size * factor(k) * gradient_by_hand(p, batch)
        found.append(by_numpy(p))
    return np.array(found)


def path_rows(backend):
    found = []
    for label, path in paths(backend).items():
        every, start, *texts = SOURCE_LOSSES[label]
        found.append(practicals.solved(f"{label}: loss at the start", start, path.values[0]))
        for k, text in enumerate(texts):
            step = 1 + every * k
            found.append(
                practicals.solved(f"{label}: loss after {step} step{'s' * (step != 1)}", text, path.values[step])
            )
    fixed, batches = losses_by_hand(START, 21, 0.2), losses_by_hand(RANDOM_START, 41, 0.8, 5)
    # Steps of 0.8 enlarge what rounding has done before them.
    found.append(practicals.largest_gap(f"{FIXED}: all losses", paths(backend)[FIXED].values, fixed))
    found.append(practicals.largest_gap(f"{BATCHES}: all losses", paths(backend)[BATCHES].values, batches, 1e-10))
    return found


# --- The deepest valley ----------------------------------------------------------------------------------------------
# The first two descents are in it. The third is not there after 41 steps, but on its way: 500 short steps bring all
# three to its bottom.


@cache
def deepest():
    """SciPy's minimum from the lowest point of a grid over the source's picture."""
    grid = np.meshgrid(np.arange(-10, 10, 0.1), np.arange(2.5, 22.5, 0.1))
    lowest = np.argmin(by_numpy(grid))
    return minimize(by_numpy, [axis.flat[lowest] for axis in grid], method="BFGS", tol=1e-8)


def valley_rows(backend):
    valley, found = deepest(), []
    ours = by_line_search(backend, START, rule="lowest")
    found.append(
        practicals.below("line search, our rule: the loss falls at every step", 0.0, np.diff(ours.values).max())
    )
    for label, path in {**paths(backend), "line search, our rule": ours}.items():
        on = ub.optimize.descend(loss(backend), path.minimum, steps=500, step_size=0.1)
        found += [
            practicals.closed_form(f"{label}, then 500 short steps: loss", valley.fun, on.values[-1], 1e-8),
            practicals.closed_form(f"{label}, then 500 short steps: phi_0", valley.x[0], on.minimum[0], 1e-4),
            practicals.closed_form(f"{label}, then 500 short steps: phi_1", valley.x[1], on.minimum[1], 1e-4),
        ]
    return found


# --- Tasks -----------------------------------------------------------------------------------------------------------
# Starts in the wrong valley: line search goes down to its bottom, and stays.
# Steps: 0.01 hardly moves; 0.5 jumps into another valley; 2 jumps out onto a plain far away, where the model is flat
# and the gradient too small to come back.
# Batches: all 30 data, and batches of 10, slide down to that plain; batches of one wander about; batches of 5 cross the
# ridge into the deepest valley.
# A schedule: steps of 0.8 go on jumping, and later out of that valley again. Halved every 20 steps they stay in it, but
# become too short to arrive at its bottom.

WRONG_STARTS = {(8.0, 20.0): "3.670622", (0.0, 5.0): "10.182265"}
STEP_SIZES = {0.01: "10.803370", 0.5: "6.692091", 2.0: "5.427456"}
BATCH_SIZES = {1: "11.752707", 10: "5.456580", 30: "5.381689"}
SCHEDULE = ("step", {"every": 20, "factor": 0.5})


@cache
def tasks(backend):
    """Paths by task and label."""
    fixed = {f"steps of {a}": ub.optimize.descend(loss(backend), START, steps=21, step_size=a) for a in STEP_SIZES}
    return {
        "other starts": {f"from {start}": by_line_search(backend, np.array(start)) for start in WRONG_STARTS},
        "other steps": {**fixed, FIXED: paths(backend)[FIXED]},
        "other batches": {
            **{f"batches of {size}": on_batches(backend, size) for size in BATCH_SIZES},
            BATCHES: paths(backend)[BATCHES],
        },
        "a schedule": {
            "steps of 0.8": on_batches(backend, steps=200),
            "halved every 20 steps": on_batches(backend, steps=200, schedule=SCHEDULE),
        },
    }


def task_rows(backend):
    found, done = [], tasks(backend)
    for (start, text), path in zip(WRONG_STARTS.items(), done["other starts"].values(), strict=True):
        found.append(practicals.solved(f"line search from {start}: loss after 21 steps", text, path.values[-1]))
    for size, text in STEP_SIZES.items():
        path = done["other steps"][f"steps of {size}"]
        found.append(practicals.solved(f"steps of {size}: loss after 21 steps", text, path.values[-1]))
    for size, text in BATCH_SIZES.items():
        path = done["other batches"][f"batches of {size}"]
        found.append(practicals.solved(f"batches of {size}: loss after 41 steps", text, path.values[-1]))
    scheduled = losses_by_hand(RANDOM_START, 200, 0.8, 5, lambda k: 0.5 ** (k // 20))
    unscheduled = losses_by_hand(RANDOM_START, 200, 0.8, 5)
    jumping, halved = (path.values for path in done["a schedule"].values())
    return [
        *found,
        practicals.largest_gap("batches of 5, steps halved every 20: all losses", halved, scheduled, 1e-9),
        practicals.closed_form(
            "after 200 steps: loss with halved steps over that without",
            scheduled[-1] / unscheduled[-1],
            halved[-1] / jumping[-1],
            1e-9,
        ),
    ]


def rows(backend=None):
    return [*gradient_rows(backend), *path_rows(backend), *valley_rows(backend), *task_rows(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------

LOOKS = (("o-", "C1"), ("s--", "C4"), ("^:", "C5"), ("v-.", "C3"))
"""Marker, line and colour of the paths in one picture."""


def draw_loss(axis, found, title):
    """Paths over the loss."""
    from matplotlib.patheffects import withStroke

    u, v = np.meshgrid(np.linspace(-10, 10, 161), np.linspace(2.5, 22.5, 161))
    axis.contourf(u, v, by_numpy((u, v)), 24, cmap="gray")
    edge = [withStroke(linewidth=2.5, foreground="w")]  # what is seen of a path in grey
    for (label, path), (style, colour) in zip(found.items(), LOOKS, strict=False):
        axis.plot(*path.points.T, style, color=colour, lw=1.2, ms=3.5, label=label, path_effects=edge)
    axis.set(title=title, xlabel="offset phi_0", ylabel="frequency phi_1", xlim=(-10, 10), ylim=(2.5, 22.5))


def draw_values(axis, found):
    """The loss along the same paths, in the same colours."""
    for (label, path), (style, colour) in zip(found.items(), LOOKS, strict=False):
        axis.plot(path.values, ls=style[1:], color=colour, marker=style[0], ms=3.5, markevery=0.1, label=label)
    axis.set(xlabel="step", ylabel="loss of all data", ylim=(0, None))
    axis.legend()


def draw_paths(backend):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    draw_loss(left, paths(backend), "the loss (dark: deep) and three paths")
    left.plot(*deepest().x, "*", color="w", mec="k", ms=12)
    draw_values(right, paths(backend))
    right.plot([], [], "*", color="w", mec="k", ms=12, label="deepest point")
    right.legend()
    right.set_title("the loss along them")
    return figure


def draw_models(backend):
    """The model over the data, at the start and wherever the source draws it."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 7, figsize=(15, 6.6), sharex=True, sharey=True, layout="constrained")
    grid = np.arange(-15, 15, 0.1)
    for row, (label, path) in zip(axes, paths(backend).items(), strict=True):
        row[0].set_ylabel(f"{label}\ny")
        for axis, step in zip(row, [0, *range(1, len(path.values), SOURCE_LOSSES[label][0])], strict=True):
            axis.plot(*DATA, "k.", ms=4)
            axis.plot(grid, model(path.points[step], grid), "C0-")
            axis.set(title=f"step {step}, loss {path.values[step]:.2f}", xlim=(-15, 15), ylim=(-1.1, 1.1))
    for axis in axes[2]:
        axis.set_xlabel("x")
    return figure


def draw_tasks(backend):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(15, 7), layout="constrained")
    for (above, below), (title, found) in zip(axes.T, tasks(backend).items(), strict=True):
        draw_loss(above, found, title)
        draw_values(below, found)
    return figure


def draw(backend=None):
    return {"": draw_paths(backend), "models": draw_models(backend), "tasks": draw_tasks(backend)}


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
