"""Tensors, a dense layer, a gradient tape, and descent.

Source: a TensorFlow lab. Slices of a matrix, small formulas, a dense sigmoid layer with fixed weights and with a switch
that passes its input through, the derivative of x^2 at 3, and 500 steps of descent on (x - 4)^2 with step 0.01, which
has a closed form: x_t - 4 = 0.98^t (x_0 - 4).
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

MATRIX = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
WEIGHT = np.array([[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]])
BIAS = np.array([0.05, -0.1, 0.2])
INPUT = np.array([[1.0, 2.0]])
START, TARGET, STEP, STEPS = -1.5, 4.0, 0.01, 500


def switched_layer(identity=False):
    """A dense sigmoid layer, or, where it is told to, one that gives its input back."""
    if identity:
        return ub.Model([ub.Activation("identity")], dtype="float64")
    return ub.Model([ub.Dense(2, 3, "sigmoid")], {"0.weight": WEIGHT, "0.bias": BIAS})


def descent(backend):
    """The path of the descent, from the engine's gradients."""
    loss = ub.Function(lambda x: (x[0] - TARGET) ** 2, backend=backend)
    return ub.optimize.descend(loss, np.array([START]), steps=STEPS, step_size=STEP)


def rows(backend=None):
    def value(formula, *point):
        return ub.Function(formula, backend=backend).value(np.array(point))

    pick_row = ub.Model([ub.Dense(2, 3, bias=False)], {"0.weight": np.ascontiguousarray(MATRIX.T)})
    row = ub.outputs(pick_row, np.array([[0.0, 1.0]]), backend=backend)[0]
    pick_column = ub.Model([ub.Dense(3, 2, bias=False)], {"0.weight": MATRIX})
    column = ub.outputs(pick_column, np.array([[0.0, 0.0, 1.0]]), backend=backend)[0]
    dense, through = (ub.outputs(switched_layer(identity), INPUT, backend=backend) for identity in (False, True))
    untouched = ub.input_jacobian(switched_layer(identity=True), INPUT, backend=backend)[0]
    images = ub.outputs(switched_layer(identity=True), np.zeros((10, 256, 256, 3)), backend=backend)
    by_hand = [[1 / (1 + np.exp(-(w @ INPUT[0] + b))) for w, b in zip(WEIGHT, BIAS, strict=True)]]
    square = ub.Function(lambda x: x[0] * x[0], backend=backend)
    path = descent(backend)
    closed = TARGET + (START - TARGET) * (1 - 2 * STEP) ** np.arange(STEPS + 1)
    return [
        practicals.largest_gap("row 1 of the matrix, [4, 5, 6]", row, np.array([4.0, 5.0, 6.0])),
        practicals.largest_gap("column 2 of the matrix, [3, 6]", column, np.array([3.0, 6.0])),
        practicals.asserted("entry (1, 2) of the matrix", 6.0, column[1]),
        practicals.closed_form("15 + 61", 76, value(lambda p: p[0] + p[1], 15.0, 61.0)),
        practicals.closed_form(
            "(a + b)(b - 1) at 1.5, 2.5", 6.0, value(lambda p: (p[0] + p[1]) * (p[1] - 1), 1.5, 2.5)
        ),
        practicals.asserted("rank of the images", 4, images.ndim),
        *[
            practicals.asserted(f"length of axis {axis} of the images", expected, images.shape[axis])
            for axis, expected in enumerate((10, 256, 256, 3))
        ],
        practicals.largest_gap("dense sigmoid layer", dense, np.array(by_hand)),
        practicals.largest_gap("the layer as an identity", through, INPUT, 0.0),
        practicals.largest_gap("the identity's Jacobian", untouched, np.eye(2), 0.0),
        practicals.asserted("d(x^2)/dx at 3", 6.0, square.gradient(np.array([3.0]))[0]),
        practicals.largest_gap("500 steps on (x - 4)^2: path", path.points[:, 0], closed),
        practicals.closed_form("500 steps on (x - 4)^2: end", closed[-1], path.minimum[0]),
    ]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 2.8))
    axis.plot(descent(backend).points, label="x")
    axis.axhline(TARGET, color="0.6", label="minimum")
    axis.set(xlabel="step", ylabel="x", title="descent on (x - 4)^2")
    axis.legend()
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
