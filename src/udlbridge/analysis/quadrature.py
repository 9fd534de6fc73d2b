"""Functions of a symmetric matrix by Lanczos: applied to vectors, and as quadratic forms with nodes and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal

SETTLED = 1e-10
"""Relative change of a product with a function of the matrix at which no more steps are taken."""

EVERY = 10
"""Steps between two questions whether the steps suffice."""

Function = Callable[[np.ndarray], np.ndarray]
"""f of eigenvalues, entry by entry."""


@dataclass(frozen=True, eq=False)
class Krylov:
    """What Lanczos found from one vector v in s steps: a tridiagonal matrix, in a basis of s rows.

    `closed`: the space is closed under the matrix, and so holds all of f(A) v for every f.
    """

    diagonal: Float[np.ndarray, " s"]
    off: Float[np.ndarray, " s-1"]
    basis: Float[np.ndarray, "s n"]
    length: float
    closed: bool

    def quadrature(self, count: int | None = None) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
        """Nodes (the Ritz values, ascending) and weights: v'f(A)v = |v|^2 sum_i weights_i f(nodes_i).

        Exact for polynomials of degree 2 c - 1; from the first `count` steps, or from all.
        """
        count = len(self.diagonal) if count is None else count
        values, vectors = eigh_tridiagonal(self.diagonal[:count], self.off[: count - 1])
        return values, vectors[0] ** 2

    def applied(self, function: Function) -> Float[np.ndarray, " n"]:
        """f(A) v."""
        return self.length * (self.basis.T @ _coefficients(self.diagonal, self.off, function))

    def change(self, function: Function) -> float:
        """How much the last `EVERY` steps changed f(A) v, relative to |v|; 0 where no more could."""
        return 0.0 if self.closed else _change(self.diagonal, self.off, function)[0]


def _coefficients(diagonal: np.ndarray, off: np.ndarray, function: Function) -> Float[np.ndarray, " s"]:
    """f(T) e_1."""
    values, vectors = eigh_tridiagonal(diagonal, off)
    return np.asarray(vectors @ (function(values) * vectors[0]))


def _change(diagonal: np.ndarray, off: np.ndarray, function: Function) -> tuple[float, float]:
    """How much the last steps changed f(T) e_1, and how long it is."""
    whole = _coefficients(diagonal, off, function)
    before = max(1, len(diagonal) - EVERY)
    rest = whole.copy()
    rest[:before] -= _coefficients(diagonal[:before], off[: before - 1], function)
    return float(np.linalg.norm(rest)), float(np.linalg.norm(whole))


def krylov_spaces(
    matrix: Any, vectors: Float[np.ndarray, "n m"], steps: int, function: Function | None = None
) -> list[Krylov]:
    """The Krylov spaces of several vectors, with one product of the matrix with a block of vectors for each step.

    Vectors are orthogonalised in full. They take 8 n m bytes for each step.

    Args:
        matrix: symmetric, with `@` of blocks of vectors (n, m), of a size whose squares can be summed.
        vectors: where to start.
        steps: how many at most.
        function: f; no more steps are taken when f(A) v has settled for all vectors. None takes them all.

    Source: Golub, Meurant, Matrices, Moments and Quadrature (2010), chapter 4.
    """
    n, m = vectors.shape
    steps = min(steps, n)
    lengths = np.linalg.norm(vectors, axis=0)
    current = vectors / np.where(lengths > 0, lengths, 1.0)
    bases = np.zeros((m, steps, n))  # pages are touched, and so take memory, only when they come
    diagonal, off = np.zeros((m, steps)), np.zeros((m, steps))
    ends, closed = np.zeros(m, dtype=int), np.zeros(m, dtype=bool)
    for step in range(steps):
        image = np.asarray(matrix @ current)
        following = np.zeros_like(current)
        for index in np.flatnonzero(~closed):
            bases[index, step] = current[:, index]
            basis, own = bases[index, : step + 1], image[:, index]
            diagonal[index, step] = basis[step] @ own
            for _ in range(2):
                own = own - basis.T @ (basis @ own)
            off[index, step] = np.linalg.norm(own)
            ends[index] = step + 1
            scale = np.abs(diagonal[index, : step + 1]).max() + off[index, : step + 1].max()
            closed[index] = off[index, step] <= np.sqrt(n) * np.finfo(np.float64).eps * scale
            if not closed[index]:
                following[:, index] = own / off[index, step]
        current = following
        if closed.all() or (
            function is not None
            and (step + 1) % EVERY == 0
            and _settled([(diagonal[i, :end], off[i, : end - 1]) for i, end in enumerate(ends)], function)
        ):
            break
    return [
        Krylov(diagonal[i, :end], off[i, : end - 1], bases[i, :end], float(lengths[i]), bool(closed[i]))
        for i, end in enumerate(ends)
    ]


def _settled(tridiagonals: Sequence[tuple[np.ndarray, np.ndarray]], function: Function) -> bool:
    changes, sizes = zip(*(_change(*tridiagonal, function) for tridiagonal in tridiagonals), strict=True)
    return bool(max(changes) <= SETTLED * max(sizes))


class FunctionOf:
    """f(A), with `@`: a product with it takes many with A, until they change it no more.

    Args:
        matrix: A, as for `krylov_spaces`.
        function: f, of an array of eigenvalues.
        steps: how many products at most.

    `change` is how much the last steps changed a product, relative to the vector, at most; `lowest` and `highest` are
    the smallest and the largest Ritz value, and `products` is how many were taken with A.
    """

    def __init__(self, matrix: Any, function: Function, steps: int) -> None:
        self._matrix, self._function, self._steps = matrix, function, steps
        self.change, self.products = 0.0, 0
        self.lowest, self.highest = np.inf, -np.inf

    def __matmul__(self, vectors: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        spaces = krylov_spaces(self._matrix, vectors, self._steps, self._function)
        self.change = max(self.change, *(space.change(self._function) for space in spaces))
        nodes = [space.quadrature()[0] for space in spaces]
        self.lowest = min(self.lowest, *(float(own[0]) for own in nodes))
        self.highest = max(self.highest, *(float(own[-1]) for own in nodes))
        self.products += vectors.shape[1] * max(len(space.diagonal) for space in spaces)
        return np.stack([space.applied(self._function) for space in spaces], axis=1)
