"""The summands of a kernel in torch: what is held of each site, and how two are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from udlbridge.backends.pytorch import FORMED_NUMBERS
from udlbridge.backends.pytorch.products import errors_product, strip_rows
from udlbridge.backends.pytorch.sites import Affine
from udlbridge.backends.pytorch.tokens import Tokens, add_tokens
from udlbridge.backends.reduction import Reduction
from udlbridge.backends.rules import tile_rule

BLOCK, BLOCK_ON_GPU = FORMED_NUMBERS, 2**27
"""Largest number of entries of per-sample gradients that are formed at a time; a GPU is not busy with fewer."""

ALIGNED = 8
"""Outputs are taken by multiples of so many: convolutions of others are several times slower."""

CACHED, CACHED_ON_GPU = 2**19, 2**25
"""Number of products of positions that are formed at a time: as many as the cache holds, or keep a GPU busy."""


@dataclass(frozen=True)
class Factor:
    """One summand of the kernel: (`a` a') * (`d` d'), elementwise over pairs of samples.

    `a` (n, p) is the layer's input, with a column of ones for the bias; `d` (n, K, q) its backpropagated errors. `a` is
    None where `d` (n, K, P) holds per-sample gradients.
    """

    a: Tensor | None
    d: Tensor


@dataclass(frozen=True)
class Pairs:
    """sum over positions t, s of (a_it . a_js) (d_it . d_js): `d` (n, K, T, q), and a (n, T, p) is cut from `x`.

    `x` is what the layer got, and `bias` says that its bias counts too: a then ends with a one.
    """

    x: Tensor
    d: Tensor
    site: Affine
    bias: bool

    def inputs(self, samples: slice) -> Tensor:
        """(samples, T, p)."""
        a = self.site.inputs(self.x[samples])[:, 0]
        return torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2) if self.bias else a

    def cut(self, samples: slice) -> Callable[[slice], Tensor]:
        """The inputs of a part of some samples: cut once for all parts, where those of all are few."""
        first = self.inputs(slice(samples.start, samples.start + 1))
        if first[0].numel() * (samples.stop - samples.start) > _block(first):
            return lambda part: self.inputs(_within(samples, part))
        every = self.inputs(samples)
        return lambda part: every[part]


@dataclass(frozen=True)
class Gradients:
    """Inner products of the per-sample gradients sum_t d_t a_t', which are formed a few outputs at a time.

    `x` is what the layer got, `d` (n, K, T, q) the errors, and `site` says how both make gradients. This is smaller
    than the gradients themselves where they have many parameters. `inputs` is p; `bias` says that the bias counts too.
    `looked`: where outputs are rows of a table that is looked up too, tokens (n, T) and errors at them (n, K, T, p).
    """

    x: Tensor
    d: Tensor
    site: Affine
    inputs: int
    bias: bool
    looked: tuple[Tensor, Tensor] | None = None

    def as_pairs(self) -> Pairs:
        """The same summand by pairs of positions, if no table is looked up."""
        return Pairs(self.x, self.d, self.site, self.bias)

    def block(self, samples: slice, k: int, outputs: slice) -> Tensor:
        """Gradients (samples, P) of cotangent `k` by the weights of some outputs."""
        x, d = self.x[samples], self.d[samples, k, :, outputs]
        # Windows of a convolution take many times the memory of x, where it has to cut them.
        step = len(d) if self.site.gradient is not None else max(1, _block(d) // (4 * d.shape[1] * self.inputs))
        if step >= len(d):
            result = self._by_weight(x, d)
        else:
            result = d.new_empty(len(d), d.shape[2], self.inputs)
            for start in range(0, len(d), step):
                own = slice(start, start + step)
                result[own] = self._by_weight(x[own], d[own])
        if self.looked is not None:
            tokens, errors = self.looked[0][samples], self.looked[1][samples, k]
            own_rows = (tokens >= outputs.start) & (tokens < outputs.stop)
            sample, position = own_rows.nonzero(as_tuple=True)
            entries = (sample, tokens[sample, position] - outputs.start)
            result.index_put_(entries, errors[sample, position], accumulate=True)
        return result.flatten(1)

    def _by_weight(self, x: Tensor, d: Tensor) -> Tensor:
        """(n, q, p)."""
        if self.site.gradient is not None:
            return self.site.gradient(x, d)
        return d.transpose(1, 2) @ self.site.inputs(x)[:, 0]


@dataclass(frozen=True)
class TiedPairs:
    """A table that is looked up, `lookups`, and an affine map too, `map`: the products of the sums of their gradients.

    `tokens` (n, T) and `d` (n, K, T, q) are the lookups one by one, for what they have with the map.
    """

    map: Pairs
    lookups: Tokens
    tokens: Tensor
    d: Tensor


AnyFactor = Factor | Pairs | Gradients | Tokens | TiedPairs


@dataclass(frozen=True)
class Summand:
    """A factor, and the names of the parameters whose share of the kernel it holds; all of them are in one layer."""

    names: tuple[str, ...]
    factor: AnyFactor


def add_product(
    reduction: Reduction,
    f: AnyFactor,
    rows: slice,
    g: AnyFactor,
    cols: slice,
    target: Tensor,
    *,
    first: bool,
    lower: bool = False,
    scratch: tuple[Tensor, Tensor] | None = None,
) -> None:
    """target (r, c, *trailing) = or += the product of two factors of the same site.

    `lower`: both are the same samples, and what lies above the diagonal may be left undefined. `scratch`: memory for
    r c numbers, and for as many as the target has, which is not asked for anew each time.

    Raises:
        TypeError: factors of two kinds.
    """
    if isinstance(f, Factor) and isinstance(g, Factor):
        _add_factors(reduction, f, rows, g, cols, target, first=first, scratch=scratch)
        return
    if first:
        target.zero_()
    if isinstance(f, Pairs) and isinstance(g, Pairs):
        _add_pairs(reduction, f, rows, g, cols, target, lower)
    elif isinstance(f, Gradients) and isinstance(g, Gradients):
        if _are_few(reduction, f, rows, g, cols, lower):
            left = f.as_pairs()
            _add_pairs(reduction, left, rows, left if f is g else g.as_pairs(), cols, target, lower)
        else:
            _add_gradients(reduction, f, rows, g, cols, target, lower)
    elif isinstance(f, Tokens) and isinstance(g, Tokens):
        add_tokens(reduction, f, rows, g, cols, target)
    elif isinstance(f, TiedPairs) and isinstance(g, TiedPairs):
        _add_pairs(reduction, f.map, rows, g.map, cols, target, lower)
        add_tokens(reduction, f.lookups, rows, g.lookups, cols, target)
        _add_crossed(reduction, f, rows, g, cols, target)
        _add_crossed(reduction, g, cols, f, rows, _transposed(target))
    else:
        raise TypeError(f"factors of different kinds: {type(f).__name__} and {type(g).__name__}")


def _add_factors(
    reduction: Reduction,
    f: Factor,
    rows: slice,
    g: Factor,
    cols: slice,
    target: Tensor,
    *,
    first: bool,
    scratch: tuple[Tensor, Tensor] | None,
) -> None:
    d, e = f.d[rows], g.d[cols]
    if f.a is None or g.a is None:
        errors_product(reduction, d, e, target, first)
        return
    if scratch is None:
        scratch = target.new_empty(target.shape[0] * target.shape[1]), target.new_empty(target.numel())
    pairs = scratch[0][: len(d) * len(e)].view(len(d), len(e))
    torch.mm(f.a[rows], g.a[cols].T, out=pairs)
    pairs = pairs.view(*pairs.shape, *[1] * len(reduction.trailing))
    if first:
        errors_product(reduction, d, e, target, True)
        target.mul_(pairs)
    else:
        product = scratch[1][: target.numel()].view(target.shape)
        errors_product(reduction, d, e, product, True)
        target.addcmul_(product, pairs)


def _are_few(reduction: Reduction, f: Gradients, rows: slice, g: Gradients, cols: slice, lower: bool) -> bool:
    """Whether the samples of a tile are so few that their pairs of positions cost less than forming gradients."""
    r, c = rows.stop - rows.start, cols.stop - cols.start
    formed = r if f is g and rows == cols else r + c
    _, _, positions, outputs = f.d.shape
    rule = tile_rule(positions, f.inputs, outputs, (r, c), formed, reduction, lower=lower)
    return f.looked is None and rule == "pairs"


def _add_pairs(reduction: Reduction, f: Pairs, rows: slice, g: Pairs, cols: slice, target: Tensor, lower: bool) -> None:
    """Some positions of the rows against all positions of some columns, as many as the cache holds."""
    positions, trailing = f.d.shape[2], reduction.trailing
    left = f.cut(rows)
    right = left if f is g and rows == cols else g.cut(cols)
    for own in strip_rows(len(target), lower, positions):
        a, d = left(own), f.d[_within(rows, own)]
        end = own.stop if lower else cols.stop - cols.start
        cached = (CACHED_ON_GPU if a.is_cuda else CACHED) // (len(a) * positions * prod(trailing))
        # Windows of a convolution take many times the memory of what they are cut from.
        step = max(1, min(cached, end, _block(d) // a[0].numel()))
        together = max(1, min(cached // step, positions))
        for start in range(0, end, step):
            other = slice(start, min(start + step, end))
            b, e = right(other), g.d[_within(cols, other)]
            count = len(b)
            b, e = b.flatten(0, 1), e.transpose(1, 2).flatten(0, 1)
            for t in range(0, positions, together):
                own_a, own_d = a[:, t : t + together], d[:, :, t : t + together].transpose(1, 2)
                pairs = own_a.flatten(0, 1) @ b.T
                scratch = target.new_empty(len(pairs), len(b), *trailing)
                errors_product(reduction, own_d.flatten(0, 1), e, scratch, True)
                scratch.mul_(pairs.view(*pairs.shape, *[1] * len(trailing)))
                target[own, other] += scratch.view(len(a), -1, count, positions, *trailing).sum((1, 3))


def _add_crossed(reduction: Reduction, f: TiedPairs, rows: slice, g: TiedPairs, cols: slice, target: Tensor) -> None:
    """target += <gradient by the lookups of f, gradient by the map of g>, a sample of f after the other.

    The map has the gradient sum_s e_s a_s', of which a lookup at position t sees the row of its token: with errors d_t
    there, sum over t, s of e_s[token_t] (d_t . a_s).
    """
    a, e = g.map.inputs(cols), g.map.d[cols]
    (count, positions, _), width = e.shape[1:], a.shape[-1]
    for row, (tokens, d) in enumerate(zip(f.tokens[rows], f.d[rows], strict=True)):
        inner = (d.reshape(-1, width) @ a.reshape(-1, width).T).view(count, len(tokens), len(a), positions)
        seen = e[..., tokens]
        if reduction.name == "full":
            target[row] += torch.einsum("ktcs,clst->ckl", inner, seen)
        elif reduction.name == "diagonal":
            target[row] += torch.einsum("ktcs,ckst->ck", inner, seen)
        else:
            target[row] += torch.einsum("ktcs,ckst->c", inner, seen)


def _transposed(target: Tensor) -> Tensor:
    """A rectangle (r, c, ...) seen from the other side: outputs of a full kernel change sides with the samples."""
    swapped = target.transpose(0, 1)
    return swapped.transpose(2, 3) if target.ndim == 4 else swapped


def _stacked(blocks: list[Tensor]) -> Tensor:
    """(n, K, P) from K of (n, P); without a copy for one."""
    return blocks[0][:, None] if len(blocks) == 1 else torch.stack(blocks, dim=1)


def _block(like: Tensor) -> int:
    return BLOCK_ON_GPU if like.is_cuda else BLOCK


def _within(samples: slice, part: slice) -> slice:
    """A part of some samples, counted from the first of them."""
    return slice(samples.start + part.start, samples.start + part.stop)


def _add_gradients(
    reduction: Reduction, f: Gradients, rows: slice, g: Gradients, cols: slice, target: Tensor, lower: bool
) -> None:
    """A few outputs at a time, so that each gradient is formed once; one cotangent at a time, but for "full"."""
    _, count, _, width = f.d.shape
    together = count if reduction.name == "full" else 1
    largest = max(rows.stop - rows.start, cols.stop - cols.start)
    step = max(ALIGNED, _block(f.d) // (largest * together * f.inputs) // ALIGNED * ALIGNED)
    same = f is g and rows == cols
    for k in range(0, count, together):
        part = target[:, :, k : k + 1] if reduction.name == "diagonal" else target
        for start in range(0, width, step):
            outputs = slice(start, start + step)
            each = range(k, k + together)
            gradients = _stacked([f.block(rows, one, outputs) for one in each])
            others = gradients if same else _stacked([g.block(cols, one, outputs) for one in each])
            for own in strip_rows(len(target), lower):
                end = own.stop if lower else len(others)
                errors_product(reduction, gradients[own], others[:end], part[own, :end], False)
    if f.bias:
        sums, others = f.d[rows].sum(2), g.d[cols].sum(2)
        for own in strip_rows(len(target), lower):
            end = own.stop if lower else len(others)
            errors_product(reduction, sums[own], others[:end], target[own, :end], False)
