"""The alignments of one kernel with another whose samples are permuted, in the pass that sums both kernels.

No permuted kernel is ever formed. Products are taken of the entries as they are, less a constant; what centring changes
follows from the sums over rows once all of them are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from udlbridge.analysis.bands import TILE, Band, Part, bands_of
from udlbridge.analysis.hsic import unbiased_hsic
from udlbridge.analysis.inputs import KernelLike
from udlbridge.analysis.scaling import peak_of, scale_exponent
from udlbridge.analysis.sums import Statistics
from udlbridge.analysis.units import Unit
from udlbridge.kernels.factored import FactoredKernel

STRIP = 256 * 1024
"""Entries of a kernel that are permuted at a time: as float64 they stay in a core's cache."""


PRODUCTS = 4 * 1024 * 1024
"""Numbers of permuted features that are multiplied with a tile at a time."""


FEW = 32
"""Features up to which products with all permuted features are faster than permuting the entries of the kernel."""


@dataclass(frozen=True)
class Vectors:
    """Sums over rows, and the diagonal, of a kernel in the form in which it is multiplied; (n,) each."""

    rows: np.ndarray
    diagonal: np.ndarray


class PermutedProducts:
    """<A, PBP'> of two symmetric kernels for the identity and `count` permutations P, a part of the kernels at a time.

    Permutations are of all samples where B is in memory, or lazy with few features, and within bands of rows otherwise.

    Args:
        kernels: two of size (n, n). The one that is easier to permute is B.
        n, count, seed: samples, permutations, and what draws them.
        tile: as for `statistics`, which calls `add` with every part.
    """

    def __init__(self, kernels: Sequence[KernelLike], n: int, count: int, seed: int, tile: int | None) -> None:
        self._order = (0, 1) if _ease(kernels[1]) <= _ease(kernels[0]) else (1, 0)
        other = kernels[self._order[1]]
        self._whole: np.ndarray | None = None
        self._factor: _Factor | None = None
        blocks = [slice(0, n)]
        if isinstance(other, FactoredKernel) and math.isfinite(_ease(other)):
            self._factor = _centred_factor(other)
        elif math.isfinite(_ease(other)):
            self._whole = np.asarray(other)
            self._peak = peak_of(self._whole)
        else:
            blocks = [band.rows for band in bands_of(kernels, n, tile)]
        self.table = _table(np.random.default_rng(seed), count, blocks)
        # By rows and columns, so that they are added in one order, whichever thread had them first. Each with the
        # exponent of its unit: the largest entry, which gives the unit of all, is known after the last one.
        self._parts: dict[tuple[int, int], tuple[int, np.ndarray]] = {}

    def add(self, band: Band, part: Part, blocks: Sequence[np.ndarray], shifts: np.ndarray) -> None:
        """Take the products of this part, of its entries in the lower triangle alone."""
        first, second = (blocks[index] for index in self._order)
        shift, shift_other = (float(shifts[index]) for index in self._order)
        for rows, columns, weight in _lower(band, part):
            here = slice(rows.start - band.rows.start, rows.stop - band.rows.start)
            there = slice(columns.start - part.columns.start, columns.stop - part.columns.start)
            unit, raw = _unit(first[here, there], shift), first[here, there]
            if self._factor is not None:
                exponent = unit.exponent + self._factor.exponent
                found = _products_with_features(unit.block(raw), rows, columns, self._factor.phi, self.table)
                found *= weight
            else:
                whole = self._whole is not None
                source = self._whole if self._whole is not None else second[here, there]
                unit_other = _unit(source, shift_other, self._peak if whole else None)
                exponent = unit.exponent + unit_other.exponent
                corner = (0, 0) if whole else (rows.start, columns.start)
                permuting = _Permuting(source, corner, unit_other, self.table)
                found = _products_with_entries(unit.block(raw), rows, columns, weight, permuting)
            self._parts[rows.start, columns.start] = exponent, found

    def alignments(self, sums: Statistics, estimator: str) -> tuple[Float[np.ndarray, " permutations"], float]:
        """The alignments of the identity and of all permutations, and how far rounding may set them apart.

        Args:
            sums: those of the kernels, from the same pass.
            estimator: "biased" or "unbiased".
        """
        n = sums.rows.shape[1]
        first, second = (Vectors(sums.rows[index], sums.diagonals[index]) for index in self._order)
        exponents = [int(sums.exponents[index]) for index in self._order]
        if self._factor is not None:
            second = self._factor.vectors(exponents[1])
        inner = np.zeros(len(self.table))
        for _, (exponent, found) in sorted(self._parts.items()):
            inner += np.ldexp(found, exponent - sum(exponents))
        squares = np.diag(sums.products(True) if estimator == "biased" else unbiased_hsic(sums) * (n * (n - 3)))
        scale = float(np.sqrt(squares[0]) * np.sqrt(squares[1]))
        rounding = 1e-12 * float(np.sqrt(sums.inner[0, 0]) * np.sqrt(sums.inner[1, 1]))
        return _covariances(inner, first, second, self.table, estimator) / scale, rounding / scale


def _ease(kernel: KernelLike) -> float:
    """Operations for each entry of this kernel if its samples are the ones to be permuted; infinite on disk."""
    if isinstance(kernel, FactoredKernel):
        d = kernel.factor.shape[1]
        return float(d) if d <= FEW else math.inf
    return float(FEW) if isinstance(kernel, np.ndarray) and not isinstance(kernel, np.memmap) else math.inf


def _table(generator: np.random.Generator, count: int, blocks: Sequence[slice]) -> Int[np.ndarray, "permutations n"]:
    """The identity, and `count` permutations within blocks of samples."""
    table = np.tile(np.arange(blocks[-1].stop, dtype=np.int32), (count + 1, 1))
    for block in blocks:
        table[1:, block] = generator.permuted(table[1:, block], axis=1)
    return table


def _covariances(
    inner: np.ndarray, first: Vectors, second: Vectors, table: np.ndarray, estimator: str
) -> Float[np.ndarray, " permutations"]:
    """The centred products of one kernel with the permuted other, from their products <A, PBP'>; see `sums`, `hsic`."""
    n = table.shape[1]

    def crossed(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array([u @ v[permutation] for permutation in table])

    if estimator == "biased":
        spread = crossed(first.rows, second.rows)
        return inner - 2 / n * spread + float(first.rows.sum()) * float(second.rows.sum()) / n**2
    rows, other = first.rows - first.diagonal, second.rows - second.diagonal
    whole = float(rows.sum()) * float(other.sum()) / ((n - 1) * (n - 2))
    return inner - crossed(first.diagonal, second.diagonal) - 2 / (n - 2) * crossed(rows, other) + whole


@dataclass(frozen=True)
class _Factor:
    """Features `phi` (n, d) without their mean, whose kernel is in units of 2^`exponent`."""

    phi: np.ndarray
    exponent: int

    def vectors(self, exponent: int) -> Vectors:
        """What their kernel adds up to in units of 2^exponent; its rows to zero."""
        diagonal = np.einsum("id,id->i", self.phi, self.phi)
        return Vectors(np.zeros(len(diagonal)), np.ldexp(diagonal, self.exponent - exponent))


def _centred_factor(kernel: FactoredKernel) -> _Factor:
    """Taking the mean off features centres their kernel, which changes no alignment."""
    phi = kernel.factor.astype(np.float64)
    exponent = scale_exponent(float(np.abs(phi).max()))
    phi = np.ldexp(phi, -exponent)
    return _Factor(phi - phi.mean(axis=0), 2 * exponent)


def _unit(block: np.ndarray, shift: float, peak: float | None = None) -> Unit:
    """The unit of a block that loses a constant, from its largest entry."""
    exponent = scale_exponent(max(peak_of(block) if peak is None else peak, abs(shift)))
    return Unit(exponent, math.ldexp(shift, -exponent), np.empty(0))


def _lower(band: Band, part: Part) -> Iterator[tuple[slice, slice, int]]:
    """The lower triangle of a part in rectangles, and how often each counts; those on the diagonal are squares."""
    if band.triangle:
        yield band.rows, part.columns, part.weight
        return
    rows, columns = band.rows, part.columns
    stop = min(columns.stop, rows.start)
    for start in range(columns.start, stop, TILE):
        yield rows, slice(start, min(start + TILE, stop)), 2
    if columns.start <= rows.start < columns.stop:
        yield rows, rows, 1


def _products_with_features(
    block: np.ndarray, rows: slice, columns: slice, phi: np.ndarray, table: np.ndarray
) -> Float[np.ndarray, " permutations"]:
    """<A, P phi phi' P'> over a block of A, by products of it with the permuted features."""
    result = np.empty(len(table))
    together = max(1, PRODUCTS // (block.shape[1] * phi.shape[1]))
    for start in range(0, len(table), together):
        own = slice(start, start + together)
        right = phi[table[own, columns]].transpose(1, 0, 2)
        left = phi[table[own, rows]]
        image = (block @ right.reshape(len(right), -1)).reshape(len(block), *right.shape[1:])
        result[own] = np.einsum("pid,ipd->p", left, image)
    return result


@dataclass(frozen=True)
class _Permuting:
    """Entries of B, which begin at the `corner`, to be permuted: all of B, or a block that permutations stay within."""

    source: np.ndarray
    corner: tuple[int, int]
    unit: Unit
    table: np.ndarray


def _products_with_entries(
    block: np.ndarray, rows: slice, columns: slice, weight: int, permuting: _Permuting
) -> Float[np.ndarray, " permutations"]:
    """<A, PBP'> over a block of A, from permuted entries of B, strip by strip."""
    source, corner, table = permuting.source, permuting.corner, permuting.table
    result = np.zeros(len(table))
    height = max(1, STRIP // block.shape[1])
    for top in range(0, len(block), height):
        strip = weight * block[top : top + height]
        if weight == 1:  # on the diagonal: its lower triangle counts twice too
            strip = np.tril(strip, top - 1) * 2 + _diagonal_of(strip, top)
            strip = np.ascontiguousarray(strip[:, : top + len(strip)])
        here = slice(rows.start + top, rows.start + top + len(strip))
        there = slice(columns.start, columns.start + strip.shape[1])
        # In memory that is there already: a new page costs more than what is written to it.
        picked = np.empty((len(strip), source.shape[1]), source.dtype)
        values, wide = np.empty(strip.shape, source.dtype), np.empty(strip.shape)
        for index, permutation in enumerate(table):
            source.take(permutation[here] - corner[0], axis=0, out=picked, mode="clip")
            picked.take(permutation[there] - corner[1], axis=1, out=values, mode="clip")
            result[index] += np.vdot(strip, permuting.unit.block(values, wide))
    return result


def _diagonal_of(strip: np.ndarray, top: int) -> np.ndarray:
    """The entries of a strip on the diagonal of its tile, which begins `top` rows above it, and zeros."""
    return np.tril(np.triu(strip, top), top)
