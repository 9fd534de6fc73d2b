"""The Gabor model: a loss with many valleys.

Source: practical Training_III. Gradient descent with line search, with a fixed step, and on random batches, from the
source's starts. All three end in the deepest valley; where that is, a grid over the source's picture says, and SciPy's
minimiser from its lowest point. The random batches have to cross other valleys to get there. Most seeds do not, as the
source leaves to be found out; this one does.
"""

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


def by_numpy(p):
    """The loss in NumPy; the parameters may be grids."""
    z = np.asarray(p[0])[..., None] + 0.06 * np.asarray(p[1])[..., None] * DATA[0]
    return ((np.sin(z) * np.exp(-(z**2) / 32) - DATA[1]) ** 2).sum(-1)


def deepest():
    """SciPy's minimum from the lowest point of a grid over the source's picture."""
    grid = np.meshgrid(np.arange(-10, 10, 0.1), np.arange(2.5, 22.5, 0.1))
    lowest = np.argmin(by_numpy(grid))
    return minimize(by_numpy, [axis.flat[lowest] for axis in grid], method="BFGS", tol=1e-8)


def loss(backend, chosen=slice(None)):
    """The loss of all data, or of some, for the engine."""
    x, y = DATA[:, chosen]

    def formula(p):
        z = p[0] + 0.06 * p[1] * x
        return total((sin(z) * exp(-(z**2) / 32) - y) ** 2)

    return ub.Function(formula, backend=backend)


def paths(backend):
    """The three descents of the source, with its starts, step sizes and numbers of steps."""
    whole, start = loss(backend), np.array([-1.5, 8.5])
    return {
        "line search": ub.optimize.descend_by_line_search(whole, start, steps=21, maximum=2.0),
        "fixed step": ub.optimize.descend(whole, start, steps=21, step_size=0.2),
        "batches of 5": ub.optimize.descend_stochastically(
            lambda batch: loss(backend, batch),
            np.array([3.5, 6.5]),
            n=30,
            batch_size=5,
            steps=41,
            step_size=0.8,
            seed=25,
        ),
    }


def rows(backend=None):
    whole, point = loss(backend), np.array([-5.0, 25.0])
    found = [practicals.printed("loss at (0.6, -0.2)", "16.419", whole.value(np.array([0.6, -0.2])))]
    for k, e in enumerate(1e-5 * np.eye(2)):
        difference = (whole.value(point + e) - whole.value(point - e)) / 2e-5
        found.append(practicals.differences(f"dL/dphi_{k}", difference, whole.gradient(point)[k], 1e-7))
    valley = deepest()
    for label, path in paths(backend).items():
        if label != "batches of 5":
            found.append(practicals.below(f"{label}: loss falls at every step", 0.0, np.diff(path.values).max()))
        on = ub.optimize.descend(whole, path.minimum, steps=500, step_size=0.1)
        found += [
            practicals.closed_form(f"{label}, then 500 short steps: loss", valley.fun, on.values[-1], 1e-8),
            practicals.closed_form(f"{label}, then 500 short steps: phi_0", valley.x[0], on.minimum[0], 1e-4),
            practicals.closed_form(f"{label}, then 500 short steps: phi_1", valley.x[1], on.minimum[1], 1e-4),
        ]
    return found


def draw(backend=None):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
    u, v = np.meshgrid(np.linspace(-10, 10, 120), np.linspace(2.5, 22.5, 120))
    left.contourf(u, v, by_numpy((u, v)), 15, cmap="copper")
    for label, path in paths(backend).items():
        left.plot(*path.points.T, ".-", lw=0.8, ms=3, label=label)
        right.plot(path.values, label=label)
    left.set(title="the loss and three paths", xlabel="phi_0", ylabel="phi_1")
    right.set(title="loss", xlabel="step")
    right.legend()
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
