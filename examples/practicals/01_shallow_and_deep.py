"""Shallow and deep networks: hidden units, composition, matrix form, linear regions.

Sources: practicals Shallow (as in the public original, since the text of it is not in the source), Deep and Deep2. A
network with three relu units is three lines that are clipped, weighted and summed. Two such networks fed into one
another are one deeper network, whose matrices are products; and folding multiplies the number of linear regions.
"""

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

# --- Shallow: one input, three hidden units, one output --------------------------------------------------------------
# A network here is: offsets and slopes of its three hidden units, then offset and weights of its output.

SHALLOW = ([0.3, -1.0, -0.5], [-1.0, 2.0, 0.65], -0.3, [2.0, -1.0, 7.0])
# fmt: off
SHALLOW_DATA = np.array([
    [0.09291784, 0.46809093, 0.93089486, 0.67612654, 0.73441752, 0.86847339, 0.49873225, 0.51083168, 0.18343972,
     0.99380898, 0.27840809, 0.38028817, 0.12055708, 0.56715537, 0.92005746, 0.77072270, 0.85278176, 0.05315950,
     0.87168699, 0.58858043],
    [-0.15934537, 0.18195445, 0.451270150, 0.13921448, 0.09366691, 0.30567674, 0.372291170, 0.40716968, -0.08131792,
     0.41187806, 0.36943738, 0.3994327, 0.019062570, 0.35820410, 0.452564960, -0.0183121, 0.02957665, -0.24354444,
     0.148038840, 0.26824970],
])
# fmt: on


def unrolled(network, x):
    """The network written out unit by unit, in NumPy."""
    offsets, slopes, offset, weights = network
    return offset + sum(w * np.maximum(t0 + t1 * x, 0) for t0, t1, w in zip(offsets, slopes, weights, strict=True))


def stages(network, x, backend):
    """Preactivations, activations and weighted activations of the three units, (3 stages, n, 3 units)."""
    offsets, slopes, _, weights = network
    params = {"0.weight": np.array(slopes)[:, None], "0.bias": np.array(offsets)}
    found = [ub.outputs(ub.Model([ub.Dense(1, 3, f)], params), x, backend=backend) for f in ("identity", "relu")]
    spread = {"1.weight": np.diag(weights), "1.bias": np.zeros(3)}
    weighted = ub.Model([ub.Dense(1, 3, "relu"), ub.Dense(3, 3)], params | spread)
    return np.stack([*found, ub.outputs(weighted, x, backend=backend)])


def shallow_rows(backend):
    x, y = SHALLOW_DATA[:, :, None]
    loss = ub.losses.sum_of_squares(ub.outputs(composed(SHALLOW), x, backend=backend), y, backend=backend)
    found = [practicals.solved("shallow: sum of squares", "9.385", loss)]
    for label, network in (("first", FIRST), ("second", SECOND)):
        z = np.array(network[0]) + X * np.array(network[1])
        by_hand = np.stack([z, np.maximum(z, 0), np.maximum(z, 0) * network[3]])
        found.append(practicals.largest_gap(f"{label}: nine stages", stages(network, X, backend), by_hand))
    return found


# --- Deep: the output of one network is the input of the next --------------------------------------------------------
# The tasks: draw what comes out, with the second network's first weight negated, with the first network's first weight
# halved, with the first network twice, and with three networks. How many linear regions has it?

FIRST = ([0.0, 0.0, -0.67], [-1.0, 1.0, 1.0], 1.0, [-2.0, -3.0, 9.3])
SECOND = ([-0.6, 0.2, -0.5], [-1.0, 1.0, 1.0], 0.5, [-1.0, -1.5, 2.0])
X = np.arange(-1, 1, 0.001)[:, None]


def scaled(network, factor):
    """The network with its first output weight multiplied, as the source changes it."""
    offsets, slopes, offset, weights = network
    return offsets, slopes, offset, [factor * weights[0], *weights[1:]]


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
    """Linear regions on [-1, 1], counted from the engine's derivatives: runs of one slope.

    The narrowest of the 324 regions below is 2.5e-4 wide, which is more than two steps of this grid.
    """
    slopes = ub.input_jacobian(model, np.linspace(-1, 1, 20001)[:-1, None] + 1.3e-5, backend=backend)[:, 0, 0]
    return 1 + int(np.count_nonzero(np.abs(np.diff(slopes)) > 1e-9))


def deep_rows(backend):
    found = []
    for label, networks in COMPOSITIONS.items():
        by_hand = X
        for network in networks:
            by_hand = unrolled(network, by_hand)
        model = composed(*networks)
        found.append(practicals.largest_gap(f"{label}: matrices", ub.outputs(model, X, backend=backend), by_hand))
        found.append(practicals.closed_form(f"{label}: regions", 1 + len(knots(networks)), regions(model, backend), 0))
    # The last question: N copies of the first network, then the second. On each of its three pieces the first network
    # crosses all of [-1, 1], and so it repeats everything that follows three times.
    for copies in range(1, 5):
        model = composed(*[FIRST] * copies, SECOND)
        label = f"N = {copies} copies of the first, then the second: regions, 4 x 3^N"
        found.append(practicals.closed_form(label, 4 * 3**copies, regions(model, backend), 0))
    return found


# --- Deep2: the same as matrices, and a random network 4-5-2-4-1 -----------------------------------------------------
# The source means to test the shapes of all layers, but looks at the second axis of h1 each time, for h2, h3 and y too.
# Here the shape of every layer is the one of its matrices, or the comparison is an error.


def random_network(backend):
    """The source's network with random parameters: every layer against its matrices."""
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
    return [*shallow_rows(backend), *deep_rows(backend), *random_network(backend)]


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw_network(axis, networks, backend, title):
    """The network on [-1, 1], with a dot wherever its slope changes."""
    model, bends = composed(*networks), knots(networks)
    axis.plot(X, ub.outputs(model, X, backend=backend), "C0-", lw=1.2)
    if len(bends) < 40:
        axis.plot(bends, ub.outputs(model, bends[:, None], backend=backend), "C1.", ms=6)
    # The first network leaves [-1, 1] a little, and four of them leave it far, at the right end alone.
    axis.set(title=f"{title}\n{1 + len(bends)} regions", xlim=(-1, 1), ylim=(-1.2, 1.6), xlabel="input")
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])


def draw_compositions(backend):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 4, figsize=(13, 9), layout="constrained", sharey=True)
    for axis, (label, networks) in zip(axes[:2].flat, COMPOSITIONS.items(), strict=True):
        draw_network(axis, networks, backend, label.replace(" with phi_1", ",\nphi_1"))
    for copies, axis in enumerate(axes[2], start=1):
        draw_network(axis, [FIRST] * copies + [SECOND], backend, f"{copies} x first, then second")
    for axis in axes[:, 0]:
        axis.set_ylabel("output")
    return figure


def draw_stages(backend):
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(13, 6.4), layout="constrained")
    for part, (label, network) in zip(
        figure.subfigures(1, 2), {"first network": FIRST, "second network": SECOND}.items(), strict=True
    ):
        part.suptitle(f"{label}: its three hidden units, stage by stage", fontsize=11)
        axes = part.subplots(3, 3, sharex=True, sharey="row")
        for row, name, values in zip(
            axes, ("preactivation", "activation", "weighted"), stages(network, X, backend), strict=True
        ):
            row[0].set_ylabel(name)
            for unit, axis in enumerate(row):
                axis.plot(X, values[:, unit], color=f"C{unit}", ls=("-", "--", "-.")[unit])
                axis.axhline(0, color="0.8", lw=0.8, zorder=0)
        for unit in range(3):
            axes[0, unit].set_title(f"unit {unit + 1}")
            axes[2, unit].set_xlabel("input")
    return figure


def draw(backend=None):
    return {"": draw_compositions(backend), "stages": draw_stages(backend)}


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
