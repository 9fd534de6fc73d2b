"""The unbiased estimate of HSIC, the size of the covariance between two sets of features, from sums over kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.bands import side_of
from udlbridge.analysis.inputs import KernelLike, check_real, check_square
from udlbridge.analysis.sums import Statistics, statistics

LEAST = 4
"""Samples that the estimate takes at least: it compares pairs of pairs of different samples."""


class Covariances(NamedTuple):
    """HSIC of all pairs of m kernels, `values` (m, m), in units of 2^(exponents[a] + exponents[b]).

    `rounding` (m,): what HSIC of a kernel with itself may be by rounding alone; `skew` (m,): above 1 for kernels that
    are not symmetric.
    """

    values: np.ndarray
    exponents: np.ndarray
    rounding: np.ndarray
    skew: np.ndarray


def unbiased_hsic(sums: Statistics) -> Float[np.ndarray, "m m"]:
    """HSIC of all pairs of kernels without bias: its mean over draws of n samples is the population's, whatever n >= 4.

    With A and B without their diagonals: [<A, B> + (1'A1)(1'B1) / ((n-1)(n-2)) - 2 (A1)'(B1) / (n-2)] / (n(n-3)). A
    constant that is added to a kernel changes nothing.

    Source: Song, Smola, Gretton, Bedo, Borgwardt, Feature selection via dependence maximization (2012), equation 5.
    """
    n = sums.rows.shape[1]
    inner = sums.inner - sums.diagonals @ sums.diagonals.T
    rows = sums.rows - sums.diagonals
    totals = rows.sum(axis=1)
    spread = rows @ rows.T
    return (inner + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * spread) / (n * (n - 3))


def covariances_of(sums: Statistics) -> Covariances:
    """HSIC of all pairs of kernels of at least `LEAST` samples, from the sums over them."""
    n = sums.rows.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        values = unbiased_hsic(sums)
        whole = np.diag(sums.products(centred=False))
        rounding = np.maximum((4 * sums.eps) ** 2 * whole, 16 * np.finfo(np.float64).eps * np.diag(sums.inner))
    return Covariances(values, sums.exponents, rounding / (n * (n - 3)), sums.skew)


def covariances(kernels: Sequence[KernelLike], batch: int) -> Covariances:
    """The sums of HSIC over batches of samples, from blocks along the diagonal of the kernels.

    Raises:
        ShapeError, InputError, DTypeError: as `statistics`.
    """
    n = check_square(kernels)
    parts = [covariances_of(statistics(blocks, symmetric=True)) for blocks in _diagonal_blocks(kernels, n, batch)]
    return add_up(parts)


def add_up(parts: Sequence[Covariances]) -> Covariances:
    """The sum of the covariances of the same kernels on different samples, which may be in different units."""
    exponents = np.max([part.exponents for part in parts], axis=0)
    scales = [np.ldexp(1.0, part.exponents - exponents) for part in parts]
    return Covariances(
        values=np.sum([part.values * by[:, None] * by for part, by in zip(parts, scales, strict=True)], axis=0),
        exponents=exponents,
        rounding=np.sum([part.rounding * by**2 for part, by in zip(parts, scales, strict=True)], axis=0),
        skew=np.max([part.skew for part in parts], axis=0),
    )


def _diagonal_blocks(kernels: Sequence[KernelLike], n: int, batch: int) -> Iterator[list[np.ndarray]]:
    """The same blocks of `batch` samples, or a few more, on the diagonals of all kernels.

    Small ones are read together, as large as a tile: a store decodes a whole one to give a part of it.
    """
    bounds = np.linspace(0, n, max(1, n // batch) + 1).astype(int)
    together = max(1, side_of(kernels) // batch)
    for first in range(0, len(bounds) - 1, together):
        own = bounds[first : first + together + 1]
        stretch = slice(int(own[0]), int(own[-1]))
        read = [check_real(np.asarray(kernel[stretch, stretch])) for kernel in kernels]
        for start, stop in zip(own[:-1] - own[0], own[1:] - own[0], strict=True):
            yield [block[start:stop, start:stop] for block in read]
