"""Loss functions: Gaussian, Bernoulli and categorical likelihoods of small networks.

Sources: practicals Loss, Loss_II, Loss_III. The likelihood, the negative log likelihood and, for the Gaussian, the sum
of squares have their optimum at the same offset of the readout. The first two have it at the same standard deviation,
too, that of the residuals; the sum of squares does not change with it.
"""

import numpy as np
from scipy.special import logit

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
READOUTS = {
    "regression": ([[-2.0, -1.0, 7.0]], [0.1]),
    "binary": ([[-24.0, -8.0, 50.0]], [2.6]),
    "classes": ([[-24.0, -8.0, 50.0], [-2.0, 8.0, -30.0], [16.0, -8.0, -8.0]], [2.0, -2.0, 0.0]),
}
OBSERVED = {"regression": REAL, "binary": BINARY, "classes": CLASSES}
DISTRIBUTIONS = {"regression": Gaussian(0.2), "binary": Bernoulli(), "classes": Categorical()}
GRIDS = {"regression": np.arange(0, 1, 0.01), "binary": np.arange(-2, 6, 0.1), "classes": np.arange(-2, 6, 0.1)}
SIGMAS = np.arange(0.1, 0.5, 0.005)
NAMES = ("likelihood", "negative log likelihood", "sum of squares")
FIGURES = {
    "regression": ("0.000010624", "11.452419564", "2.020992572"),
    "binary": ("0.000070237", "9.563639387"),
    "classes": ("0.000000041", "17.015457867"),
}


def outputs(task, offset, backend):
    """Three relu units and the task's readout, at X; `offset` is the readout's first bias."""
    weight, bias = (np.array(part) for part in READOUTS[task])
    bias[0] = offset
    params = {"0.weight": np.array([[-1.0], [1.8], [0.65]]), "0.bias": np.array([0.3, -1.0, -0.5])}
    layers = [ub.Dense(1, 3, "relu"), ub.Dense(3, len(bias))]
    return ub.outputs(ub.Model(layers, params | {"1.weight": weight, "1.bias": bias}), X, backend=backend)


def criteria(task, offset, backend, distribution=None):
    """Likelihood, negative log likelihood and, for the regression, sum of squares."""
    pair = (distribution or DISTRIBUTIONS[task], outputs(task, offset, backend), OBSERVED[task])
    found = [likelihood(*pair, backend=backend), negative_log_likelihood(*pair, backend=backend)]
    return [*found, sum_of_squares(*pair[1:], backend=backend)] if task == "regression" else found


def sweeps(backend):
    """The criteria along every grid: of the offset for each task, and of sigma at the source's best offset."""
    found = {task: (grid, np.array([criteria(task, b, backend) for b in grid])) for task, grid in GRIDS.items()}
    by_sigma = np.array([criteria("regression", 0.27, backend, Gaussian(sigma)) for sigma in SIGMAS])
    return found | {"standard deviation": (SIGMAS, by_sigma)}


def rows(backend=None):
    def density(distribution, f, y):
        return likelihood(distribution, np.array(f), np.array(y), backend=backend)

    def slope(offset):
        f = outputs("regression", offset, backend)
        return ub.losses.negative_log_likelihood_gradient(Gaussian(0.2), f, REAL, backend=backend)

    found = [practicals.printed("normal(-1, 2.3): density at 1", "0.119", density(Gaussian(2.3), [-1.0], [1.0]))]
    for k, text in enumerate(("0.800", "0.200")):
        found.append(practicals.printed(f"Bernoulli: Pr({k}) at 0.2", text, density(Bernoulli(), [logit(0.2)], [k])))
    for k, text in enumerate(("0.200", "0.500", "0.300")):
        three = np.log([[0.2, 0.5, 0.3]])
        found.append(practicals.printed(f"categorical: Pr({k})", text, density(Categorical(), three, [k])))
    for task, texts in FIGURES.items():
        here = criteria(task, READOUTS[task][1][0], backend)
        found += [practicals.printed(f"{task}: {n}", t, v) for n, t, v in zip(NAMES, texts, here, strict=False)]
    swept = sweeps(backend)
    for task, (grid, values) in swept.items():
        best = [grid[np.argmax(values[:, 0])], *grid[np.argmin(values[:, 1:], axis=0)]]
        for name, found_here in zip(NAMES[: 2 if grid is SIGMAS else 3], best, strict=False):
            if task == "regression":
                found.append(practicals.printed(f"regression: best offset by {name}", "0.27", found_here))
            elif name != "likelihood":
                found.append(practicals.closed_form(f"{task}: best by {name}", best[0], found_here, 0))
    squares = swept["standard deviation"][1][:, 2]
    residual, step = np.sqrt(squares[0] / 20), SIGMAS[1] - SIGMAS[0]
    found.append(practicals.closed_form("standard deviation: best, of the residuals", residual, best[0], step / 2))
    found.append(practicals.closed_form("standard deviation: change of the sum of squares", 0.0, np.ptp(squares), 0))
    # At the best offset the slope of the Gaussian loss vanishes: the offset moves by the mean residual.
    exact = 0.1 - slope(0.1).mean() * 0.2**2
    return [*found, practicals.closed_form("regression: slope at the exact optimum", 0.0, slope(exact).sum(), 1e-11)]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(11, 4.2), sharex="col")
    for (above, below), (title, (grid, values)) in zip(axes.T, sweeps(backend).items(), strict=True):
        above.plot(grid, values[:, 0], label=NAMES[0])
        for k, style in zip(range(1, values.shape[1]), ("C0", "C1--"), strict=False):
            below.plot(grid, values[:, k], style, label=NAMES[k])
        for axis in (above, below):
            axis.axvline(grid[np.argmax(values[:, 0])], color="0.7", zorder=0)
        above.set_title(title, fontsize=10)
        below.set_xlabel("sigma" if grid is SIGMAS else "offset of the readout")
    axes[0, 0].set_ylabel("likelihood")
    axes[1, 0].legend(fontsize=7)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
