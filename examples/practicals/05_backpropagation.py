"""The chain rule and backpropagation.

Sources: practicals Gradients_I and Gradients_II. Every intermediate value of a chain of log, cos, exp and sin, and the
derivative of the result with respect to each of them and to each parameter. Then a random relu network, its loss, and
all its loss gradients, against the backward pass written out.

Two slips of the sources: Gradients_I says that the derivative of sin is -cos. It is +cos, and the true values printed
there follow from +cos. Gradients_II checks its backward pass with finite differences in a loop over all layers but the
last. Here every layer is checked, the last one too.
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import cos, exp, log, sin, total

# --- Gradients I: y = beta4 + omega4 log(beta3 + omega3 cos(beta2 + omega2 exp(beta1 + omega1 sin(beta0 + omega0 x))))

BETA = np.array([1.0, 2.0, -3.0, 0.4, -0.3])
OMEGA = np.array([0.1, -0.4, 2.0, 3.0, -0.5])
PARAMETERS = [f"{name}{k}" for name in ("beta", "omega") for k in range(5)]
INPUT = 2.3
OUTER, NUMPY = (sin, exp, cos, log), (np.sin, np.exp, np.cos, np.log)
STAGES = ["f0", "h1", "f1", "h2", "f2", "h3", "f3", "h4", "y"]
VALUES = dict(zip(STAGES, ("1.230", "0.942", "1.623", "5.068", "7.137", "0.657", "2.372", "0.864"), strict=False))
SLOPES = {"h3": "-0.632", "f2": "0.476", "h2": "0.953", "f1": "4.830", "h1": "-1.932", "f0": "-0.646"}
PARAMETER_SLOPES = ("-0.646", "4.830", "0.476", "-0.211", "1.000", None, "4.552", "2.415", "-0.139", "0.864")


def advance(value, first, last, beta=BETA, omega=OMEGA, outer=OUTER):
    """From the quantity number `first` of STAGES to number `last`: affine maps and outer functions take turns."""
    for number in range(first, last):
        k = (number + 1) // 2
        value = outer[k](value) if number % 2 == 0 else beta[k] + omega[k] * value
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


def slopes(function, point, step=1e-6):
    """Central differences of a function along every entry of its argument."""
    moves = step * np.eye(len(point))
    return np.array([function.value(point + e) - function.value(point - e) for e in moves]) / (2 * step)


def forward_and_back(backend):
    """Step 1, the forward pass: all values. Step 2, the backward pass: dy by each of them, in reverse order."""
    found = []
    # Points of the backward pass come from NumPy, so that a wrong stage does not spoil those that follow.
    reached = {name: advance(BETA[0] + OMEGA[0] * INPUT, 0, k, outer=NUMPY) for k, name in enumerate(STAGES)}
    for number, name in enumerate(STAGES):
        stage = ub.Function(lambda p, last=number: advance(BETA[0] + OMEGA[0] * p[0], 0, last), backend=backend)
        value = stage.value(np.array([INPUT]))
        if name in VALUES:
            found.append(practicals.printed(name, VALUES[name], value))
        found.append(practicals.closed_form(f"{name}, by NumPy", reached[name], value))
    found.append(practicals.solved("y", "-0.732", value))
    found.append(practicals.closed_form("y, the source's formula", formulas()[0], value))
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
    return found


def by_one(k, backend):
    """y as a function of parameter number k alone, all others fixed."""
    fixed = [*BETA, *OMEGA]
    return ub.Function(lambda p: whole([*fixed[:k], p[0], *fixed[k + 1 :]]), backend=backend)


def by_parameters(backend):
    """Step 3: dy by every beta and omega, one by one as the source does it, and by all in one backward pass."""
    function, point, step = ub.Function(whole, backend=backend), np.concatenate([BETA, OMEGA]), 1e-4
    differences = slopes(function, point)
    gradient = np.array([by_one(k, backend).gradient(point[k : k + 1])[0] for k in range(10)])
    forward = [(function.value(point + step * np.eye(10)[k]) - function.value(point)) / step for k in (4, 5)]
    found = [
        practicals.solved("dy/domega0", "-1.485", gradient[5]),
        practicals.closed_form("dy/domega0, the source's formula", formulas()[1], gradient[5]),
        practicals.largest_gap("dy by all ten in one backward pass", function.gradient(point), gradient),
        practicals.solved("dy/domega0, the source's differences", "-1.484", forward[1]),
        practicals.solved("dy/dbeta4, the source's differences", "1.000", forward[0]),
    ]
    for name, text, figure, difference in zip(PARAMETERS, PARAMETER_SLOPES, gradient, differences, strict=True):
        if text is not None:
            found.append(practicals.printed(f"dy/d{name}", text, figure))
        found.append(practicals.differences(f"dy/d{name}, by differences", difference, figure, 1e-7))
    return found


# --- Gradients II: a random relu network, its loss, and the gradients of all weights and biases -----------------------

LAYERS, WIDTHS = 5, [1, 6, 6, 6, 6, 6, 1]
X, TARGET = np.array([[1.2]]), 20.0


def relu_network():
    """Five hidden layers of six units, drawn with NumPy's old generator in the order of the source."""
    old = np.random.RandomState(0)
    layers = [ub.Dense(WIDTHS[k], WIDTHS[k + 1], "relu" if k < LAYERS else "identity") for k in range(LAYERS + 1)]
    model = ub.Model(layers, dtype="float64")
    drawn = ["0.weight", "5.weight", "0.bias", "5.bias", *list(model.params)[2:-2]]
    return model.with_params({name: old.normal(size=model.params[name].shape) for name in drawn})


def relu_loss(backend):
    """The squared distance of that network's output from 20, as a function of its parameters, and those."""
    loss = ub.optimize.ModelFunction(relu_network(), X, lambda f: total((f - TARGET) ** 2), backend=backend)
    return loss, loss.start()


def backward_pass():
    """The source's task in NumPy: forward, then errors backward; gradients of all parameters by name.

    (The source's indicator function is 1 at 0, where the slope of relu is 0 here. No preactivation is 0.)
    """
    params, h, found = relu_network().params, [X[0]], {}
    for k in range(LAYERS):
        h.append(np.maximum(params[f"{k}.bias"] + params[f"{k}.weight"] @ h[k], 0))
    error = 2 * (params[f"{LAYERS}.bias"] + params[f"{LAYERS}.weight"] @ h[LAYERS] - TARGET)
    for k in reversed(range(LAYERS + 1)):
        found[f"{k}.weight"], found[f"{k}.bias"] = np.outer(error, h[k]), error
        error = (params[f"{k}.weight"].T @ error) * (h[k] > 0)
    return found


def split(vector):
    """A vector of all parameters as one array for each, by name."""
    params, found, first = relu_network().params, {}, 0
    for name, value in params.items():
        found[name] = vector[first : first + value.size].reshape(value.shape)
        first += value.size
    return found


def network_rows(backend):
    loss, start = relu_loss(backend)
    found = [
        practicals.printed("relu network: output", "1.907", ub.outputs(relu_network(), X, backend=backend)[0, 0]),
        practicals.solved("relu network: loss", "327.371", loss.value(start)),
    ]
    by_engine, by_hand = split(loss.gradient(start)), backward_pass()
    by_differences = split(slopes(loss, start, 1e-5))
    for k in range(LAYERS + 1):
        for part in ("bias", "weight"):
            name = f"{k}.{part}"
            found.append(practicals.largest_gap(f"dl/d{part} {k}: backward pass", by_engine[name], by_hand[name]))
            worst = np.argmax(np.abs(by_engine[name] - by_differences[name]))
            expected, figure = by_differences[name].flat[worst], by_engine[name].flat[worst]
            # The loss is 327, and rounded to 6e-14: over steps of 1e-5 that is 6e-9, and a few of it in what follows.
            found.append(practicals.differences(f"dl/d{part} {k}: by differences", expected, figure, 1e-7))
    return found


def rows(backend=None):
    return [*forward_and_back(backend), *by_parameters(backend), *network_rows(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw(backend=None):
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    gradient = ub.Function(whole, backend=backend).gradient(np.concatenate([BETA, OMEGA]))
    left.bar(range(10), gradient, color=["C0"] * 5 + ["C4"] * 5)
    for k, slope in enumerate(gradient):
        left.annotate(f"{slope:.3f}", (k, slope), ha="center", va="bottom" if slope > 0 else "top")
    left.set_xticks(range(10), PARAMETERS, rotation=60)
    left.margins(y=0.1)
    left.set(title="Gradients I: derivatives of y", ylabel="dy/dparameter")
    loss, start = relu_loss(backend)
    by_engine, by_differences = split(loss.gradient(start)), split(slopes(loss, start, 1e-5))
    for k, marker in enumerate("osd^vP"):
        for part, fill in (("weight", f"C{k}"), ("bias", "none")):
            name = f"{k}.{part}"
            middle.plot(by_differences[name].ravel(), by_engine[name].ravel(), marker, color=f"C{k}", mfc=fill, ms=5)
        right.plot([], [], marker, color=f"C{k}", label=f"layer {k}")
        sizes = [np.abs(by_engine[f"{k}.{part}"]).max() for part in ("weight", "bias")]
        right.plot([k, k], sizes, color="0.8", zorder=0, ls="-")
        right.plot(k, sizes[0], marker, color=f"C{k}")
        right.plot(k, sizes[1], marker, color=f"C{k}", mfc="none")
    straight = np.linspace(-500, 100, 601)
    middle.plot(straight, straight, color="0.7", ls="-", zorder=0)
    middle.set_xscale("symlog", linthresh=1)
    middle.set_yscale("symlog", linthresh=1)
    middle.set(title=f"Gradients II: all {len(start)} derivatives", xlabel="finite difference", ylabel="engine")
    right.set(title="largest derivative of every layer", xlabel="layer", ylabel="|dl/dparameter|", yscale="log")
    right.legend(title="filled: weights, open: biases", title_fontsize=9)
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
