"""Loss functions: Gaussian, Bernoulli and categorical likelihoods of small networks.

Sources: practicals Loss, Loss_II, Loss_III. The likelihood, the negative log likelihood and, for the Gaussian, the sum
of squares have their optimum at the same parameter.
"""

import numpy as np
from scipy.special import logit

import udlbridge as ub
from udlbridge import practicals
from udlbridge.losses import Bernoulli, Categorical, Gaussian, likelihood, negative_log_likelihood, sum_of_squares

# fmt: off
X = np.array([
    0.09291784, 0.46809093, 0.93089486, 0.67612654, 0.73441752, 0.86847339, 0.49873225, 0.51083168, 0.18343972,
    0.99380898, 0.27840809, 0.38028817, 0.12055708, 0.56715537, 0.92005746, 0.77072270, 0.85278176, 0.05315950,
    0.87168699, 0.58858043,
])[:, None]
REAL = np.array([
    -0.25934537, 0.18195445, 0.651270150, 0.13921448, 0.09366691, 0.30567674, 0.372291170, 0.20716968, -0.08131792,
    0.51187806, 0.16943738, 0.3994327, 0.019062570, 0.55820410, 0.452564960, -0.1183121, 0.02957665, -1.24354444,
    0.248038840, 0.26824970,
])[:, None]
BINARY = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1])[:, None]
CLASSES = np.array([2, 0, 1, 2, 1, 0, 0, 2, 2, 0, 2, 0, 2, 0, 1, 2, 1, 2, 1, 0])
# fmt: on
READOUTS = {
    "regression": ([[-2.0, -1.0, 7.0]], [0.1]),
    "binary": ([[-24.0, -8.0, 50.0]], [2.6]),
    "classes": ([[-24.0, -8.0, 50.0], [-2.0, 8.0, -30.0], [16.0, -8.0, -8.0]], [2.0, -2.0, 0.0]),
}
OBSERVED = {"regression": REAL, "binary": BINARY, "classes": CLASSES}
DISTRIBUTIONS = {"regression": Gaussian(0.2), "binary": Bernoulli(), "classes": Categorical()}
GRIDS = {"regression": np.arange(0, 1, 0.01), "binary": np.arange(-2, 6, 0.1), "classes": np.arange(-2, 6, 0.1)}


def network(task, offset=None):
    """Three relu units and the task's readout; `offset` replaces the readout's first bias."""
    weight, bias = (np.array(part) for part in READOUTS[task])
    if offset is not None:
        bias[0] = offset
    params = {"0.weight": np.array([[-1.0], [1.8], [0.65]]), "0.bias": np.array([0.3, -1.0, -0.5])}
    return ub.Model([ub.Dense(1, 3, "relu"), ub.Dense(3, len(bias))], params | {"1.weight": weight, "1.bias": bias})


def criteria(task, backend, offsets):
    """Likelihood, negative log likelihood and, for the regression, sum of squares, for every offset."""
    found = []
    for offset in offsets:
        f = ub.outputs(network(task, offset), X, backend=backend)
        pair = (DISTRIBUTIONS[task], f, OBSERVED[task])
        found.append([likelihood(*pair, backend=backend), negative_log_likelihood(*pair, backend=backend)])
        if task == "regression":
            found[-1].append(sum_of_squares(f, REAL, backend=backend))
    return np.array(found)


def rows(backend=None):
    def density(distribution, f, y):
        return likelihood(distribution, np.array(f), np.array(y), backend=backend)

    three = np.log([[0.2, 0.5, 0.3]])
    found = [
        practicals.printed("normal density of 1, mean -1, sigma 2.3", "0.119", density(Gaussian(2.3), [-1.0], [1.0])),
        practicals.printed("Bernoulli: Pr(0) at 0.2", "0.800", density(Bernoulli(), [logit(0.2)], [0])),
        practicals.printed("Bernoulli: Pr(1) at 0.2", "0.200", density(Bernoulli(), [logit(0.2)], [1])),
        *[
            practicals.printed(f"categorical: Pr({k})", text, density(Categorical(), three, [k]))
            for k, text in enumerate(("0.200", "0.500", "0.300"))
        ],
    ]
    names = ("likelihood", "negative log likelihood", "sum of squares")
    figures = {
        "regression": ("0.000010624", "11.452419564", "2.020992572"),
        "binary": ("0.000070237", "9.563639387"),
        "classes": ("0.000000041", "17.015457867"),
    }
    for task, texts in figures.items():
        here = criteria(task, backend, [READOUTS[task][1][0]])[0]
        found += [practicals.printed(f"{task}: {n}", t, v) for n, t, v in zip(names, texts, here, strict=False)]
        grid = GRIDS[task]
        values = criteria(task, backend, grid)
        best = grid[np.argmax(values[:, 0])]
        found += [
            practicals.closed_form(f"{task}: best offset by {name}", best, grid[np.argmin(column)], 0)
            for name, column in zip(names[1:], values[:, 1:].T, strict=False)
        ]
    # At the best offset the slope of the Gaussian loss vanishes: the offset moves by the mean residual.
    f = ub.outputs(network("regression"), X, backend=backend)
    step = ub.losses.negative_log_likelihood_gradient(Gaussian(0.2), f, REAL, backend=backend).mean() * 0.2**2
    f = ub.outputs(network("regression", 0.1 - step), X, backend=backend)
    slope = ub.losses.negative_log_likelihood_gradient(Gaussian(0.2), f, REAL, backend=backend).sum()
    return [*found, practicals.closed_form("regression: slope at the exact optimum", 0.0, slope, 1e-11)]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 2.8))
    for axis, (task, grid) in zip(axes, GRIDS.items(), strict=True):
        values = criteria(task, backend, grid)
        axis.plot(grid, values[:, 1], label="negative log likelihood")
        axis.twinx().plot(grid, values[:, 0], "C1--")
        axis.axvline(grid[np.argmax(values[:, 0])], color="0.7", zorder=0)
        axis.set(title=f"{task} (dashed: likelihood)", xlabel="offset of the readout")
    axes[0].set_ylabel("negative log likelihood")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
