"""Tensors, dense layers, gradient tapes, and descent.

Source: a TensorFlow lab. Tensors of every rank and their slices; small computations; a dense sigmoid layer written by
hand, as a Sequential model and as a subclass; a model with a switch that gives its input back; the derivative of x^2 at
3; and 500 steps of descent on (x - 4)^2 from a random start, whose path has a closed form: x_t - 4 = 0.98^t (x_0 - 4).

The lab does not run as printed: `tf.constant` is spelled `tf.constnat` twice, and the layer is defined as
`OutDenseLayer`, from `Tf.keras`, and used as `OurDenseLayer`. It checks its layer against three numbers that belong to
TensorFlow's own random numbers after `set_seed(1)`; those weights are given here as data (`LAYER`). TensorFlow draws
them with the Philox generator, key 1 and as counters what Python's `random.Random(1)` gives, Glorot-uniform, the bias
too.
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

SPORT = np.array("Tennis")
NUMBERS = np.array([3.141, 1.414, 2.718])
MATRIX = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
IMAGES = np.zeros((10, 256, 256, 3), dtype="float32")

INPUT = np.array([[1.0, 2.0]], dtype="float32")
LAYER = {  # what tf.random.set_seed(1) gives a layer of 2 inputs and 3 units; here a weight has a row for each unit
    "0.weight": np.array([[-0.73366153, -0.14340228], [0.8796015, -0.4558388], [0.28695, 0.3122064]], dtype="float32"),
    "0.bias": np.array([0.02475715, -0.13831842, -0.2240473], dtype="float32"),
}
CHECKED = ("0.2697859", "0.45750418", "0.66536945")
TARGET, STEP, STEPS = 4.0, 0.01, 500


def product(matrix, vector, backend):
    """`matrix @ vector`, as a dense layer without bias computes it."""
    layer = ub.Model([ub.Dense(*matrix.shape[::-1], bias=False)], {"0.weight": np.ascontiguousarray(matrix)})
    return ub.outputs(layer, vector[None], backend=backend)[0]


def func(p):
    """The lab's graph: c = a + b, d = b - 1, e = c d."""
    a, b = p[0], p[1]
    return (a + b) * (b - 1)


class OurDenseLayer:
    """A sigmoid layer, from its formula: each unit is 1 / (1 + exp(-(w . x + b)))."""

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias

    def call(self, x, backend=None):
        def unit(w, b):
            z = lambda p: w[0] * p[0] + w[1] * p[1] + b  # noqa: E731 - the formula of its weighted sum
            return ub.Function(lambda p: 1 / (1 + ub.expressions.exp(-z(p))), backend=backend)

        return np.array([[unit(w, b).value(x[0]) for w, b in zip(self.weight, self.bias, strict=True)]])


class IdentityModel:
    """A dense sigmoid layer that gives its input back where it is told to."""

    def __init__(self, n_output_nodes, backend=None):
        self.dense_layer = ub.Model([ub.Dense(2, n_output_nodes, "sigmoid")], seed=2)
        self.backend = backend

    def call(self, inputs, isidentity=False):
        x = ub.outputs(self.dense_layer, inputs, backend=self.backend)
        return inputs if isidentity else x


def by_hand(model, x):
    """A sigmoid layer in NumPy."""
    return 1 / (1 + np.exp(-(x @ model.params["0.weight"].T + model.params["0.bias"])))


def start():
    """The random start of the descent, from a seed."""
    return np.random.default_rng(1).standard_normal(1)


def descent(backend):
    """500 steps with the engine's gradients."""
    loss = ub.Function(lambda x: (x[0] - TARGET) ** 2, backend=backend)
    return ub.optimize.descend(loss, start(), steps=STEPS, step_size=STEP)


def rows(backend=None):
    def value(formula, *point):
        return ub.Function(formula, backend=backend).value(np.array(point))

    row, column = product(MATRIX.T, np.array([0.0, 1.0]), backend), product(MATRIX, np.array([0.0, 0.0, 1.0]), backend)
    layer = OurDenseLayer(LAYER["0.weight"], LAYER["0.bias"]).call(INPUT, backend)
    sequential = ub.Model([ub.Dense(2, 3, "sigmoid")], seed=1)
    switched = IdentityModel(3, backend)
    tape = ub.Function(lambda x: x[0] * x[0], backend=backend)
    longer = ub.Function(lambda x: (x[0] * x[0]) * (x[0] * x[0]), backend=backend)
    path = descent(backend)
    closed = TARGET + (start() - TARGET) * (1 - 2 * STEP) ** np.arange(STEPS + 1)
    found = [practicals.asserted("rank of the images", 4, IMAGES.ndim, engine=False)]
    for axis, length in enumerate((10, 256, 256, 3)):
        found.append(
            practicals.asserted(f"length of axis {axis} of the images", length, IMAGES.shape[axis], engine=False)
        )
    for unit, text in enumerate(CHECKED):
        # The lab compares to seven decimals, in float32.
        found.append(practicals.solved(f"our dense layer, unit {unit}, seed 1", text, layer[0, unit], tolerance=1.5e-7))
    return [
        practicals.largest_gap("row 1 of the matrix, [4, 5, 6]", row, np.array([4.0, 5.0, 6.0])),
        practicals.largest_gap("column 2 of the matrix, [3, 6]", column, np.array([3.0, 6.0])),
        practicals.asserted("entry (1, 2) of the matrix", 6.0, column[1]),
        practicals.closed_form("15 + 61", 76, value(lambda p: p[0] + p[1], 15.0, 61.0)),
        practicals.closed_form("func(1.5, 2.5) = (a + b)(b - 1)", 6.0, value(func, 1.5, 2.5)),
        *found,
        practicals.largest_gap(
            "the sequential model, by hand",
            ub.outputs(sequential, INPUT, backend=backend), by_hand(sequential, INPUT), 1e-6,
        ),
        practicals.largest_gap(
            "the subclass, by hand", switched.call(INPUT), by_hand(switched.dense_layer, INPUT), 1e-6
        ),
        practicals.Row(
            "the subclass, isidentity=True: second entry", practicals.CLOSED_FORM, 2.0,
            float(switched.call(INPUT, isidentity=True)[0, 1]), engine=False,
        ),
        practicals.asserted("tape: d(x^2)/dx at 3", 6.0, tape.gradient(np.array([3.0]))[0]),
        practicals.closed_form("the same tape again, at -2", -4.0, tape.gradient(np.array([-2.0]))[0]),
        practicals.closed_form("a longer tape: d(x^4)/dx at 3", 108.0, longer.gradient(np.array([3.0]))[0]),
        practicals.largest_gap("descent: all 501 points", path.points[:, 0], closed),
        practicals.closed_form("descent: end", closed[-1], path.minimum[0]),
    ]  # fmt: skip


def report(backend=None):
    """What the lab prints."""
    switched, path = IdentityModel(3, backend), descent(backend)
    tensors = {"sport": SPORT, "numbers": NUMBERS, "matrix": MATRIX, "images": IMAGES}
    layer = OurDenseLayer(LAYER["0.weight"], LAYER["0.bias"]).call(INPUT, backend)
    sequential = ub.Model([ub.Dense(2, 3, "sigmoid")], seed=1)
    return "\n".join(
        [
            *(f"{name}: rank {tensor.ndim}, shape {tensor.shape}, {tensor.dtype}" for name, tensor in tensors.items()),
            f"matrix[1] = {MATRIX[1]}, matrix[:, 2] = {MATRIX[:, 2]}, matrix[1, 2] = {MATRIX[1, 2]}",
            f"our dense layer of {INPUT[0]}: {layer[0]}",
            f"the sequential model: {ub.outputs(sequential, INPUT, backend=backend)[0]}",
            f"the subclass: {switched.call(INPUT)[0]}; isidentity=True: {switched.call(INPUT, isidentity=True)[0]}",
            f"Initializing x = {path.points[0]}, after {STEPS} steps x = {path.minimum}",
        ]
    )


def draw(backend=None):
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 3.4))
    axis.plot(descent(backend).points, label="predicted")
    axis.plot([0, STEPS], [TARGET, TARGET], label="true")
    axis.set(xlabel="iteration", ylabel="x value", title="descent on $(x - 4)^2$ from a random start, step 0.01")
    axis.legend()
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
