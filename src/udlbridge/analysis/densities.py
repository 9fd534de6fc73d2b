"""The spectral density of a kernel: how many of its eigenvalues lie where, without computing them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from udlbridge.analysis.estimates import CONFIDENCE, error_bar
from udlbridge.analysis.quadrature import Krylov, krylov_spaces
from udlbridge.analysis.scaling import UnitProduct
from udlbridge.analysis.sources import EXACT_LIMIT, Source, source_of
from udlbridge.analysis.spectra import eigenvalues
from udlbridge.analysis.traces import LEAST, PROBES, STEPS
from udlbridge.analysis.verdicts import in_units
from udlbridge.analysis.xtrace import check_symmetric
from udlbridge.displays import Displayed, draw
from udlbridge.errors import NumericalError
from udlbridge.options import checked_choice, checked_count, checked_positive, checked_seed
from udlbridge.reports import frozen_array, json_ready, same_fields
from udlbridge.texts import counted

SCALES = ("log", "linear")
"""The axis that eigenvalues are counted along."""

WIDTHS = {"log": 0.1, "linear": 0.01}
"""Standard deviation that each eigenvalue is spread by: of decades, or of the range of the spectrum."""

EARLIER = 0.75
"""The share of the steps whose quadrature is compared with that of all of them, to see what more could change."""

MARGIN = 4
"""Standard deviations that the axis goes beyond the outermost eigenvalues."""


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(Displayed):
    """The share of eigenvalues for each unit of the axis, at `points` of it, and how far it may be off.

    The axis is log10 of the eigenvalue, so that `density` (T,) is a share for each decade, or the eigenvalue itself.
    Every eigenvalue is spread by a normal curve of standard deviation `width`, in units of the axis; the density
    integrates to 1. On the axis of logarithms, whatever lies below `floor`, as what is zero but for rounding does,
    counts as `floor`.

    At every point the truth, spread in the same way, lies within `error` (T,) for at least 95 of 100 seeds; `error` is
    0, and `seed` None, where all eigenvalues were computed. `products` counts products of the kernel with a vector.

    Examples:
        >>> found = ub.spectral_density(np.diag([1.0, 2.0, 3.0, 4.0]))
        >>> found.n, found.points.shape == found.density.shape
        (4, True)
    """

    points: np.ndarray
    density: np.ndarray
    error: np.ndarray
    width: float
    scale: str
    floor: float | None
    n: int
    products: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("points", "density", "error"):
            object.__setattr__(self, name, frozen_array(getattr(self, name)))

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.n, self.scale, self.density.tobytes()))

    @property
    def eigenvalues(self) -> Float[np.ndarray, " T"]:
        """The points as eigenvalues."""
        return np.asarray(10.0**self.points if self.scale == "log" else self.points)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each point."""
        found = zip(self.eigenvalues, self.density, self.error, strict=True)
        return [{"eigenvalue": float(at), "density": float(d), "error": float(e)} for at, d, e in found]

    def __str__(self) -> str:
        peak = int(self.density.argmax())
        unit = "decade" if self.scale == "log" else "unit"
        how = "all eigenvalues" if self.seed is None else counted(self.products, "product")
        return (
            f"spectral density of a kernel of order {self.n}, from {how}\n"
            f"  largest at the eigenvalue {self.eigenvalues[peak]:.3g}: {self.density[peak]:.3g} +- "
            f"{self.error[peak]:.1g} of all eigenvalues for each {unit}"
        )

    def plot(self, ax: Any = None) -> Any:
        """The density with its error band, on `ax` or a new figure; returns the Axes."""
        return draw("kernels:draw_density", ax, {"density": self}, "spectral density")


def spectral_density(
    kernel: object,
    *,
    scale: str = "log",
    width: float | None = None,
    points: int = 200,
    probes: int = PROBES,
    steps: int = STEPS,
    seed: int | None = None,
    exact_limit: int = EXACT_LIMIT,
) -> SpectralDensity:
    """How a kernel's eigenvalues are distributed, by stochastic Lanczos quadrature.

    The error bar is of both errors: of the probes, by leave-one-out and by the variance that they have by theory, and
    of the quadrature, by what the last quarter of its steps changed. Far below the largest eigenvalue, where many lie
    close together on a linear axis, Lanczos tells them apart slowly: there `steps` decides.

    Args:
        kernel, probes, seed: as for `trace`.
        scale: "log" or "linear": the axis. "log" is for positive semidefinite kernels.
        width: standard deviation of the curve that stands for an eigenvalue, in units of the axis; None means a tenth
            of a decade, or a hundredth of the range.
        points: where the density is given.
        steps: of Lanczos, products for each probe; 8 n `probes` `steps` bytes.
        exact_limit: bytes of a float64 copy, 8 n^2, up to which all eigenvalues are computed.

    Raises:
        As `trace`; OptionError for a scale that does not exist; NumericalError for the logarithms of a kernel without
        any positive eigenvalue.

    Source: Lin, Saad, Yang, Approximating spectral densities of large matrices (2016); Ubaru, Chen, Saad (2017).

    Examples:
        >>> found = ub.spectral_density(np.diag([1.0, 10.0, 100.0]), points=50)
        >>> found.scale, found.points.shape
        ('log', (50,))
    """
    scale, points = checked_choice("scale", scale, SCALES), checked_count("points", points, 2)
    width = None if width is None else checked_positive("width", width)
    probes, seed, steps = checked_count("probes", probes, LEAST), checked_seed(seed), checked_count("steps", steps, 1)
    exact_limit = checked_count("exact_limit", exact_limit, 0)
    source = source_of(kernel)
    if source.fits(exact_limit):
        assert source.entries is not None
        values, exponent = eigenvalues(source.entries)
        found = [_Quadrature(in_units(values, exponent), np.full(source.n, 1 / source.n))]
        return _density(found, found, source, scale, width, points, None, 0)
    unit = source.unit()
    vectors = np.random.default_rng(seed).standard_normal((source.n, probes))
    if source.entries is None:
        check_symmetric(vectors[:, :2], unit @ vectors[:, :2], source.eps)
    spaces = krylov_spaces(unit, vectors, steps)
    whole = [_Quadrature.of(space, unit, len(space.diagonal)) for space in spaces]
    early = [_Quadrature.of(space, unit, _before(space)) for space in spaces]
    products = sum(len(space.diagonal) for space in spaces)
    return _density(whole, early, source, scale, width, points, seed, products)


@dataclass(frozen=True)
class _Quadrature:
    """Nodes and weights of one probe: the mean of f over the spectrum is about sum weights f(nodes)."""

    nodes: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, space: Krylov, unit: UnitProduct, count: int) -> _Quadrature:
        """From the first `count` steps, in units of the kernel."""
        nodes, weights = space.quadrature(count)
        return cls(in_units(nodes, unit.exponent or 0), weights)


def _before(space: Krylov) -> int:
    """Steps of the earlier quadrature; all of them where the space is closed, since no more could change anything."""
    count = len(space.diagonal)
    return count if space.closed else max(1, math.floor(EARLIER * count))


def _density(
    whole: list[_Quadrature],
    early: list[_Quadrature],
    source: Source,
    scale: str,
    width: float | None,
    points: int,
    seed: int | None,
    products: int,
) -> SpectralDensity:
    low = min(float(one.nodes.min()) for one in whole)
    high = max(float(one.nodes.max()) for one in whole)
    floor = None
    if scale == "log":
        if high <= 0:
            raise NumericalError(
                f"a largest eigenvalue of {high:.3g}, which has no logarithm",
                allowed="kernels with positive eigenvalues",
                remedy='say scale="linear", or look at ub.spectrum(k)',
            )
        floor = high * max(source.n * source.verdict_eps, np.finfo(np.float64).tiny / high)
        low, high = math.log10(max(low, floor)), math.log10(high)
        spread = WIDTHS[scale] if width is None else width
    else:
        spread = WIDTHS[scale] * max(high - low, 1e-3 * abs(high)) or 1.0 if width is None else width
    grid = np.linspace(low - MARGIN * spread, high + MARGIN * spread, points)

    def curves(quadrature: _Quadrature) -> tuple[np.ndarray, np.ndarray]:
        """The density of one probe, (points,), and the mean of the squares of what it averages."""
        centres = quadrature.nodes if floor is None else np.log10(np.maximum(quadrature.nodes, floor))
        normal = np.exp(-(((grid[:, None] - centres) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
        return normal @ quadrature.weights, normal**2 @ quadrature.weights

    each, squares = (np.array(part) for part in zip(*(curves(one) for one in whole), strict=True))
    density = each.mean(axis=0)
    error = np.zeros(points)
    if seed is not None:
        m = len(whole)
        others = (each.sum(axis=0) - each) / (m - 1)
        # v'f(A)v of a v that is uniform on the sphere has the variance 2 / (n + 2) times that of f over the spectrum.
        # Where few eigenvalues count, and the jackknife is as skewed as chi-squares are, this one holds.
        known = 2 / (source.n + 2) * np.maximum(squares.mean(axis=0) - density**2, 0) / m
        known = stdtrit(m - 1, (1 + CONFIDENCE) / 2) * np.sqrt(known)
        changed = np.abs(density - np.mean([curves(one)[0] for one in early], axis=0))
        error = np.maximum(error_bar(others), known) + changed
    return SpectralDensity(grid, density, error, spread, scale, floor, source.n, products, seed)
