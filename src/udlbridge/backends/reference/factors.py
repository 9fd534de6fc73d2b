"""The summands of a kernel in the NumPy engine, one per affine map, table or parameter, and their products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from udlbridge.backends.reduction import Reduction
from udlbridge.backends.reference.sites import Affine, Lookup, Site
from udlbridge.backends.rules import affine_rule, lookup_rule


@dataclass(frozen=True)
class Pairs:
    """sum over positions t, s of (a_it . a_js) (d_it . d_js): `a` (n, T, p), `d` (n, K, T, q).

    A 1 stands after every a_t for the bias.
    """

    a: np.ndarray
    d: np.ndarray


@dataclass(frozen=True)
class Gradients:
    """Inner products of per-sample gradients `g` (n, K, P)."""

    g: np.ndarray


@dataclass(frozen=True)
class Tokens:
    """sum over positions t, s with equal tokens of d_it . d_js: `tokens` (n, T), `d` (n, K, T, q)."""

    tokens: np.ndarray
    d: np.ndarray

    def row(self, token: int, samples: slice) -> tuple[np.ndarray, np.ndarray]:
        """Which of `samples` have the token, counted from the first, and their gradients of its row (m, K, q)."""
        here = self.tokens[samples] == token
        own = np.flatnonzero(here.any(axis=1))
        weights = here[own].astype(self.d.dtype)
        return own, np.einsum("it,iktq->ikq", weights, self.d[samples][own])


Factor = Pairs | Gradients | Tokens


@dataclass(frozen=True)
class Summand:
    """A factor, and the names of the parameters whose share of the kernel it holds; all of them are in one layer."""

    names: tuple[str, ...]
    factor: Factor


def summand(passes: Sequence[Site], reduction: Reduction, names: frozenset[str]) -> Summand | None:
    """What one affine map, table or parameter adds, from the K sites that it is, one per backward pass.

    `names` are the parameters that count; None if this one has none of them.
    """
    counted = tuple(name for name in passes[0].parameters if name in names)
    return Summand(counted, _factor(passes, reduction, counted)) if counted else None


def _factor(passes: Sequence[Site], reduction: Reduction, names: tuple[str, ...]) -> Factor:
    first = passes[0]
    if isinstance(first, Affine) and first.weight in names:
        n, groups, positions, inputs = first.a.shape
        if affine_rule(positions, inputs, first.d.shape[-1], groups, reduction) == "pairs":
            with_bias = first.bias in names
            a = np.concatenate([first.a[:, 0], np.ones((n, positions, 1), first.a.dtype)], axis=2)
            d = np.stack([one.d[:, 0] for one in passes if isinstance(one, Affine)], axis=1)
            return Pairs(a if with_bias else a[:, :, :-1], d)
    if isinstance(first, Lookup):
        _, positions, outputs = first.d.shape
        if lookup_rule(positions, first.rows, outputs, reduction) == "tokens":
            return Tokens(first.tokens, np.stack([one.d for one in passes if isinstance(one, Lookup)], axis=1))
    blocks = [one.gradients() for one in passes]
    flat = [np.stack([b[name].reshape(len(b[name]), -1) for b in blocks], axis=1) for name in names]
    return Gradients(np.concatenate(flat, axis=2))


def joined(parts: Sequence[list[Summand]], index: int) -> Summand:
    """Summand `index` of all samples, from those of one stretch after the other."""
    pieces = [part[index].factor for part in parts]
    names = [field.name for field in fields(pieces[0])]
    whole = type(pieces[0])(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))
    return Summand(parts[0][index].names, whole)


def product(reduction: Reduction, f: Factor, rows: slice, g: Factor, cols: slice) -> np.ndarray:
    """The summand of samples `rows` of one factor against `cols` of the other: (r, c, *trailing).

    Raises:
        TypeError: factors of two kinds.
    """
    if isinstance(f, Gradients) and isinstance(g, Gradients):
        return inner(reduction, f.g[rows], g.g[cols])
    if isinstance(f, Tokens) and isinstance(g, Tokens):
        return tokens_product(reduction, f, rows, g, cols)
    if not (isinstance(f, Pairs) and isinstance(g, Pairs)):
        raise TypeError(f"factors of different kinds: {type(f).__name__} and {type(g).__name__}")
    total = np.zeros((1, 1, *reduction.trailing), f.d.dtype)
    for t in range(f.a.shape[1]):
        for s in range(g.a.shape[1]):
            inputs = f.a[rows, t] @ g.a[cols, s].T
            errors = inner(reduction, f.d[rows, :, t], g.d[cols, :, s])
            total = total + inputs.reshape(inputs.shape + (1,) * len(reduction.trailing)) * errors
    return total


def tokens_product(reduction: Reduction, f: Tokens, rows: slice, g: Tokens, cols: slice) -> np.ndarray:
    """Token after token: the samples that have it on either side, and the inner products of their gradients."""
    total = np.zeros((rows.stop - rows.start, cols.stop - cols.start, *reduction.trailing), f.d.dtype)
    for token in np.intersect1d(f.tokens[rows], g.tokens[cols]).tolist():
        left, d = f.row(token, rows)
        right, e = g.row(token, cols)
        total[np.ix_(left, right)] += inner(reduction, d, e)
    return total


def inner(reduction: Reduction, d: np.ndarray, e: np.ndarray) -> np.ndarray:
    """<d_i, e_j> over the last axis for every pair of samples, reduced over outputs as asked: (r, c, *trailing)."""
    if reduction.name == "full":
        return np.einsum("iap,jbp->ijab", d, e, optimize=True)
    if reduction.name == "diagonal":
        return np.moveaxis(d.transpose(1, 0, 2) @ e.transpose(1, 2, 0), 0, -1)
    # One inner product over (output, parameter) together: this is the trace, or the one output that there is.
    return reduction.scale * (d.reshape(len(d), -1) @ e.reshape(len(e), -1).T)
