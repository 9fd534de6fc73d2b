"""Derivatives of a deep network with respect to its inputs.

Source: a question on the slopes of a network, and its answer. A sigmoid layer of ones with a linear readout has the
slope [0.0903533, 0.0903533] at [1, 1]. With a second hidden layer the slope is a product of three Jacobians; the
question's own last attempt feeds preactivations into the next layer where activations belong, and so misses it. Second
derivatives come along, and are held against finite differences.

Two slips of the source: its answer writes exp(-w.x + b) where exp(-(w.x + b)) belongs, and computes with the latter,
exp(-3), for w.x = 2 and b = 1; and the question's linear function has no second derivative for div = 2 (it asks for
div > 2), so x comes back instead of 0. What the question is after, fitting data of mixed kind, is in
`14_values_and_slopes`.
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

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


def rows(backend=None):
    found = []
    slope = ub.input_jacobian(ones(1), POINT, backend=backend)[0, 0]
    found += [practicals.printed(f"one hidden layer: dy/dx{k + 1}", "0.0903533", slope[k]) for k in range(2)]
    meant, written = (2 * a / (1 + a) ** 2 for a in np.exp([-(2.0 + 1.0), -2.0 + 1.0]))
    found.append(practicals.closed_form("2 a / (1 + a)^2 with a = exp(-(w.x + b))", meant, slope[0]))
    found.append(
        practicals.closed_form(
            "as the answer writes it, exp(-w.x + b): too large by", written - meant, written - slope[0]
        )
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
    linear = ub.input_hessian(ub.Model(ones(1).layers[1:], dtype="float64"), POINT, backend=backend)
    found.append(
        practicals.largest_gap("linear readout alone: second derivatives", linear, np.zeros((1, 1, 2, 2)), 0.0)
    )
    model, x = mixed_network(), np.random.default_rng(0).standard_normal((20, 2))
    jacobian = ub.input_jacobian(model, x, backend=backend)
    hessian = ub.input_hessian(model, x, backend=backend)
    step = 1e-5
    moved = [[x + sign * step * e for sign in (1, -1)] for e in np.eye(2)]
    first = [np.subtract(*(ub.outputs(model, m, backend=backend) for m in pair)) / (2 * step) for pair in moved]
    second = [np.subtract(*(ub.input_jacobian(model, m, backend=backend) for m in pair)) / (2 * step) for pair in moved]
    for order, values, estimates in (
        ("first", jacobian, np.stack(first, -1)),
        ("second", hessian, np.stack(second, -1)),
    ):
        worst = np.unravel_index(np.abs(values - estimates).argmax(), values.shape)
        label = f"deeper network: {order} derivative farthest from its difference"
        found.append(practicals.differences(label, estimates[worst], values[worst], 1e-9))
        # Softmax outputs sum to one, so their derivatives sum to zero.
        label = f"deeper network: {order} derivatives of output 2, those of 0 and 1 negated"
        found.append(practicals.largest_gap(label, values[:, 2], -values[:, :2].sum(1)))
    return found


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
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        largest = np.abs(values).max()
        signed = {"levels": np.linspace(-largest, largest, 14), "cmap": practicals.SIGNED}
        settings = {"levels": 12} if title == "output 0" else signed
        drawn = axis.contourf(grid, grid, values.reshape(41, 41), **settings)
        if title != "output 0":
            axis.contour(drawn, colors="k", linewidths=0.5)  # negative ones are dashed: signs are seen in grey too
        figure.colorbar(drawn, ax=axis, ticks=None if title == "output 0" else [-largest, 0, largest], format="%.3f")
        axis.set(title=title, xlabel="x1", ylabel="x2")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
