"""The summands of a kernel in torch: what is kept of each place where parameters enter, and how two are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from udlbridge.backends.pytorch_products import errors_product
from udlbridge.backends.pytorch_tokens import Tokens, add_tokens
from udlbridge.reduction import Reduction

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
    """Inner products of the per-sample gradients sum_t d_t a_t', which are formed block by block when multiplied.

    `x` is what the layer got and `inputs` cuts it into positions (n, 1, T, p); `d` (n, K, T, q). This is smaller than
    the gradients themselves where they have many parameters.
    """

    x: Tensor
    inputs: Callable[[Tensor], Tensor]
    d: Tensor
    weight: bool
    bias: bool

    def block(self, samples: slice, k: int) -> Tensor:
        """Gradients of cotangent `k`, (samples, P)."""
        d = self.d[samples, k]
        parts = [d.transpose(1, 2) @ self.inputs(self.x[samples])[:, 0]] if self.weight else []
        parts += [d.sum(1)] if self.bias else []
        return parts[0].flatten(1) if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], dim=1)

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        inputs = self.inputs(self.x[:1]).shape[-1] if self.weight else 0
        return self.d.shape[-1] * (inputs + self.bias)


AnyFactor = Factor | Pairs | Gradients | Tokens


@dataclass(frozen=True)
class Summand:
    """A factor, and the names of the parameters whose share of the kernel it holds; all of them are in one layer."""

    names: tuple[str, ...]
    factor: AnyFactor


def add_product(
    reduction: Reduction, f: AnyFactor, rows: slice, g: AnyFactor, cols: slice, target: Tensor, *, first: bool
) -> None:
    """target (r, c, *trailing) = or += the product of two factors of the same place."""
    if isinstance(f, Factor) and isinstance(g, Factor):
        _add_factors(reduction, f, rows, g, cols, target, first=first)
        return
    if first:
        target.zero_()
    if isinstance(f, Pairs) and isinstance(g, Pairs):
        _add_pairs(reduction, f, rows, g, cols, target)
    elif isinstance(f, Gradients) and isinstance(g, Gradients):
        _add_gradients(reduction, f, rows, g, cols, target)
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


def _add_gradients(reduction: Reduction, f: Gradients, rows: slice, g: Gradients, cols: slice, target: Tensor) -> None:
    """One cotangent at a time, but for "full", which needs every pair of them; in blocks of bounded size."""
    count = f.d.shape[1]
    together = count if reduction.name == "full" else 1
    step = max(1, BLOCK // (f.size * together))
    same = f is g
    for k in range(0, count, together):
        ks = range(k, k + together)
        for i in range(rows.start, rows.stop, step):
            left = slice(i, min(i + step, rows.stop))
            gradients = torch.stack([f.block(left, one) for one in ks], dim=1)
            for j in range(cols.start, cols.stop, step):
                right = slice(j, min(j + step, cols.stop))
                if same and right == left:
                    others = gradients
                else:
                    others = torch.stack([g.block(right, one) for one in ks], dim=1)
                part = target[left.start - rows.start : left.stop - rows.start]
                part = part[:, right.start - cols.start : right.stop - cols.start]
                if reduction.name == "diagonal":
                    part[:, :, k] += gradients[:, 0] @ others[:, 0].T
                elif reduction.name == "full":
                    errors_product(reduction, gradients, others, part, False)
                else:
                    part += gradients[:, 0] @ others[:, 0].T
