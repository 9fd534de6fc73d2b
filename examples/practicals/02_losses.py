"""Loss functions: Gaussian, Bernoulli and categorical likelihoods of small networks.

Sources: practicals Loss, Loss_II, Loss_III. The likelihood, the negative log likelihood and, for the Gaussian, the sum
of squares have their optimum at the same offset of the readout. The first two have it at the same standard deviation,
too, that of the residuals; the sum of squares does not change with it.

Two slips of the sources: their networks take a parameter omaga_1 that they never use (they find omega_1 outside), and
the best standard deviation is printed as "beta_1". Here the readout is a parameter of the model, and sigma is sigma.
"""

import numpy as np
from scipy.special import expit, log_softmax, logit, softmax
from scipy.stats import norm

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.losses import Bernoulli, Categorical, Gaussian, likelihood, negative_log_likelihood, sum_of_squares

# fmt: off
X, REAL = np.array([
    [0.09291784, 0.46809093, 0.93089486, 0.67612654, 0.73441752, 0.86847339, 0.49873225, 0.51083168, 0.18343972,
     0.99380898, 0.27840809, 0.38028817, 0.12055708, 0.56715537, 0.92005746, 0.77072270, 0.85278176, 0.05315950,
     0.87168699, 0.58858043],
    [-0.25934537, 0.18195445, 0.651270150, 0.13921448, 0.09366691, 0.30567674, 0.372291170, 0.20716968, -0.08131792,
     0.51187806, 0.16943738, 0.3994327, 0.019062570, 0.55820410, 0.452564960, -0.1183121, 0.02957665, -1.24354444,
     0.248038840, 0.26824970],
])[..., None]
# fmt: on
BINARY = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1])[:, None]
CLASSES = np.array([2, 0, 1, 2, 1, 0, 0, 2, 2, 0, 2, 0, 2, 0, 1, 2, 1, 2, 1, 0])
OBSERVED = {"regression": REAL, "binary": BINARY, "classes": CLASSES}
GRID = np.arange(0, 1, 0.01)[:, None]

# --- The network: three relu units, and a readout for each of the three tasks ----------------------------------------

HIDDEN = {"0.weight": np.array([[-1.0], [1.8], [0.65]]), "0.bias": np.array([0.3, -1.0, -0.5])}
READOUTS = {
    "regression": ([[-2.0, -1.0, 7.0]], [0.1]),
    "binary": ([[-24.0, -8.0, 50.0]], [2.6]),
    "classes": ([[-24.0, -8.0, 50.0], [-2.0, 8.0, -30.0], [16.0, -8.0, -8.0]], [2.0, -2.0, 0.0]),
}
DISTRIBUTIONS = {"regression": Gaussian(0.2), "binary": Bernoulli(), "classes": Categorical()}


def readout(task, offset=None):
    """Weights and biases of a task; `offset`, if given, is the first bias."""
    weight, bias = (np.array(part) for part in READOUTS[task])
    bias[0] = bias[0] if offset is None else offset
    return weight, bias


def outputs(task, offset, backend, x=X):
    """The network's outputs, by the engine."""
    weight, bias = readout(task, offset)
    model = ub.Model([ub.Dense(1, 3, "relu"), ub.Dense(3, len(bias))], HIDDEN | {"1.weight": weight, "1.bias": bias})
    return ub.outputs(model, x, backend=backend)


# --- The Gaussian density, and the source's questions about it -------------------------------------------------------
# What happens with mu = 1? It moves to the right. With sigma = 2? It is half as high and twice as wide. With sigma =
# 0.5? Twice as high and half as wide: the area below it is always 1.

DENSITIES = {"mu 0, sigma 1": (0.0, 1.0), "mu 1, sigma 1": (1.0, 1.0), "mu 0, sigma 2": (0.0, 2.0)}
DENSITIES["mu 0, sigma 0.5"] = (0.0, 0.5)
Y_GAUSS = np.arange(-5, 5, 0.1)


def density(distribution, f, y, backend):
    return likelihood(distribution, np.array(f), np.array(y), backend=backend)


def density_rows(backend):
    found = [
        practicals.printed("normal(-1, 2.3): density at 1", "0.119", density(Gaussian(2.3), [-1.0], [1.0], backend))
    ]
    for k, text in enumerate(("0.800", "0.200")):
        found.append(
            practicals.printed(f"Bernoulli: Pr({k}) at 0.2", text, density(Bernoulli(), [logit(0.2)], [k], backend))
        )
    for k, text in enumerate(("0.200", "0.500", "0.300")):
        three = np.log([[0.2, 0.5, 0.3]])
        found.append(practicals.printed(f"categorical: Pr({k})", text, density(Categorical(), three, [k], backend)))
    for label, (mu, sigma) in DENSITIES.items():
        curve = np.array([density(Gaussian(sigma), [mu], [y], backend) for y in Y_GAUSS])
        found.append(practicals.largest_gap(f"normal, {label}: density", curve, norm(mu, sigma).pdf(Y_GAUSS)))
    return found


# --- Likelihood, negative log likelihood, sum of squares -------------------------------------------------------------

NAMES = ("likelihood", "negative log likelihood", "sum of squares")
FIGURES = {
    "regression": ("0.000010624", "11.452419564", "2.020992572"),
    "binary": ("0.000070237", "9.563639387"),
    "classes": ("0.000000041", "17.015457867"),
}


def criteria(task, offset, backend, distribution=None):
    """Likelihood, negative log likelihood and, for the regression, sum of squares."""
    pair = (distribution or DISTRIBUTIONS[task], outputs(task, offset, backend), OBSERVED[task])
    found = [likelihood(*pair, backend=backend), negative_log_likelihood(*pair, backend=backend)]
    return [*found, sum_of_squares(*pair[1:], backend=backend)] if task == "regression" else found


# --- One parameter varies: the offset of the readout, then sigma -----------------------------------------------------

OFFSETS = {"regression": np.arange(0, 1, 0.01), "binary": np.arange(-2, 6, 0.1), "classes": np.arange(-2, 6, 0.1)}
SIGMAS = np.arange(0.1, 0.5, 0.005)
SIGMA = "standard deviation"
BEST_OFFSET = 0.27
# What the sources print in the end: the optimum of each criterion, and where it is.
OPTIMA = {
    "regression": (("0.022", "0.270"), ("3.826", "0.270"), ("1.411", "0.270")),
    "binary": (("0.000330", "1.600"), ("8.016513", "1.600")),
    "classes": (("0.000001", "0.600"), ("14.166574", "0.600")),
    SIGMA: (("0.155", "0.265"), ("1.864", "0.265")),
}


def sweeps(backend):
    """The criteria along every grid: of the offset for each task, and of sigma at the source's best offset."""
    found = {task: (grid, np.array([criteria(task, b, backend) for b in grid])) for task, grid in OFFSETS.items()}
    by_sigma = np.array([criteria("regression", BEST_OFFSET, backend, Gaussian(sigma)) for sigma in SIGMAS])
    return found | {SIGMA: (SIGMAS, by_sigma)}


def by_numpy(task, offset, sigma=0.2):
    """Negative log likelihood and sum of squares in NumPy and SciPy, for the last comparison."""
    weight, bias = readout(task, offset)
    f = np.maximum(X @ HIDDEN["0.weight"].T + HIDDEN["0.bias"], 0) @ weight.T + bias
    if task == "binary":
        return [-np.log(np.where(BINARY == 1, expit(f), expit(-f))).sum()]
    if task == "classes":
        return [-log_softmax(f, axis=1)[np.arange(len(X)), CLASSES].sum()]
    return [-norm(f, sigma).logpdf(REAL).sum(), ((f - REAL) ** 2).sum()]


def sweep_rows(backend):
    found = []
    for task, (grid, values) in sweeps(backend).items():
        best = [np.argmax(values[:, 0]), *np.argmin(values[:, 1:], axis=0)]
        for k, (name, (optimum, where)) in enumerate(zip(NAMES, OPTIMA[task], strict=False)):
            found.append(practicals.solved(f"{task}: best {name}", optimum, values[best[k], k]))
            found.append(practicals.solved(f"{task}: best by {name}, at", where, grid[best[k]]))
        expected = [by_numpy("regression", BEST_OFFSET, v) if task == SIGMA else by_numpy(task, v) for v in grid]
        for k, name in enumerate(NAMES[1 : values.shape[1]]):
            found.append(
                practicals.largest_gap(f"{task}: {name} along the grid", values[:, k + 1], np.array(expected)[:, k])
            )
    return found


def optimum_rows(backend):
    """Where the optima are between the points of the grids: the offset moves by the mean residual."""
    f = outputs("regression", 0.1, backend)
    slope = ub.losses.negative_log_likelihood_gradient(Gaussian(0.2), f, REAL, backend=backend)
    residual = REAL - (np.maximum(X @ HIDDEN["0.weight"].T + HIDDEN["0.bias"], 0) @ readout("regression")[0].T)
    spread = sum_of_squares(outputs("regression", residual.mean(), backend), REAL, backend=backend)
    return [
        practicals.printed("regression: best offset that the source goes on with", "0.27", 0.1 - slope.mean() * 0.2**2),
        practicals.closed_form("regression: exact best offset", residual.mean(), 0.1 - slope.mean() * 0.2**2),
        practicals.closed_form(
            "standard deviation: exact best, of the residuals", residual.std(), np.sqrt(spread / 20)
        ),
    ]


def rows(backend=None):
    found = density_rows(backend)
    for task, texts in FIGURES.items():
        here = criteria(task, None, backend)
        found += [practicals.printed(f"{task}: {n}", t, v) for n, t, v in zip(NAMES, texts, here, strict=False)]
    return [*found, *sweep_rows(backend), *optimum_rows(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw_fit(axis, offset, sigma, backend):
    """The mean, two standard deviations around it, and the data."""
    mean = outputs("regression", offset, backend, GRID)[:, 0]
    axis.fill_between(GRID[:, 0], mean - 2 * sigma, mean + 2 * sigma, color="0.85", label="mean +- 2 sigma")
    axis.plot(GRID, mean, "C0-", label="mean")
    axis.plot(X, REAL, "k.", label="data")
    axis.set(xlim=(0, 1), ylim=(-1.4, 1.2), title=f"offset {offset:.2f}, sigma {sigma:.3g}", xlabel="input x")


def draw_fits(backend):
    """The source draws the model at every 20th offset, at the best one, and at every 20th sigma."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 6, figsize=(14, 5), sharex=True, sharey=True, layout="constrained")
    for axis, offset in zip(axes[0], [*OFFSETS["regression"][::20], BEST_OFFSET], strict=True):
        draw_fit(axis, offset, 0.2, backend)
    grid, values = sweeps(backend)[SIGMA]
    draw_fit(axes[1, 0], 0.1, 0.2, backend)
    for axis, sigma in zip(axes[1, 1:], [*SIGMAS[::20], grid[np.argmin(values[:, 1])]], strict=True):
        draw_fit(axis, BEST_OFFSET, sigma, backend)
    axes[0, 5].set_title(f"best offset {BEST_OFFSET:.2f}, sigma 0.2")
    axes[1, 0].set_title("start: offset 0.10, sigma 0.2")
    axes[1, 5].set_title(f"best sigma {grid[np.argmin(values[:, 1])]:.3f}, offset {BEST_OFFSET:.2f}")
    for axis in axes[:, 0]:
        axis.set_ylabel("output y")
    axes[0, 0].legend(loc="lower right")
    return figure


def draw_probabilities(axis, task, offset, backend, title):
    """Pr(y = 1 | x) or Pr(y = k | x), and the data: classes as marks below the curves."""
    f = outputs(task, offset, backend, GRID)
    if task == "binary":
        axis.plot(GRID, expit(f), "C0-", label="Pr(y = 1)")
        axis.plot(X, BINARY, "k.", label="data")
    else:
        for k, style in enumerate(("-", "--", "-.")):
            axis.plot(GRID, softmax(f, axis=1)[:, k], color=f"C{k}", ls=style, label=f"Pr(y = {k})")
            x = X[np.equal(CLASSES, k)]
            axis.plot(x, np.full(len(x), -0.06 - 0.05 * k), color=f"C{k}", ls="", marker="osv"[k])
    axis.set(xlim=(0, 1), ylim=(-0.22 if task == "classes" else -0.07, 1.07), title=title, xlabel="input x")
    axis.set_yticks([0, 0.5, 1])


def draw_classification(backend):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 6, figsize=(14, 5.3), sharex=True, layout="constrained")
    for row, task in zip(axes, ("binary", "classes"), strict=True):
        f = outputs(task, None, backend, GRID)
        for k, style in enumerate(("-", "--", "-.")[: f.shape[1]]):
            row[0].plot(GRID, f[:, k], color=f"C{k}", ls=style, label=f"logit {k}" if f.shape[1] > 1 else "logit")
        start = READOUTS[task][1][0]
        row[0].set(title=f"outputs, offset {start:g}", ylabel="model output")
        row[0].legend()
        draw_probabilities(row[1], task, None, backend, f"offset {start:g} (start)")
        row[1].set_ylabel("probability")
        best = float(OPTIMA[task][1][1])
        for axis, offset in zip(row[2:5], (-2.0, 0.0, 4.0), strict=True):
            draw_probabilities(axis, task, offset, backend, f"offset {offset:g}")
        draw_probabilities(row[5], task, best, backend, f"best offset {best:g}")
    # Outside of the panels, where it covers no line; that of both classes and the data stands in a panel with room.
    axes[0, 2].legend(loc="center")
    figure.legend(*axes[1, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_sweeps(backend):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 4, figsize=(13, 6.6), sharex="col", layout="constrained")
    for column, (title, (grid, values)) in zip(axes.T, sweeps(backend).items(), strict=True):
        column[0].set_title(title)
        for k, axis in enumerate(column):
            if k >= values.shape[1]:
                axis.axis("off")
                continue
            axis.plot(grid, values[:, k], color=f"C{k}", ls=("-", "--", "-.")[k])
            axis.axvline(grid[np.argmax(values[:, 0])], color="0.7", lw=1, zorder=0)
            axis.tick_params(labelbottom=True)
            last = k == values.shape[1] - 1
            axis.set_xlabel(("sigma" if title == SIGMA else "offset of the readout") if last else "")
    for axis, name in zip(axes[:, 0], NAMES, strict=True):
        axis.set_ylabel(name)
    axes[2, 3].set_ylim(0, 2)
    return figure


def draw_density(backend):
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(11, 3.6), layout="constrained")
    for label, (mu, sigma) in DENSITIES.items():
        axis.plot(Y_GAUSS, [density(Gaussian(sigma), [mu], [y], backend) for y in Y_GAUSS], label=label)
    axis.set(xlim=(-5, 5), ylim=(0, 1), xlabel="y", ylabel="density Pr(y)", title="normal densities")
    axis.legend()
    return figure


def draw(backend=None):
    return {
        "": draw_sweeps(backend),
        "fits": draw_fits(backend),
        "classification": draw_classification(backend),
        "density": draw_density(backend),
    }


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
