"""The chain rule and backpropagation.

Sources: practicals Gradients_I and Gradients_II. Every intermediate value of a chain of log, cos, exp and sin, and the
derivative of the result with respect to each of them and to each parameter. Then a random relu network, whose output
the source prints, and all its loss gradients. (Gradients_I says that the derivative of sin is -cos. It is +cos, and the
true values printed there follow from +cos.)
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import cos, exp, log, sin, total

BETA = np.array([1.0, 2.0, -3.0, 0.4, -0.3])
OMEGA = np.array([0.1, -0.4, 2.0, 3.0, -0.5])
INPUT, X = 2.3, np.array([[1.2]])
OUTER = (sin, exp, cos, log)
STAGES = ["f0", "h1", "f1", "h2", "f2", "h3", "f3", "h4", "y"]
VALUES = dict(zip(STAGES, ("1.230", "0.942", "1.623", "5.068", "7.137", "0.657", "2.372", "0.864"), strict=False))
SLOPES = {"h3": "-0.632", "f2": "0.476", "h2": "0.953", "f1": "4.830", "h1": "-1.932", "f0": "-0.646"}
PARAMETER_SLOPES = ("-0.646", "4.830", "0.476", "-0.211", "1.000", None, "4.552", "2.415", "-0.139", "0.864")


def advance(value, first, last, beta=BETA, omega=OMEGA):
    """From the quantity number `first` of STAGES to number `last`: affine maps and outer functions take turns."""
    for number in range(first, last):
        k = (number + 1) // 2
        value = OUTER[k](value) if number % 2 == 0 else beta[k] + omega[k] * value
    return value


def whole(p):
    """y as a function of the ten parameters, betas first."""
    return advance(p[0] + p[5] * INPUT, 0, 8, p, [p[5 + k] for k in range(5)])


def formulas():
    """y and dy/domega0 from the inside out; the source writes each in one expression."""
    angle = BETA[0] + OMEGA[0] * INPUT
    grown = np.exp(OMEGA[1] * np.sin(angle) + BETA[1])
    turned = OMEGA[2] * grown + BETA[2]
    inside = OMEGA[3] * np.cos(turned) + BETA[3]
    slope = -np.prod(OMEGA[1:]) * INPUT * np.cos(angle) * grown * np.sin(turned) / inside
    return BETA[4] + OMEGA[4] * np.log(inside), slope


def relu_network():
    """Gradients_II: five hidden layers of six units, drawn with NumPy's old generator in the order of the source."""
    old, widths = np.random.RandomState(0), [1, 6, 6, 6, 6, 6, 1]
    layers = [ub.Dense(widths[k], widths[k + 1], "relu" if k < 5 else "identity") for k in range(6)]
    model = ub.Model(layers, dtype="float64")
    drawn = ["0.weight", "5.weight", "0.bias", "5.bias", *list(model.params)[2:-2]]
    return model.with_params({name: old.normal(size=model.params[name].shape) for name in drawn})


def relu_loss(backend):
    """The squared distance of that network's output from 20, as a function of its parameters, and those."""
    loss = ub.optimize.ModelFunction(relu_network(), X, lambda f: total((f - 20.0) ** 2), backend=backend)
    return loss, loss.start()


def slopes(function, point, step=1e-6):
    """Central differences of a function along every entry of its argument."""
    moves = step * np.eye(len(point))
    return np.array([function.value(point + e) - function.value(point - e) for e in moves]) / (2 * step)


def rows(backend=None):
    found, reached = [], {}
    for number, name in enumerate(STAGES):
        stage = ub.Function(lambda p, last=number: advance(BETA[0] + OMEGA[0] * p[0], 0, last), backend=backend)
        reached[name] = stage.value(np.array([INPUT]))
        if name in VALUES:
            found.append(practicals.printed(name, VALUES[name], reached[name]))
    y, omega0_slope = formulas()
    found.append(practicals.closed_form("y", y, reached["y"]))
    first = {"h4": OMEGA[4], "f3": OMEGA[4] / reached["f3"]}  # the source prints no figures for these two
    for name in reversed(STAGES[:-1]):
        tail = ub.Function(lambda p, name=name: advance(p[0], STAGES.index(name), 8), backend=backend)
        point = np.array([reached[name]])
        slope = tail.gradient(point)[0]
        if name in SLOPES:
            found.append(practicals.printed(f"dy/d{name}", SLOPES[name], slope))
        else:
            found.append(practicals.closed_form(f"dy/d{name}", first[name], slope))
        found.append(practicals.differences(f"dy/d{name}, by differences", slopes(tail, point)[0], slope, 1e-7))
    function, point = ub.Function(whole, backend=backend), np.concatenate([BETA, OMEGA])
    gradient, differences = function.gradient(point), slopes(function, point)
    found.append(practicals.closed_form("dy/domega0, the source's formula", omega0_slope, gradient[5]))
    for k, text in enumerate(PARAMETER_SLOPES):
        name = f"dy/d{'beta' if k < 5 else 'omega'}{k % 5}"
        if text is not None:
            found.append(practicals.printed(name, text, gradient[k]))
        found.append(practicals.differences(f"{name}, by differences", differences[k], gradient[k], 1e-7))
    output = ub.outputs(relu_network(), X, backend=backend)[0, 0]
    found.append(practicals.printed("relu network: output", "1.907", output))
    loss, start = relu_loss(backend)
    by_engine = loss.gradient(start)
    gap = np.abs(slopes(loss, start, 1e-5) - by_engine).max() / np.abs(by_engine).max()
    return [*found, practicals.differences("relu network: largest gap of all gradients", 0.0, gap, 1e-7)]


def draw(backend=None):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3))
    left.bar(range(10), ub.Function(whole, backend=backend).gradient(np.concatenate([BETA, OMEGA])))
    left.set_xticks(range(10), [f"{name}{k}" for name in ("beta", "omega") for k in range(5)], rotation=60)
    left.set_title("derivatives of y")
    loss, start = relu_loss(backend)
    right.plot(slopes(loss, start, 1e-5), loss.gradient(start), ".")
    right.axline((0, 0), slope=1, color="0.7", zorder=0)
    right.set(title=f"relu network: {len(start)} gradients", xlabel="finite difference", ylabel="engine")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
