"""The geometry of high-dimensional spaces.

Source: Coursework_IV. Of 1000 normal points, how much farther apart are the farthest two than the nearest two? How
large is a ball of diameter 1, and how much of it lies in the outer 1 % of its radius? Squared distances come from the
Gram matrix of the points, which is the tangent kernel of a linear model without bias: df/dw = x.
"""

import math

import numpy as np
from scipy.spatial.distance import pdist

import udlbridge as ub
from udlbridge.udl import practicals
from udlbridge.udl.expressions import exp, log

DIMENSIONS = (2, 100, 1000)


def points():
    """The source's data, one point a row, drawn with NumPy's old generator in its order."""
    old = np.random.RandomState(0)
    return {d: np.ascontiguousarray(old.normal(size=(d, 1000)).T) for d in DIMENSIONS}


def linear(d):
    """The sum of d inputs as a model."""
    return ub.Model([ub.Dense(d, 1, bias=False)], {"0.weight": np.ones((1, d))})


def distance_ratio(x, backend):
    """Largest distance of two points over the smallest, from the engine's Gram matrix."""
    gram = ub.ntk(linear(x.shape[1]), x, outputs=0, backend=backend)
    squares = np.diag(gram)
    above = np.triu_indices(len(x), k=1)
    distances = np.sqrt((squares[:, None] + squares[None, :] - 2 * gram)[above])
    return distances.max() / distances.min()


def volume(d, diameter, backend):
    """pi^(d/2) r^d / Gamma(d/2 + 1), by its logarithm."""
    fixed = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return ub.Function(lambda r: exp(fixed + d * log(r[0])), backend=backend).value(np.array([diameter / 2]))


def outer_share(d, backend):
    """Share of a ball's volume in the outer 1 % of its radius."""
    return 1 - volume(d, 0.99, backend) / volume(d, 1.0, backend)


def volume_by_recursion(d):
    """V_d = V_(d-2) 2 pi r^2 / d at r = 1/2, from V_0 = 1 and V_1 = 1."""
    return 1.0 if d < 2 else volume_by_recursion(d - 2) * math.pi / (2 * d)


def rows(backend=None):
    data = points()
    total = ub.outputs(linear(1000), data[1000], backend=backend).sum()
    found = [practicals.printed("sum of the points in 1000 dimensions", "1036.321", total)]
    for d in DIMENSIONS:
        distances = pdist(data[d])
        # In the plane the nearest two are 1e-3 apart, and the difference of squares loses six digits there.
        tolerance = 1e-8 if d == 2 else 1e-12
        expected = distances.max() / distances.min()
        found.append(
            practicals.closed_form(
                f"distance ratio in {d} dimensions", expected, distance_ratio(data[d], backend), tolerance
            )
        )
    found += [
        practicals.closed_form(f"ball of diameter 1 in {d} dimensions", volume_by_recursion(d), volume(d, 1.0, backend))
        for d in range(1, 11)
    ]
    for d in (1, 2, 10, 20, 50, 100, 150, 200, 250, 300):
        expected = -math.expm1(d * math.log(0.99))
        found.append(practicals.closed_form(f"outer 1 % in {d} dimensions", expected, outer_share(d, backend)))
    return found


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 2.8))
    for d, x in points().items():
        axes[0].hist(pdist(x) / np.sqrt(2 * d), bins=100, histtype="step", density=True, label=f"{d}")
    axes[0].set(title="distances of two points", xlabel="distance / expected size", ylabel="density")
    axes[0].legend(title="dimensions")
    axes[1].plot(range(1, 11), [volume(d, 1.0, backend) for d in range(1, 11)], ".-")
    axes[1].set(title="ball of diameter 1", xlabel="dimensions", ylabel="volume")
    grid = range(1, 301, 5)
    axes[2].plot(grid, [outer_share(d, backend) for d in grid])
    axes[2].set(title="share in the outer 1 %", xlabel="dimensions", ylabel="share of the volume")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
