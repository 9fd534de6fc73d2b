"""Derivatives of a deep network with respect to its inputs.

Source: a question on the slopes of a network, and its answer. A sigmoid layer of ones with a linear readout has the
slope [0.0903533, 0.0903533] at [1, 1]. With a second hidden layer the slope is a product of three Jacobians; the
question's own last attempt feeds preactivations into the next layer where activations belong, and so misses it. Second
derivatives come along, and are held against finite differences. At the end the question's own task: a network is fitted
to data that give y at some points, dy/dx1 at others, and dy/dx2 at the rest.
"""

import numpy as np

import udlbridge as ub
from udlbridge import practicals

POINT = np.array([[1.0, 1.0]])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def ones(hidden_layers, activation="sigmoid"):
    """Hidden layers of two units and a linear readout without bias; every weight and bias is one."""
    layers = [*[ub.Dense(2, 2, activation) for _ in range(hidden_layers)], ub.Dense(2, 1, bias=False)]
    model = ub.Model(layers, dtype="float64")
    return model.with_params({name: np.ones_like(value) for name, value in model.params.items()})


def product_of_jacobians(hidden_layers):
    """Slope at [1, 1] by hand: the readout's weights times one diag(s') W per layer, each at that layer's own input."""
    h, result = POINT[0], np.eye(2)
    for _ in range(hidden_layers):
        z = np.ones((2, 2)) @ h + 1
        result = np.diag(sigmoid(z) * (1 - sigmoid(z))) @ np.ones((2, 2)) @ result
        h = sigmoid(z)
    return np.ones((1, 2)) @ result


def mixed_network():
    """A deeper network with two inputs and random weights."""
    layers = [ub.Dense(2, 8, "tanh"), ub.Dense(8, 8, "softplus"), ub.Dense(8, 3, "gelu_erf"), ub.Softmax()]
    return ub.Model(layers, seed=3, dtype="float64")


def mixed_task():
    """A network, samples, targets and loss for y = sin(x1) x2: values at 12 points, one slope each at 24 others."""
    x = np.random.default_rng(1).uniform(-2, 2, (36, 2))
    y, slopes = np.full((36, 1), np.nan), np.full((36, 1, 2), np.nan)
    y[:12, 0] = np.sin(x[:12, 0]) * x[:12, 1]
    slopes[12:24, 0, 0] = np.cos(x[12:24, 0]) * x[12:24, 1]
    slopes[24:, 0, 1] = np.sin(x[24:, 0])
    model = ub.Model([ub.Dense(2, 12, "tanh"), ub.Dense(12, 1)], seed=2, dtype="float64")
    return model, x, y, ub.losses.sobolev(slopes)


def rows(backend=None):
    found = []
    slope = ub.input_jacobian(ones(1), POINT, backend=backend)[0, 0]
    found += [practicals.printed(f"one hidden layer: dy/dx{k + 1}", "0.0903533", slope[k]) for k in range(2)]
    a = np.exp(-3.0)
    found.append(
        practicals.closed_form("one hidden layer: 2 a / (1 + a)^2, a = exp(-3)", 2 * a / (1 + a) ** 2, slope[0])
    )
    for depth in (2, 3, 5):
        slope = ub.input_jacobian(ones(depth), POINT, backend=backend)[0]
        found.append(
            practicals.largest_gap(f"{depth} hidden layers: product of Jacobians", slope, product_of_jacobians(depth))
        )
    curvature = ub.input_hessian(ones(1), POINT, backend=backend)[0, 0]
    s = sigmoid(3.0)
    found.append(
        practicals.closed_form("one hidden layer: d2y/dx1 dx2", 2 * s * (1 - s) * (1 - 2 * s), curvature[0, 1])
    )
    model, x = mixed_network(), np.random.default_rng(0).standard_normal((20, 2))
    jacobian = ub.input_jacobian(model, x, backend=backend)
    hessian = ub.input_hessian(model, x, backend=backend)
    step = 1e-5
    moved = [[x + sign * step * e for sign in (1, -1)] for e in np.eye(2)]
    first = [np.subtract(*(ub.outputs(model, m, backend=backend) for m in pair)) / (2 * step) for pair in moved]
    second = [np.subtract(*(ub.input_jacobian(model, m, backend=backend) for m in pair)) / (2 * step) for pair in moved]
    gaps = {"first": np.stack(first, -1) - jacobian, "second": np.stack(second, -1) - hessian}
    for order, gap in gaps.items():
        found.append(
            practicals.differences(f"deeper network: gap of {order} derivatives", 0.0, np.abs(gap).max(), 1e-9)
        )
    for order, values in (("first", jacobian), ("second", hessian)):
        # Softmax outputs sum to one, so their derivatives sum to zero.
        found.append(
            practicals.closed_form(f"deeper network: sum of {order} derivatives", 0.0, np.abs(values.sum(1)).max())
        )
    model, x, y, loss = mixed_task()
    run = ub.train(model, x, y, loss=loss, optimizer=("sgd", {"lr": 0.36}), epochs=400, backend=backend)
    held = np.random.default_rng(2).uniform(-1.5, 1.5, (200, 2))
    truth = np.sin(held[:, :1]) * held[:, 1:]
    error = ub.outputs(run.model, held, backend=backend) - truth
    fitted = ub.optimize.LossFunction(run.model, x, y, loss=loss, backend=backend)
    end, e = fitted.start(), 1e-6 * np.eye(model.n_params)[7]
    difference = (fitted.value(end + e) - fitted.value(end - e)) / 2e-6
    gradient = fitted.gradient(end)[7]
    return [
        *found,
        practicals.differences("mixed data: gradient by one weight", difference, gradient, 1e-6),
        practicals.below("mixed data: loss, a twentieth of the first", run.losses[0] / 20, run.losses[-1]),
        practicals.below("mixed data: error elsewhere / spread", 0.3, np.sqrt((error**2).mean()) / truth.std()),
    ]


def draw(backend=None):
    from matplotlib import pyplot

    grid = np.linspace(-3, 3, 41)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    model = mixed_network()
    panels = {
        "output 0": ub.outputs(model, x, backend=backend)[:, 0],
        "d / dx1": ub.input_jacobian(model, x, backend=backend)[:, 0, 0],
        "d2 / dx1 dx2": ub.input_hessian(model, x, backend=backend)[:, 0, 0, 1],
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 2.8))
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        figure.colorbar(axis.contourf(grid, grid, values.reshape(41, 41), 12), ax=axis)
        axis.set(title=title, xlabel="x1", ylabel="x2")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
