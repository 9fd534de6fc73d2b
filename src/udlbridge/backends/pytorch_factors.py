"""The summands of a kernel in torch: what is kept for each place where parameters enter, and how two are multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from udlbridge.backends.base import KernelJob
from udlbridge.backends.pytorch_layers import Affine, Site
from udlbridge.reduction import Reduction
from udlbridge.rules import affine_rule

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


AnyFactor = Factor | Pairs | Gradients


class Collector(ABC):
    """Gathers one factor, a stretch of samples at a time."""

    @abstractmethod
    def begin(self, samples: slice, site: Site) -> None:
        """The forward pass of these samples came by `site`."""

    @abstractmethod
    def add(self, k: int, delta: Tensor) -> None:
        """`delta` is d f / d z of cotangent `k` for the samples that were begun last."""

    @abstractmethod
    def factor(self) -> AnyFactor:
        """The factor, when all samples have come by."""


def collector(job: KernelJob, site: Site, n: int, z: Tensor) -> Collector:
    """What gathers the cheapest exact factor of a site for `n` samples; `z` is the first tensor that came by."""
    names = set(job.parameters)
    if not isinstance(site, Affine):
        return _Flat(job, n, [name in names for name in site.names])
    weight, bias = site.weight in names, site.bias in names
    a, d = site.inputs(site.x[:1]), site.errors(z[:1])
    _, groups, positions, inputs = a.shape
    outputs, count = d.shape[-1], job.reduction.n_cotangents
    if weight and affine_rule(positions, inputs, outputs, groups, job.reduction) == "pairs":
        return _Pairs(n, count, bias)
    flat = count * outputs * (inputs * weight + bias)
    if groups == 1 and flat > count * positions * outputs + site.x[0].numel():
        return _Later(n, count, weight, bias)
    return _Flat(job, n, [weight, bias])


class _Flat(Collector):
    """Per-sample gradients (n, K, P)."""

    def __init__(self, job: KernelJob, n: int, chosen: list[bool]) -> None:
        self._count, self._n, self._chosen = job.reduction.n_cotangents, n, chosen
        self._samples = slice(0)
        self._site: Site | None = None
        self._inputs: Tensor | None = None
        self._g: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        self._samples, self._site = samples, site
        # One cut into positions serves all cotangents.
        needed = self._chosen[0] and isinstance(site, Affine) and site.gradient is None
        self._inputs = site.inputs(site.x) if needed and isinstance(site, Affine) else None

    def add(self, k: int, delta: Tensor) -> None:
        if isinstance(self._site, Affine):
            d = self._site.errors(delta)
            parts = [d.transpose(2, 3) @ self._inputs] if self._inputs is not None else []
            if self._chosen[0] and self._site.gradient is not None:
                parts = [self._site.gradient(self._site.x, delta)]
            parts += [d.sum(2)] if self._chosen[1] else []
        else:
            assert self._site is not None
            parts = [part for part, wanted in zip(self._site.gradients(delta), self._chosen, strict=True) if wanted]
        flat = [part.flatten(1) for part in parts]
        if self._g is None:
            self._g = delta.new_empty((self._n, self._count, sum(part.shape[1] for part in flat)))
        start = 0
        for part in flat:
            self._g[self._samples, k, start : start + part.shape[1]] = part
            start += part.shape[1]

    def factor(self) -> Factor:
        assert self._g is not None
        return Factor(None, self._g)


class _Pairs(Collector):
    """Inputs (n, T, p), with a column of ones for the bias, and errors (n, K, T, q)."""

    def __init__(self, n: int, count: int, bias: bool) -> None:
        self._n, self._count, self._bias = n, count, bias
        self._a: Tensor | None = None
        self._d: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Affine)
        self._samples, self._errors = samples, site.errors
        a = site.inputs(site.x)[:, 0]
        if self._a is None:
            self._a = a.new_empty((self._n, a.shape[1], a.shape[2] + self._bias))
        self._a[samples, :, : a.shape[2]] = a
        if self._bias:
            self._a[samples, :, -1] = 1

    def add(self, k: int, delta: Tensor) -> None:
        d = self._errors(delta)[:, 0]
        if self._d is None:
            self._d = d.new_empty((self._n, self._count, *d.shape[1:]))
        self._d[self._samples, k] = d

    def factor(self) -> Factor | Pairs:
        assert self._a is not None
        assert self._d is not None
        if self._a.shape[1] == 1:
            return Factor(self._a[:, 0], self._d[:, :, 0])
        return Pairs(self._a, self._d)


class _Later(Collector):
    """Inputs as they came and errors (n, K, T, q), for gradients that are too large to keep."""

    def __init__(self, n: int, count: int, weight: bool, bias: bool) -> None:
        self._n, self._count, self._weight, self._bias = n, count, weight, bias
        self._x: Tensor | None = None
        self._d: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Affine)
        self._samples, self._site = samples, site
        if self._x is None:
            self._x = site.x.new_empty((self._n, *site.x.shape[1:]))
        self._x[samples] = site.x

    def add(self, k: int, delta: Tensor) -> None:
        d = self._site.errors(delta)[:, 0]
        if self._d is None:
            self._d = d.new_empty((self._n, self._count, *d.shape[1:]))
        self._d[self._samples, k] = d

    def factor(self) -> Gradients:
        assert self._x is not None
        assert self._d is not None
        return Gradients(self._x, self._site.inputs, self._d, self._weight, self._bias)


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


def errors_product(reduction: Reduction, d: Tensor, e: Tensor, target: Tensor, overwrite: bool) -> None:
    """target = or += <d_i, e_j> for every pair of samples, reduced over outputs as asked."""
    r, k, _ = d.shape
    c = len(e)
    if reduction.name == "full":
        block = (d.flatten(0, 1) @ e.flatten(0, 1).T).view(r, k, c, k).transpose(1, 2)
        target.copy_(block) if overwrite else target.add_(block)
    elif reduction.name == "diagonal":
        block = torch.bmm(d.transpose(0, 1), e.permute(1, 2, 0)).permute(1, 2, 0)
        target.copy_(block) if overwrite else target.add_(block)
    else:
        # One inner product over (output, parameter) together: this is the trace, or the one output that there is.
        left, right = d.flatten(1), e.flatten(1).T
        torch.mm(left, right, out=target) if overwrite else target.addmm_(left, right)
