"""The alignments of one kernel with another whose samples are permuted, in one pass over tiles.

No permuted kernel is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from udlbridge.analysis.bands import Band, lower_bands
from udlbridge.analysis.hsic import unbiased_hsic
from udlbridge.analysis.inputs import KernelLike
from udlbridge.analysis.scaling import scale_exponent
from udlbridge.analysis.sums import Statistics
from udlbridge.analysis.units import Unit, units_of
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


def permuted_alignments(
    kernels: Sequence[KernelLike], sums: Statistics, count: int, seed: int, tile: int | None, estimator: str
) -> tuple[Float[np.ndarray, " permutations"], float]:
    """The alignments of the identity and of `count` permutations, and how far rounding may set them apart."""
    n = sums.rows.shape[1]
    units = units_of(sums)
    own = [Vectors(rows, diagonal) for rows, diagonal in zip(sums.rows, sums.diagonals, strict=True)]
    order = [0, 1] if _ease(kernels[1]) <= _ease(kernels[0]) else [1, 0]
    k, other = (kernels[index] for index in order)
    unit, unit_other = (units[index] for index in order)
    first, second = (own[index] for index in order)
    generator = np.random.default_rng(seed)
    if math.isfinite(_ease(other)):
        bands = lower_bands([k], n, tile)
        table = _table(generator, count, [slice(0, n)])
        if isinstance(other, FactoredKernel):
            phi, second = _centred_factor(other, unit_other)
            inner = _products_with_features(bands, unit, phi, table)
        else:
            inner = _products_with_entries(bands, unit, unit_other, table, np.asarray(other))
    else:
        bands = lower_bands([k, other], n, tile)
        table = _table(generator, count, [band.rows for band in bands])
        inner = _products_with_entries(bands, unit, unit_other, table, None)
    squares = np.diag(sums.products(True) if estimator == "biased" else unbiased_hsic(sums) * (n * (n - 3)))
    scale = float(np.sqrt(squares[0]) * np.sqrt(squares[1]))
    rounding = 1e-12 * float(np.sqrt(sums.inner[0, 0]) * np.sqrt(sums.inner[1, 1]))
    return _covariances(inner, first, second, table, estimator) / scale, rounding / scale


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


def _centred_factor(kernel: FactoredKernel, unit: Unit) -> tuple[Float[np.ndarray, "n d"], Vectors]:
    """Features without their mean, in the unit of the kernel, and what their kernel adds up to: its rows to zero.

    Taking the mean off them centres the kernel, which changes no alignment.
    """
    phi = kernel.factor.astype(np.float64)
    exponent = scale_exponent(float(np.abs(phi).max()))
    phi = np.ldexp(phi, -exponent)
    phi -= phi.mean(axis=0)
    phi *= 2.0 ** ((2 * exponent - unit.exponent) / 2)
    return phi, Vectors(np.zeros(len(phi)), np.einsum("id,id->i", phi, phi))


def _products_with_features(
    bands: Sequence[Band], unit: Unit, phi: np.ndarray, table: np.ndarray
) -> Float[np.ndarray, " permutations"]:
    """<A, P phi phi' P'> for all permutations, by products of the tiles of A with the permuted features."""
    result = np.zeros(len(table))
    for band in bands:
        for part in band.parts:
            block = unit.block(part.read()[0])
            together = max(1, PRODUCTS // (block.shape[1] * phi.shape[1]))
            for start in range(0, len(table), together):
                own = slice(start, start + together)
                right = phi[table[own, part.columns]].transpose(1, 0, 2)
                left = phi[table[own, band.rows]]
                image = (block @ right.reshape(len(right), -1)).reshape(len(block), *right.shape[1:])
                result[own] += part.weight * np.einsum("pid,ipd->p", left, image)
    return result


def _products_with_entries(
    bands: Sequence[Band], unit: Unit, unit_other: Unit, table: np.ndarray, whole: np.ndarray | None
) -> Float[np.ndarray, " permutations"]:
    """<A, PBP'> for all permutations, from permuted entries of B, strip by strip.

    B is all there (`whole`), or comes with the tiles of A; then permutations stay within the bands.
    """
    result = np.zeros(len(table))
    for band in bands:
        for part in band.parts:
            read = part.read()
            rows, columns = band.rows, part.columns
            block, source = unit.block(read[0]), read[1] if whole is None else whole
            # Where the entries of B for these rows and columns begin, if not all of them are there.
            corner = (0, 0) if whole is not None else (rows.start, columns.start)
            height = max(1, STRIP // block.shape[1])
            for top in range(0, len(block), height):
                strip = block[top : top + height].copy()
                if part.weight == 1:  # on the diagonal: its lower triangle counts twice too
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
                    result[index] += part.weight * np.vdot(strip, unit_other.block(values, wide))
    return result


def _diagonal_of(strip: np.ndarray, top: int) -> np.ndarray:
    """The entries of a strip on the diagonal of its tile, which begins `top` rows above it, and zeros."""
    return np.tril(np.triu(strip, top), top)
