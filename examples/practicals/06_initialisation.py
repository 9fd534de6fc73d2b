"""Initialisation: vanishing and exploding signals.

Source: practical Gradients_III. The standard deviation of activations and of loss gradients in every layer, for 5
layers of 8 units and for 50 layers of 80, by the variance of the first weights. The variance 2 / width keeps both.
(The source prints the gradients at preactivations, dl/df, and labels them "dl_dh". Here they are dl/df.)
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals


def relu_network(depth, width):
    hidden = [ub.Dense(width if k else 1, width, "relu") for k in range(depth)]
    return ub.Model([*hidden, ub.Dense(width, 1)], dtype="float64")


def source_network(variance):
    """The source's 5 layers of 8 units, drawn with NumPy's old generator in its order."""
    old = np.random.RandomState(0)
    model = relu_network(5, 8)
    params = dict(model.params)
    for k in (0, 5, 1, 2, 3, 4):
        params[f"{k}.weight"] = old.normal(size=params[f"{k}.weight"].shape) * np.sqrt(variance)
    return model.with_params(params), old.normal(size=(1000, 1))


def by_hand(model, x):
    """The same standard deviations in a few lines of NumPy."""
    weights = [model.params[f"{k}.weight"] for k in range(len(model.layers))]
    hidden = [x]
    for weight in weights[:-1]:
        hidden.append(np.maximum(hidden[-1] @ weight.T, 0))
    error, errors = 2 * hidden[-1] @ weights[-1].T, []
    for weight, h in zip(weights[:0:-1], hidden[:0:-1], strict=True):
        error = (error @ weight) * (h > 0)
        errors.append(error.std())
    return [h.std() for h in hidden[1:]], errors[::-1]


def deep_reports(backend):
    """50 layers of 80 units: weights of variance 1, of 2 / 80 (He), and of a tenth of that."""
    model, x = relu_network(50, 80), np.random.default_rng(0).standard_normal((100, 1))
    drawn = {
        "variance 1": ub.init.normal(model, 1.0, seed=1),
        "variance 2 / 80": ub.init.normal(model, 2 / 80, seed=1),
        "He": ub.init.he(model, seed=1),
        "variance 0.2 / 80": ub.init.normal(model, 0.2 / 80, seed=1),
    }
    return {name: ub.signal_report(m, x, backend=backend) for name, m in drawn.items()}


def rows(backend=None):
    found = []
    for variance in (1.0, 2 / 8):
        model, x = source_network(variance)
        report = ub.signal_report(model, x, backend=backend)
        activations, gradients = by_hand(model, x)
        for k in range(5):
            found += [
                practicals.closed_form(
                    f"5 x 8, variance {variance}: activation {k}", activations[k], report.activation_std[k]
                ),
                practicals.closed_form(
                    f"5 x 8, variance {variance}: gradient {k}", gradients[k], report.gradient_std[k]
                ),
            ]
    reports = deep_reports(backend)
    # A relu layer of width D and variance v multiplies the mean square by v D / 2: per layer, sqrt(v D / 2).
    for name, expected in (("variance 1", np.sqrt(40)), ("variance 2 / 80", 1.0), ("variance 0.2 / 80", np.sqrt(0.1))):
        for what in ("activation_std", "gradient_std"):
            sizes = getattr(reports[name], what)
            growth = (sizes[49] / sizes[0]) ** (1 / 49)
            expected_here = expected if what == "activation_std" else 1 / expected
            label = f"50 x 80, {name}: growth per layer of {what.removesuffix('_std')}s"
            found.append(practicals.closed_form(label, expected_here, growth, 0.1))
    he = reports["He"].activation_std[:50]
    return [*found, practicals.below("50 x 80, He: largest / smallest activation", 10.0, max(he) / min(he))]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3), sharey=True, layout="constrained")
    for name, report in deep_reports(backend).items():
        axes[0].semilogy(report.activation_std[:50], label=name)
        axes[1].semilogy(report.gradient_std[:50], label=name)
    axes[0].set(title="activations", xlabel="layer", ylabel="standard deviation")
    axes[1].set(title="loss gradients", xlabel="layer")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
