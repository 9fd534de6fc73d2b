"""How the summands of a kernel are gathered in torch, a stretch of samples and a cotangent at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from udlbridge.backends import sites as described
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.pytorch.factors import AnyFactor, Factor, Gradients, Pairs, TiedPairs
from udlbridge.backends.pytorch.sites import Affine, Elementwise, Lookup, Site, Tied
from udlbridge.backends.pytorch.tokens import Tokens
from udlbridge.backends.rules import affine_rule, lookup_rule


class Collector(ABC):
    """Gathers one factor, a stretch of samples at a time."""

    @abstractmethod
    def begin(self, samples: slice, site: Site) -> None:
        """The forward pass of these samples came by `site`."""

    @abstractmethod
    def add(self, k: int, delta: Any) -> None:
        """`delta` is d f / d z of cotangent `k` for the samples that were begun last, as the site reads it."""

    @abstractmethod
    def factor(self) -> AnyFactor:
        """The factor, when all samples have come by."""


def collector(job: KernelJob, site: Site, n: int, delta: Any) -> Collector:
    """What gathers the cheapest exact factor of a site for `n` samples; `delta` are its errors at some of them."""
    names = set(job.parameters)
    if isinstance(site, Lookup):
        rule = lookup_rule(site.tokens.shape[1], site.rows, delta.shape[-1], job.reduction)
        return (_Tokens if rule == "tokens" else _Table)(n, job.reduction.n_cotangents)
    if isinstance(site, Tied):
        seen = described.Tied(
            described.Lookup(site.lookup.tokens.shape[1], site.lookup.rows, delta[0].shape[-1]),
            described.Affine(
                delta[1].shape[1],
                site.affine.x.shape[2],
                delta[1].shape[2],
                1,
                delta[1].shape[2] * delta[0].shape[2],
                0,
            ),
        )
        return _Tied(n, job.reduction.n_cotangents, delta[0].shape[-1], pairs=seen.by_pairs(job.reduction))
    if not isinstance(site, Affine):
        return _Flat(job, n, [name in names for name in site.names])
    weight, bias = site.weight in names, site.bias in names
    groups, positions, inputs = site.extent
    outputs, count = site.errors(delta[:1]).shape[-1], job.reduction.n_cotangents
    pairs = weight and affine_rule(positions, inputs, outputs, groups, job.reduction) == "pairs"
    if pairs and positions == 1:
        return _Position(n, count, bias)
    flat = count * outputs * (inputs * weight + bias)
    if pairs or (weight and groups == 1 and flat > count * positions * outputs + site.x[0].numel()):
        return _Later(n, count, inputs, bias, pairs=pairs)
    return _Flat(job, n, [weight, bias])


class _Flat(Collector):
    """Per-sample gradients (n, K, P)."""

    def __init__(self, job: KernelJob, n: int, counted: list[bool]) -> None:
        self._count, self._n, self._counted = job.reduction.n_cotangents, n, counted
        self._samples = slice(0)
        self._site: Affine | Elementwise | None = None
        self._inputs: Tensor | None = None
        self._g: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Affine | Elementwise)
        self._samples, self._site = samples, site
        # One cut into positions serves all cotangents.
        needed = self._counted[0] and isinstance(site, Affine) and site.gradient is None
        self._inputs = site.inputs(site.x) if needed and isinstance(site, Affine) else None

    def add(self, k: int, delta: Any) -> None:
        if isinstance(self._site, Affine):
            d = self._site.errors(delta)
            parts = [d.transpose(2, 3) @ self._inputs] if self._inputs is not None else []
            if self._counted[0] and self._site.gradient is not None:
                parts = [self._site.gradient(self._site.x, d[:, 0])]
            parts += [d.sum(2)] if self._counted[1] else []
        else:
            assert self._site is not None
            parts = [part for part, wanted in zip(self._site.gradients(delta), self._counted, strict=True) if wanted]
        flat = [part.reshape(len(part), -1) for part in parts]
        if self._g is None:
            self._g = flat[0].new_empty((self._n, self._count, sum(part.shape[1] for part in flat)))
        start = 0
        for part in flat:
            self._g[self._samples, k, start : start + part.shape[1]] = part
            start += part.shape[1]
        if k + 1 == self._count:
            self._site = self._inputs = None  # they have served: others take their memory

    def factor(self) -> Factor:
        assert self._g is not None
        return Factor(None, self._g)


class _Position(Collector):
    """Inputs (n, p), with a one at the end for the bias, and errors (n, K, q), at the one position that there is."""

    def __init__(self, n: int, count: int, bias: bool) -> None:
        self._n, self._count, self._bias = n, count, bias
        self._a: Tensor | None = None
        self._d: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Affine)
        self._samples, self._errors = samples, site.errors
        a = site.inputs(site.x)[:, 0, 0]
        if self._a is None:
            self._a = a.new_empty((self._n, a.shape[1] + self._bias))
        self._a[samples, : a.shape[1]] = a
        if self._bias:
            self._a[samples, -1] = 1

    def add(self, k: int, delta: Tensor) -> None:
        d = self._errors(delta)[:, 0, 0]
        if self._d is None:
            self._d = d.new_empty((self._n, self._count, *d.shape[1:]))
        self._d[self._samples, k] = d

    def factor(self) -> Factor:
        assert self._a is not None
        assert self._d is not None
        return Factor(self._a, self._d)


class _Later(Collector):
    """Inputs as they came and errors (n, K, T, q): for pairs of positions, or gradients that are too large to keep.

    What came of all samples at once is not copied: nobody writes to it.

    `inputs` is p. The weight counts: the gradients of a bias are never that large.
    """

    def __init__(self, n: int, count: int, inputs: int, bias: bool, *, pairs: bool) -> None:
        self._n, self._count, self._inputs, self._bias, self._of_pairs = n, count, inputs, bias, pairs
        self._x: Tensor | None = None
        self._d: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Affine)
        self._samples, self._site = samples, site
        if len(site.x) == self._n and _has_memory(site.x):
            self._x = site.x
            return
        if self._x is None:
            self._x = site.x.new_empty((self._n, *site.x.shape[1:]))
        self._x[samples] = site.x

    def add(self, k: int, delta: Tensor) -> None:
        d = self._site.errors(delta)[:, 0]
        if len(d) == self._n and self._count == 1 and _has_memory(d):
            self._d = d[:, None]
            return
        if self._d is None:
            self._d = d.new_empty((self._n, self._count, *d.shape[1:]))
        self._d[self._samples, k] = d

    def factor(self) -> Gradients | Pairs:
        assert self._x is not None
        assert self._d is not None
        if self._of_pairs:
            return Pairs(self._x, self._d, self._site, self._bias)
        return Gradients(self._x, self._d, self._site, self._inputs, self._bias)


def _has_memory(tensor: Tensor) -> bool:
    """Whether it has memory of its own, and no more than its numbers take."""
    return tensor.untyped_storage().nbytes() == tensor.nbytes


class _Tokens(Collector):
    """Tokens (n, T) and errors (n, K, T, q)."""

    def __init__(self, n: int, count: int) -> None:
        self._n, self._count = n, count
        self._tokens: list[Tensor] = []
        self._d: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Lookup)
        self._samples, self._rows = samples, site.rows
        self._tokens.append(site.tokens)

    def add(self, k: int, delta: Tensor) -> None:
        if self._d is None:
            self._d = delta.new_empty((self._n, self._count, *delta.shape[1:]))
        self._d[self._samples, k] = delta

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Tokens (n, T) and errors."""
        assert self._d is not None
        return torch.cat(self._tokens), self._d

    def factor(self) -> AnyFactor:
        return Tokens.gathered(*self.gathered())


class _Tied(Collector):
    """What both uses of a tied table gather."""

    def __init__(self, n: int, count: int, width: int, *, pairs: bool) -> None:
        self._map, self._looked = _Later(n, count, width, False, pairs=pairs), _Tokens(n, count)

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Tied)
        self._map.begin(samples, site.affine)
        self._looked.begin(samples, site.lookup)

    def add(self, k: int, delta: tuple[Tensor, Tensor]) -> None:
        self._looked.add(k, delta[0])
        self._map.add(k, delta[1])

    def factor(self) -> AnyFactor:
        own, tokens, d = self._map.factor(), *self._looked.gathered()
        if isinstance(own, Gradients):
            return replace(own, looked=(tokens, d))
        return TiedPairs(own, Tokens.gathered(tokens, d), tokens, d)


class _Table(Collector):
    """Gradients of whole tables (n, K, rows q)."""

    def __init__(self, n: int, count: int) -> None:
        self._n, self._count = n, count
        self._g: Tensor | None = None

    def begin(self, samples: slice, site: Site) -> None:
        assert isinstance(site, Lookup)
        self._samples, self._site = samples, site

    def add(self, k: int, delta: Tensor) -> None:
        if self._g is None:
            self._g = delta.new_zeros((self._n, self._count, self._site.rows, delta.shape[-1]))
        rows = self._site.tokens[:, :, None].expand_as(delta)
        self._g[self._samples, k].scatter_add_(1, rows, delta)

    def factor(self) -> Factor:
        assert self._g is not None
        return Factor(None, self._g.flatten(2))
