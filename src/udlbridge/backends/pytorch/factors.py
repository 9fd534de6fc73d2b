"""The summands of a kernel in torch: what is held of each site, and how two are multiplied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from udlbridge.backends.pytorch.products import errors_product, strip_rows
from udlbridge.backends.pytorch.sites import Affine
from udlbridge.backends.pytorch.tokens import Tokens, add_tokens
from udlbridge.backends.reduction import Reduction

BLOCK = 2**24
"""Largest number of entries of per-sample gradients that are formed at a time."""


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
    """sum over positions t, s of (a_it . a_js) (d_it . d_js): `a` (n, T, p), `d` (n, K, T, q)."""

    a: Tensor
    d: Tensor


@dataclass(frozen=True)
class Gradients:
    """Inner products of the per-sample gradients sum_t d_t a_t', which are formed a few outputs at a time.

    `x` is what the layer got, `d` (n, K, T, q) the errors, and `site` says how both make gradients. This is smaller
    than the gradients themselves where they have many parameters. `inputs` is p, 0 if the weight does not count.
    """

    x: Tensor
    d: Tensor
    site: Affine
    inputs: int
    bias: bool

    def block(self, samples: slice, k: int, outputs: slice) -> Tensor:
        """Gradients (samples, P) of cotangent `k` for the parameters of some outputs."""
        x, d = self.x[samples], self.d[samples, k, :, outputs]
        result = d.new_empty(len(d), d.shape[2], self.inputs + self.bias)
        # Windows of a convolution take many times the memory of x.
        step = max(1, BLOCK // (4 * d.shape[1] * max(self.inputs, 1)))
        for start in range(0, len(d), step):
            own = slice(start, start + step)
            if self.inputs and self.site.gradient is not None:
                result[own, :, : self.inputs] = self.site.gradient(x[own], d[own])
            elif self.inputs:
                result[own, :, : self.inputs] = d[own].transpose(1, 2) @ self.site.inputs(x[own])[:, 0]
        if self.bias:
            result[:, :, -1] = d.sum(1)
        return result.flatten(1)


AnyFactor = Factor | Pairs | Gradients | Tokens


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
) -> None:
    """target (r, c, *trailing) = or += the product of two factors of the same site.

    `lower`: both are the same samples, and what lies above the diagonal may be left undefined.
    """
    if isinstance(f, Factor) and isinstance(g, Factor):
        _add_factors(reduction, f, rows, g, cols, target, first=first)
        return
    if first:
        target.zero_()
    if isinstance(f, Pairs) and isinstance(g, Pairs):
        _add_pairs(reduction, f, rows, g, cols, target)
    elif isinstance(f, Gradients) and isinstance(g, Gradients):
        _add_gradients(reduction, f, rows, g, cols, target, lower)
    elif isinstance(f, Tokens) and isinstance(g, Tokens):
        add_tokens(reduction, f, rows, g, cols, target)
    else:
        raise TypeError(f"factors of different kinds: {type(f).__name__} and {type(g).__name__}")


def _add_factors(
    reduction: Reduction, f: Factor, rows: slice, g: Factor, cols: slice, target: Tensor, *, first: bool
) -> None:
    d, e = f.d[rows], g.d[cols]
    if f.a is None or g.a is None:
        errors_product(reduction, d, e, target, first)
        return
    pairs = f.a[rows] @ g.a[cols].T
    pairs = pairs.view(*pairs.shape, *[1] * len(reduction.trailing))
    if first:
        errors_product(reduction, d, e, target, True)
        target.mul_(pairs)
    else:
        scratch = torch.empty_like(target)
        errors_product(reduction, d, e, scratch, True)
        target.addcmul_(scratch, pairs)


def _add_pairs(reduction: Reduction, f: Pairs, rows: slice, g: Pairs, cols: slice, target: Tensor) -> None:
    a, b, d, e = f.a[rows], g.a[cols], f.d[rows], g.d[cols]
    scratch = torch.empty_like(target)
    inputs = target.new_empty(target.shape[:2])
    spread = inputs.view(*inputs.shape, *[1] * len(reduction.trailing))
    for t in range(a.shape[1]):
        left, own = a[:, t].contiguous(), d[:, :, t].contiguous()
        for s in range(b.shape[1]):
            torch.mm(left, b[:, s].T, out=inputs)
            errors_product(reduction, own, e[:, :, s], scratch, True)
            target.addcmul_(scratch, spread)


def _add_gradients(
    reduction: Reduction, f: Gradients, rows: slice, g: Gradients, cols: slice, target: Tensor, lower: bool
) -> None:
    """A few outputs at a time, so that each gradient is formed once; one cotangent at a time, but for "full"."""
    _, count, _, width = f.d.shape
    together = count if reduction.name == "full" else 1
    largest = max(rows.stop - rows.start, cols.stop - cols.start)
    step = max(1, BLOCK // (largest * together * (f.inputs + f.bias)))
    same = f is g and rows == cols
    for k in range(0, count, together):
        part = target[:, :, k : k + 1] if reduction.name == "diagonal" else target
        for start in range(0, width, step):
            outputs = slice(start, start + step)
            gradients = torch.stack([f.block(rows, one, outputs) for one in range(k, k + together)], dim=1)
            others = gradients
            if not same:
                others = torch.stack([g.block(cols, one, outputs) for one in range(k, k + together)], dim=1)
            for own in strip_rows(len(target), lower):
                end = own.stop if lower else len(others)
                errors_product(reduction, gradients[own], others[:end], part[own, :end], False)
