"""Shallow and deep networks: composition, matrix form, linear regions.

Sources: practicals Shallow, Deep and Deep2. Two networks with three relu units each are fed into one another; the
composition is one deeper network whose matrices are products; folding multiplies the number of linear regions.
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

# Offsets and slopes of the three hidden units, then offset and weights of the output.
FIRST = ([0.0, 0.0, -0.67], [-1.0, 1.0, 1.0], 1.0, [-2.0, -3.0, 9.3])
SECOND = ([-0.6, 0.2, -0.5], [-1.0, 1.0, 1.0], 0.5, [-1.0, -1.5, 2.0])
X = np.arange(-1, 1, 0.001)[:, None]


def scaled(network, factor):
    """The network with its first output weight multiplied, as the source changes it."""
    offsets, slopes, offset, weights = network
    return offsets, slopes, offset, [factor * weights[0], *weights[1:]]


def unrolled(network, x):
    """The network written out unit by unit."""
    offsets, slopes, offset, weights = network
    return offset + sum(w * np.maximum(t0 + t1 * x, 0) for t0, t1, w in zip(offsets, slopes, weights, strict=True))


def composed(*networks):
    """One deep model: between two networks, the output map of one and the input map of the next are multiplied."""
    offsets, slopes, offset, weights = networks[0]
    layers, params = [ub.Dense(1, 3, "relu")], {"0.weight": np.array(slopes)[:, None], "0.bias": np.array(offsets)}
    for index, (next_offsets, next_slopes, next_offset, next_weights) in enumerate(networks[1:], start=1):
        layers.append(ub.Dense(3, 3, "relu"))
        params[f"{index}.weight"] = np.outer(next_slopes, weights)
        params[f"{index}.bias"] = np.array(next_offsets) + np.array(next_slopes) * offset
        offset, weights = next_offset, next_weights
    layers.append(ub.Dense(3, 1))
    params[f"{len(networks)}.weight"], params[f"{len(networks)}.bias"] = np.array([weights]), np.array([offset])
    return ub.Model(layers, params)


def knots(networks):
    """Points of [-1, 1] where the slope changes: zeros of every preactivation, found segment by segment."""
    points, values = np.array([-1.0, 1.0]), np.array([-1.0, 1.0])
    for network in networks:
        for t0, t1 in zip(network[0], network[1], strict=True):
            z = t0 + t1 * values
            crossing = np.flatnonzero(z[:-1] * z[1:] < -1e-15)
            share = z[crossing] / (z[crossing] - z[crossing + 1])
            points, values = (
                np.insert(a, crossing + 1, a[crossing] + share * (a[crossing + 1] - a[crossing]))
                for a in (points, values)
            )
        values = unrolled(network, values)
    return points[1:-1][np.abs(np.diff(np.diff(values) / np.diff(points))) > 1e-9]


def regions(model, backend):
    """Linear regions on [-1, 1], counted from the engine's derivatives: runs of one slope."""
    slopes = ub.input_jacobian(model, np.linspace(-1, 1, 20001)[:-1, None] + 1.3e-5, backend=backend)[:, 0, 0]
    return 1 + int(np.count_nonzero(np.abs(np.diff(slopes)) > 1e-9))


COMPOSITIONS = {
    "first": [FIRST],
    "second": [SECOND],
    "first, second": [FIRST, SECOND],
    "first, second with phi_1 negated": [FIRST, scaled(SECOND, -1)],
    "first with phi_1 halved, second": [scaled(FIRST, 0.5), SECOND],
    "first, first": [FIRST, FIRST],
    "first, first, second": [FIRST, FIRST, SECOND],
    "first, first, first, second": [FIRST, FIRST, FIRST, SECOND],
}


def random_network(backend):
    """The source's network 4-5-2-4-1 with random parameters: every layer against its matrices, shapes included."""
    generator, widths = np.random.default_rng(0), (4, 5, 2, 4, 1)
    x = h = generator.standard_normal((10, 4))
    layers, params, found = [], {}, []
    for k in range(4):
        before, after = widths[k : k + 2]
        omega, beta = generator.standard_normal((after, before)), generator.standard_normal(after)
        h = np.array([beta + omega @ row for row in (np.maximum(h, 0) if k else h)])
        layers.append(ub.Dense(before, after, "relu" if k < 3 else "identity"))
        params |= {f"{k}.weight": omega, f"{k}.bias": beta}
        by_engine = ub.outputs(ub.Model(layers, params), x, backend=backend)
        expected = np.maximum(h, 0) if k < 3 else h
        found.append(practicals.largest_gap(f"network 4-5-2-4-1: layer {k}, 10 x {after}", by_engine, expected))
    return found


def rows(backend=None):
    found = []
    for label, networks in COMPOSITIONS.items():
        by_hand = X
        for network in networks:
            by_hand = unrolled(network, by_hand)
        model = composed(*networks)
        found.append(practicals.largest_gap(f"{label}: matrices", ub.outputs(model, X, backend=backend), by_hand))
        found.append(practicals.closed_form(f"{label}: regions", 1 + len(knots(networks)), regions(model, backend), 0))
    return found + random_network(backend)


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(11, 2.8), sharey=True)
    for axis, label in zip(axes, ("first", "second", "first, second", "first, first, second"), strict=True):
        axis.plot(X, ub.outputs(composed(*COMPOSITIONS[label]), X, backend=backend))
        axis.set(title=label, xlabel="input")
    axes[0].set_ylabel("output")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
