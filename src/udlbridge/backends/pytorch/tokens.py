"""The share of a table of rows for tokens (Embedding) in a kernel, from the tokens that samples have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from udlbridge.backends.pytorch.products import errors_product
from udlbridge.backends.reduction import Reduction
from udlbridge.backends.rules import gradients_cost

FEW = 2**15
"""Below so many numbers on both sides together, a matrix product costs less than the call of it."""

BLOCK = 2**22
"""Largest number of products of rare tokens that are formed at a time, and of numbers of a table that is."""

SMALL = 2**21
"""A token more costs less than looking at it by itself, where samples have no more products than this for each."""


@dataclass(frozen=True)
class Tokens:
    """Gradients `g` (entries, K, q) of the rows that were looked up, an entry for every token of every sample.

    `token` and `sample` (entries,) say of which row by which sample; sorted by token, then by sample, no pair twice.
    """

    token: np.ndarray
    sample: np.ndarray
    g: Tensor

    @staticmethod
    def gathered(tokens: Tensor, d: Tensor) -> Tokens:
        """From tokens (n, T) and the errors at them (n, K, T, q), added up where a sample has a token several times."""
        n, count, positions, width = d.shape
        samples = torch.arange(n, device=tokens.device)[:, None]
        keys, inverse = torch.unique(tokens * n + samples, return_inverse=True)
        g = d.new_zeros(len(keys), count, width)
        for k in range(count):
            g[:, k].index_add_(0, inverse.flatten(), d[:, k].reshape(n * positions, width))
        found = keys.cpu().numpy()
        return Tokens(found // n, found % n, g)

    def among(self, samples: slice) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Token, sample counted from the first of `samples`, and gradients of the entries of `samples`."""
        if samples.start <= self.sample.min() and samples.stop > self.sample.max():
            return self.token, self.sample - samples.start, self.g
        own = np.flatnonzero((self.sample >= samples.start) & (self.sample < samples.stop))
        return self.token[own], self.sample[own] - samples.start, self.g[torch.from_numpy(own).to(self.g.device)]


def add_tokens(reduction: Reduction, f: Tokens, rows: slice, g: Tokens, cols: slice, target: Tensor) -> None:
    """target (r, c, *trailing) += sum over tokens of the products of the gradients of their rows."""
    tokens, left, d = f.among(rows)
    others, right, e = g.among(cols)
    values, starts, counts = np.unique(tokens, return_index=True, return_counts=True)
    values_, starts_, counts_ = np.unique(others, return_index=True, return_counts=True)
    _, own, other = np.intersect1d(values, values_, assume_unique=True, return_indices=True)
    shared = values[own]
    r, c = target.shape[:2]
    per_token = r * c * gradients_cost(1, d.shape[2], reduction)
    if per_token <= SMALL and (r + c) * len(shared) * d[0].numel() <= BLOCK:
        table = _table(tokens, left, d, shared, r)
        same = f is g and rows == cols
        errors_product(reduction, table, table if same else _table(others, right, e, shared, c), target, False)
        return
    starts, counts, starts_, counts_ = starts[own], counts[own], starts_[other], counts_[other]
    rare = counts * counts_ * d[0].numel() <= FEW
    i, j = (torch.from_numpy(one).to(d.device) for one in (left, right))
    for start, m, start_, c in zip(starts[~rare], counts[~rare], starts_[~rare], counts_[~rare], strict=True):
        block = target.new_empty(m, c, *reduction.trailing)
        errors_product(reduction, d[start : start + m], e[start_ : start_ + c], block, True)
        # A sample has a token once, so no entry of the target is meant twice.
        target[i[start : start + m, None], j[start_ : start_ + c]] += block
    first, second = _pairs(starts[rare], counts[rare], starts_[rare], counts_[rare])
    step = max(1, BLOCK // d[0].numel())
    for at in range(0, len(first), step):
        one, two = (torch.from_numpy(index[at : at + step]).to(d.device) for index in (first, second))
        target.index_put_((i[one], j[two]), _inner(reduction, d[one], e[two]), accumulate=True)


def _table(tokens: np.ndarray, samples: np.ndarray, g: Tensor, rows: np.ndarray, n: int) -> Tensor:
    """Gradients (n, K, rows q) of some rows of the table, given in order, from those of the entries."""
    place = np.searchsorted(rows, tokens)
    found = np.flatnonzero(rows[np.minimum(place, len(rows) - 1)] == tokens) if len(rows) else place[:0]
    entry, sample, row = (torch.from_numpy(index).to(g.device) for index in (found, samples[found], place[found]))
    result = g.new_zeros(n, g.shape[1], len(rows), g.shape[2])
    result[sample, :, row] = g[entry]
    return result.flatten(2)


def _pairs(
    starts: np.ndarray, counts: np.ndarray, others: np.ndarray, other_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (entry, other entry) of two lists that are cut into runs, run by run."""
    sizes = counts * other_counts
    run = np.repeat(np.arange(len(sizes)), sizes)
    inside = np.arange(len(run)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return starts[run] + inside // other_counts[run], others[run] + inside % other_counts[run]


def _inner(reduction: Reduction, d: Tensor, e: Tensor) -> Tensor:
    """<d_i, e_i> of each pair (pairs, K, q) by itself, reduced over outputs as asked: (pairs, *trailing)."""
    if reduction.name == "full":
        return d @ e.transpose(1, 2)
    return (d * e).sum(2) if reduction.name == "diagonal" else (d * e).sum((1, 2))
