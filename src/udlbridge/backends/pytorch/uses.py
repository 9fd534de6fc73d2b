"""How a tensor made of parameters enters a network.

Each use says what samples give at it (`locator`), how errors d = d f / d z become a summand of the kernel, and the
per-sample gradients by the tensor that entered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from udlbridge.backends.pytorch.layouts import Layout
from udlbridge.backends.pytorch.norms import channel_gradients
from udlbridge.backends.pytorch.sites import Affine, Elementwise, Lookup, Site
from udlbridge.backends.pytorch.windows import Windows, is_wide

Shape = tuple[int, ...]


class Use(ABC):
    """A tensor W of shape `entered` enters a node, whose result z has the shape `result`.

    `locator`: a tensor whose axis of samples is that of z, counted from the front; None where the node kept none.
    """

    entered: Shape
    result: Shape
    locator: Tensor | None

    @property
    def kind(self) -> str:
        """What groups of uses are made by."""
        return type(self).__name__

    @abstractmethod
    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Site:
        """The site of a parameter that enters here alone, as it is or with its entries in another order."""

    @abstractmethod
    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """d f / d z as the site reads it, samples first."""

    def placed(self, d: Tensor, layout: Layout) -> Tensor:
        """d f / d z, samples first."""
        return self.errors(d, layout)

    @abstractmethod
    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """(n, *entered): per-sample gradients by W, from d f / d z."""


@dataclass(frozen=True)
class Rows(Use):
    """z = a W, or its transpose, for rows a (R, p): R has the samples; W is (p, q), or (q, p) if `outputs_first`."""

    entered: Shape
    result: Shape
    locator: Tensor
    outputs_first: bool = False

    def oriented(self, d: Tensor) -> Tensor:
        """d as rows (R, q)."""
        if d.ndim == 1:
            return d[:, None]
        return d.T if self.outputs_first else d

    def inputs(self, layout: Layout) -> Tensor:
        """(n, T, p)."""
        return layout.samples_first(self.locator)

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Affine:
        """Positions are rows."""
        return rows_site(name, bias, self.inputs(layout).to(dtype))

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, T, q)."""
        return layout.samples_first(self.oriented(d))

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """d' a or a' d."""
        a, e = self.inputs(layout).to(dtype), self.errors(d, layout).to(dtype)
        found = e.transpose(1, 2) @ a if self.outputs_first else a.transpose(1, 2) @ e
        return found.reshape(len(a), *self.entered)


def rows_site(name: str, bias: str | None, x: Tensor) -> Affine:
    """The site of an affine map of inputs (n, T, p)."""
    return Affine(name, bias, x, lambda a: a[:, None], lambda d: d[:, None], (1, *x.shape[1:]))


@dataclass(frozen=True)
class Convolved(Use):
    """A convolution of x (R, C, *space), or a transposed one, whose windows then go over z."""

    entered: Shape
    result: Shape
    locator: Tensor
    windows: Windows
    groups: int
    transposed: bool

    @property
    def kind(self) -> str:
        """A transposed one has its bias apart."""
        return f"{type(self).__name__}, transposed" if self.transposed else type(self).__name__

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Affine:
        """Positions are windows, also of several images of one sample."""
        x = layout.samples_first(self.locator).to(dtype)
        frames, (channels, *space) = x.shape[1], x.shape[2:]
        over = self.result[2:] if not self.transposed else tuple(space)
        direct = not self.transposed and frames == 1 and is_wide(channels, self.groups, over, self.windows.kernel)

        def gradient(a: Tensor, e: Tensor) -> Tensor:
            return self.windows.gradient(a[:, 0], e, over)

        inputs, errors = (self._positions, self._cut) if self.transposed else (self._cut, self._positions)
        width = channels // self.groups * (1 if self.transposed else prod(self.windows.kernel))
        extent = self.groups, frames * prod(over), width
        return Affine(name, bias, x, inputs, errors, extent, gradient if direct else None)

    def _cut(self, x: Tensor) -> Tensor:
        """(n, frames, C, *space) to windows (n, G, T, p)."""
        n, frames = x.shape[:2]
        found = self.windows.of(x.flatten(0, 1))
        return found.reshape(n, frames, self.groups, -1, found.shape[-1]).permute(0, 2, 1, 4, 3).flatten(2, 3)

    def _positions(self, x: Tensor) -> Tensor:
        """(n, frames, C, *space) to positions (n, G, T, C / G)."""
        n, frames = x.shape[:2]
        apart = x.reshape(n, frames, self.groups, x.shape[2] // self.groups, -1)
        return apart.permute(0, 2, 1, 4, 3).flatten(2, 3)

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, frames, C, *space)."""
        return layout.samples_first(d)

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Products of windows and positions."""
        site = self.site("", None, layout, dtype)
        a, e = site.inputs(site.x), site.errors(self.errors(d, layout).to(dtype))
        found = a.transpose(2, 3) @ e if self.transposed else e.transpose(2, 3) @ a
        return found.reshape(len(a), *self.entered)


@dataclass(frozen=True)
class Table(Use):
    """Rows of W (V, q) for the tokens of `locator`; `bag` says in which bag, `share` with what weight."""

    entered: Shape
    result: Shape
    locator: Tensor
    padding: int = -1
    bag: Tensor | None = None
    share: Tensor | None = None

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Lookup:
        """A table."""
        return Lookup(name, layout.samples_first(self.locator).flatten(1), self.entered[0])

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, T, q), zero where the padding token stands, whose row is not trained."""
        if self.bag is not None and self.share is not None:
            d = d[self.bag] * self.share[:, None].to(d.dtype)
        if self.padding >= 0:
            d = d.masked_fill((self.locator == self.padding)[..., None], 0.0)
        return layout.samples_first(d).flatten(1, -2)

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Errors added up at their rows."""
        e = self.errors(d, layout).to(dtype)
        tokens = layout.samples_first(self.locator).flatten(1)
        result = e.new_zeros(len(e), *self.entered)
        return result.scatter_add_(1, tokens[:, :, None].expand_as(e), e)


@dataclass(frozen=True)
class Scaled(Use):
    """z changes by `factor` times a change of W, which is spread over z: as a scale, a shift, or copies of W.

    `spread`: the shape of W among the axes of z. `factor` None is one. `sign`: another factor.
    """

    entered: Shape
    result: Shape
    locator: Tensor | None
    spread: Shape
    factor: Callable[[], Tensor] | None = None
    sign: float = 1.0

    @cached_property
    def _factor(self) -> Tensor | None:
        return None if self.factor is None else self.factor()

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Elementwise:
        """Per-sample gradients; `bias` is a shift of z that has the shape of W."""
        if bias is None:
            return Elementwise((name,), lambda d: (self.gradients(d, layout, dtype),))
        return Elementwise((name, bias), lambda d: self.with_bias(d, layout, dtype))

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """As they are: the factor comes first."""
        return d

    def placed(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, *made)."""
        return layout.samples_first(d)

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Errors times the factor, summed over the copies."""
        d = d.to(dtype)
        found = self._summed(d if self._factor is None else d * self._factor.to(dtype), layout)
        return found if self.sign == 1.0 else self.sign * found

    def with_bias(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Those of W, and of a shift like it."""
        return self.gradients(d, layout, dtype), self._summed(d.to(dtype), layout)

    def _summed(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, *entered): summed over the copies, which `repeat` puts side by side."""
        e = layout.samples_first(d)
        apart, repeated = [len(e)], []
        for made, length in zip(e.shape[1:], self.spread, strict=True):
            if made != length:
                repeated.append(len(apart))
                apart.append(made // length)
            apart.append(length)
        found = e.reshape(apart).sum(repeated) if repeated else e
        return found.reshape(len(e), *self.entered)


@dataclass(frozen=True, kw_only=True)
class ChannelScale(Scaled):
    """The scale of a norm of channels: `statistics` gives x (N, C, *space), and mean and scale (N, G) of its groups."""

    statistics: Callable[[], tuple[Tensor, Tensor, Tensor]]

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """By one look at both."""
        return self.with_bias(d, layout, dtype)[0]

    def with_bias(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """By one look, where samples are whole images."""
        if layout.axis != 0:
            return super().gradients(d, layout, dtype), self._summed(d.to(dtype), layout)
        found = channel_gradients(d.to(dtype), *(one.to(dtype) for one in self.statistics()))
        weight, bias = (layout.samples_first(one).sum(1) for one in found)
        return weight.reshape(len(weight), *self.entered), bias.reshape(len(bias), *self.entered)
