"""Line search, and a straight line fitted with it.

Sources: practicals Training_I and Training_II. A bracketing line search on a function with two dips; gradient descent
with that search on the sum of squares of a straight line. Gradients come from the engine and are held against finite
differences.
"""

import numpy as np
from scipy.optimize import minimize_scalar

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import exp, total

# fmt: off
DATA = np.array([
    [0.03, 0.19, 0.34, 0.46, 0.78, 0.81, 1.08, 1.18, 1.39, 1.60, 1.65, 1.90],
    [0.67, 0.85, 1.05, 1.00, 1.40, 1.50, 1.30, 1.54, 1.55, 1.68, 1.73, 1.60],
])
# fmt: on


def dips(t):
    """The source's function of one number, in NumPy."""
    return 1 - 0.5 * np.exp(-((t - 0.65) ** 2) / 0.1) - 0.45 * np.exp(-((t - 0.35) ** 2) / 0.02)


def search(backend, iterations):
    """The line search on the same function, evaluated by the engine."""
    function = ub.Function(
        lambda p: 1 - 0.5 * exp(-((p[0] - 0.65) ** 2) / 0.1) - 0.45 * exp(-((p[0] - 0.35) ** 2) / 0.02),
        backend=backend,
    )
    return ub.optimize.line_search(lambda t: function.value(np.array([t])), iterations=iterations)


def loss(backend):
    """Sum of squares of the straight line phi_0 + phi_1 x."""
    x, y = DATA
    return ub.Function(lambda p: total((p[0] + p[1] * x - y) ** 2), backend=backend)


def descent(backend, steps=10):
    """The source's ten steps, each as long as the line search says."""
    return ub.optimize.descend_by_line_search(loss(backend), np.array([1.6, -0.5]), steps=steps, maximum=0.1)


def rows(backend=None):
    lowest = minimize_scalar(dips, bounds=(0.2, 0.5), options={"xatol": 1e-10}).x
    point, function = np.array([0.6, -0.2]), loss(backend)
    # Bracketing narrows the interval by a third; rule 1 halves it.
    found = [
        practicals.closed_form("line search, 10 iterations: minimum", lowest, search(backend, 10).minimum, 0.01),
        practicals.closed_form("line search, 30 iterations: minimum", lowest, search(backend, 30).minimum, 1e-4),
        practicals.printed("loss at (0.6, -0.2)", "12.367", function.value(point)),
    ]
    for k, e in enumerate(1e-5 * np.eye(2)):
        difference = (function.value(point + e) - function.value(point - e)) / 2e-5
        found.append(practicals.differences(f"dL/dphi_{k}", difference, function.gradient(point)[k], 1e-7))
    design = np.stack([np.ones(12), DATA[0]], axis=1)
    solution, residual, *_ = np.linalg.lstsq(design, DATA[1], rcond=None)
    long = descent(backend, steps=150)
    return [
        *found,
        practicals.below(
            "10 steps: loss, within 10 % of least squares", 1.1 * residual[0], descent(backend).values[-1]
        ),
        practicals.closed_form("150 steps: loss of least squares", residual[0], long.values[-1], 1e-8),
        practicals.closed_form("150 steps: intercept", solution[0], long.minimum[0], 1e-4),
        practicals.closed_form("150 steps: slope", solution[1], long.minimum[1], 1e-4),
    ]


def draw(backend=None):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3))
    grid = np.linspace(0, 1, 201)
    left.plot(grid, dips(grid))
    for number, bracket in enumerate(search(backend, 10).brackets):
        left.plot(bracket, np.full(4, -0.05 * number - 0.05), "C1.-", lw=0.7)
    left.set(title="brackets of the line search", xlabel="phi")
    u, v = np.meshgrid(np.linspace(0, 2, 60), np.linspace(-1, 1, 60))
    squares = ((u[..., None] + v[..., None] * DATA[0] - DATA[1]) ** 2).sum(-1)
    right.contourf(u, v, squares, 20, cmap="copper")
    right.plot(*descent(backend).points.T, "C2.-")
    right.set(title="ten steps with line search", xlabel="intercept", ylabel="slope")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
