"""How a tensor made of parameters enters a network, read from the node of autograd's graph where it does.

Each use says what samples give at it (`locator`), how errors d = d f / d z become a summand of the kernel, and the
per-sample gradients by the tensor that entered. Nodes that are not in `RULES` have no use: their parameters are
differentiated sample by sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from udlbridge.backends.pytorch.layouts import Layout
from udlbridge.backends.pytorch.sites import Affine, Elementwise, Lookup, Site
from udlbridge.backends.pytorch.windows import Windows, is_wide

Shape = tuple[int, ...]


class Use(ABC):
    """One place where a tensor W of shape `entered` enters, and makes z of shape `made`.

    `locator`: a tensor whose axis of samples is that of z, counted from the front; None where the node kept none.
    """

    entered: Shape
    made: Shape
    locator: Tensor | None

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
    made: Shape
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
    return Affine(name, bias, x, lambda a: a[:, None], lambda d: d[:, None])


@dataclass(frozen=True)
class Convolved(Use):
    """A convolution of x (R, C, *space), or a transposed one, whose windows then go over z."""

    entered: Shape
    made: Shape
    locator: Tensor
    windows: Windows
    groups: int
    transposed: bool

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Affine:
        """Positions are windows, also of several images of one sample."""
        x = layout.samples_first(self.locator).to(dtype)
        frames, (channels, *space) = x.shape[1], x.shape[2:]
        over = self.made[2:] if not self.transposed else tuple(space)
        direct = not self.transposed and frames == 1 and is_wide(channels, self.groups, over, self.windows.kernel)

        def gradient(a: Tensor, e: Tensor) -> Tensor:
            return self.windows.gradient(a[:, 0], e, over)

        inputs, errors = (self._places, self._cut) if self.transposed else (self._cut, self._places)
        return Affine(name, bias, x, inputs, errors, gradient if direct else None)

    def _cut(self, x: Tensor) -> Tensor:
        """(n, frames, C, *space) to windows (n, G, T, p)."""
        n, frames = x.shape[:2]
        found = self.windows.of(x.flatten(0, 1))
        return found.reshape(n, frames, self.groups, -1, found.shape[-1]).permute(0, 2, 1, 4, 3).flatten(2, 3)

    def _places(self, x: Tensor) -> Tensor:
        """(n, frames, C, *space) to places (n, G, T, C / G)."""
        n, frames = x.shape[:2]
        apart = x.reshape(n, frames, self.groups, x.shape[2] // self.groups, -1)
        return apart.permute(0, 2, 1, 4, 3).flatten(2, 3)

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, frames, C, *space)."""
        return layout.samples_first(d)

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Products of windows and places."""
        site = self.site("", None, layout, dtype)
        a, e = site.inputs(site.x), site.errors(self.errors(d, layout).to(dtype))
        found = a.transpose(2, 3) @ e if self.transposed else e.transpose(2, 3) @ a
        return found.reshape(len(a), *self.entered)


@dataclass(frozen=True)
class Table(Use):
    """Rows of W (V, q) at the places of `locator`, tokens; `bag` says in which bag, `share` with what weight."""

    entered: Shape
    made: Shape
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
    made: Shape
    locator: Tensor | None
    spread: Shape
    factor: Callable[[], Tensor] | None = None
    sign: float = 1.0

    @cached_property
    def _factor(self) -> Tensor | None:
        return None if self.factor is None else self.factor()

    def site(self, name: str, bias: str | None, layout: Layout, dtype: torch.dtype) -> Elementwise:
        """Per-sample gradients."""
        return Elementwise((name,), lambda d: (self.gradients(d, layout, dtype),))

    def errors(self, d: Tensor, layout: Layout) -> Tensor:
        """As they are: the factor comes first."""
        return d

    def placed(self, d: Tensor, layout: Layout) -> Tensor:
        """(n, *made)."""
        return layout.samples_first(d)

    def gradients(self, d: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Errors times the factor, summed over the copies."""
        d = d.to(dtype)
        if self._factor is not None:
            d = d * self._factor.to(dtype)
        e = layout.samples_first(d)
        return self.sign * _summed(e, self.spread).reshape(len(e), *self.entered)


def _summed(e: Tensor, spread: Shape) -> Tensor:
    """(n, *made) summed over the repetitions of a tensor of shape `spread` in it, which `repeat` puts side by side."""
    for axis, length in enumerate(spread, start=1):
        if e.shape[axis] != length:
            e = e.reshape(*e.shape[:axis], -1, length, *e.shape[axis + 1 :]).sum(axis)
    return e


def use_of(node: Node, index: int, entered: Shape, made: Shape) -> Use | None:
    """How a tensor of shape `entered` enters at input `index` of a node that makes a tensor of shape `made`."""
    rule = RULES.get(node.name())
    try:
        return None if rule is None else rule(node, index, entered, made)
    except RuntimeError:  # a tensor that the node kept was overwritten since
        return None


def _aligned(entered: Shape, made: Shape) -> Shape:
    """As NumPy broadcasts: from the last axis."""
    return (1,) * (len(made) - len(entered)) + entered


def _channels(entered: Shape, made: Shape) -> Shape:
    """Along axis 1."""
    return tuple(prod(entered) if axis == 1 else 1 for axis in range(len(made)))


def _addmm(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    if index == 0:
        return Scaled(entered, made, node._saved_mat1, _aligned(entered, made))
    return _rows(node._saved_mat1 if index == 2 else node._saved_mat2, index == 1, entered, made)


def _mm(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    return _rows(node._saved_self if index == 1 else node._saved_mat2, index == 0, entered, made)


def _mv(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    return _rows(node._saved_self, False, entered, made) if index == 1 else None


def _rows(other: Tensor | None, first: bool, entered: Shape, made: Shape) -> Use | None:
    """`first`: W stands to the left, so that z is the transpose of what rows give."""
    if other is None:
        return None
    return Rows(entered, made[::-1] if first else made, other.detach().T if first else other.detach(), first)


def _convolution(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    x = node._saved_input
    if x is None:
        return None
    if index == 2:
        return Scaled(entered, made, x, _channels(entered, made))
    if index != 1:
        return None
    zeros = node._saved_padding
    windows = Windows(
        tuple(entered[2:]), tuple(node._saved_stride), tuple((zero, zero) for zero in zeros),
        tuple(node._saved_dilation),
    )  # fmt: skip
    if node._saved_transposed and any(node._saved_output_padding):
        # The last zeros that were added lie outside of every window.
        windows = Windows(
            windows.kernel, windows.strides,
            tuple((zero, zero - more) for zero, more in zip(zeros, node._saved_output_padding, strict=True)),
            windows.dilations,
        )  # fmt: skip
    return Convolved(entered, made, x.detach(), windows, node._saved_groups, node._saved_transposed)


def _norm(node: Any, index: int, entered: Shape, made: Shape, spread: Shape, plain: Callable[[], Tensor]) -> Use | None:
    if index not in (1, 2):
        return None
    x = node._saved_input
    return Scaled(entered, made, x, spread, plain if index == 1 else None)


def _layer_norm(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    x, mean, scale = node._saved_input.detach(), node._saved_result1, node._saved_result2
    return _norm(node, index, entered, made, _aligned(entered, made), lambda: (x.to(mean.dtype) - mean) * scale)


def _group_norm(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    x, mean, scale, groups = node._saved_input.detach(), node._saved_result1, node._saved_result2, node._saved_group

    def plain() -> Tensor:
        apart = x.reshape(len(x), groups, -1).to(mean.dtype)
        return ((apart - mean[..., None]) * scale[..., None]).view(x.shape)

    return _norm(node, index, entered, made, _channels(entered, made), plain)


def _batch_norm(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    x = node._saved_input.detach()
    training, mean, scale = node._saved_training, node._saved_result1, node._saved_result2
    if not training:
        mean = node._saved_running_mean
        scale = (node._saved_running_var + node._saved_eps).rsqrt()
    spread = _channels((x.shape[1],), made)
    return _norm(
        node, index, entered, made, spread, lambda: (x.to(mean.dtype) - mean.view(spread)) * scale.view(spread)
    )


def _embedding(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    if index != 0 or node._saved_scale_grad_by_freq:
        return None
    return Table(entered, made, node._saved_indices, _token(node._saved_padding_idx, entered))


def _token(saved: int, entered: Shape) -> int:
    """The padding token, of which -1 says that there is none; torch shows it without its sign."""
    return saved if saved < entered[0] else -1


def _embedding_bag(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    weighted = node._saved_per_sample_weights is not None
    if index != 0 or weighted or node._saved_scale_grad_by_freq or node._saved_mode not in (0, 1):
        return None
    tokens, offsets = node._saved_indices, node._saved_offsets[: made[0]]
    if _token(node._saved_padding_idx, entered) >= 0:
        return None
    bag = torch.searchsorted(offsets, torch.arange(len(tokens), device=tokens.device), right=True) - 1
    counts = torch.bincount(bag, minlength=made[0])
    share = 1.0 / counts[bag].double() if node._saved_mode == 1 else torch.ones(len(bag), device=bag.device)
    return Table(entered, made, tokens, -1, bag, share)


def _mul(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    other = node._saved_other if index == 0 else node._saved_self
    if other is None:
        return None
    other = other.detach()
    return Scaled(entered, made, _full(other, made), _aligned(entered, made), lambda: other)


def _div(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    by = node._saved_other
    if by is None:
        return None
    by = by.detach()
    if index == 0:
        return Scaled(entered, made, _full(by, made), _aligned(entered, made), lambda: 1.0 / by)
    x = node._saved_self
    if x is None:
        return None
    x = x.detach()
    return Scaled(entered, made, _full(x, made), _aligned(entered, made), lambda: -x / by**2)


def _full(other: Tensor, made: Shape) -> Tensor | None:
    """A tensor that has the axes of z."""
    return other if tuple(other.shape) == made else None


def _add(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    sign = float(node._saved_alpha) if index == 1 else 1.0
    return Scaled(entered, made, None, _aligned(entered, made), sign=sign)


def _sub(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    sign = -float(node._saved_alpha) if index == 1 else 1.0
    return Scaled(entered, made, None, _aligned(entered, made), sign=sign)


def _prelu(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    if index != 1:
        return None
    x = node._saved_self.detach()
    return Scaled(entered, made, _full(x, made), _aligned(entered, made), lambda: x.clamp(max=0.0))


def _copies(node: Any, index: int, entered: Shape, made: Shape) -> Use | None:
    return Scaled(entered, made, None, _aligned(entered, made))


RULES: dict[str, Callable[[Any, int, Shape, Shape], Use | None]] = {
    "AddmmBackward0": _addmm,
    "MmBackward0": _mm,
    "MvBackward0": _mv,
    "ConvolutionBackward0": _convolution,
    "NativeLayerNormBackward0": _layer_norm,
    "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _batch_norm,
    "EmbeddingBackward0": _embedding,
    "EmbeddingBagBackward0": _embedding_bag,
    "MulBackward0": _mul,
    "DivBackward0": _div,
    "AddBackward0": _add,
    "SubBackward0": _sub,
    "PreluKernelBackward0": _prelu,
    "ExpandBackward0": _copies,
    "RepeatBackward0": _copies,
}
"""By the name of the node."""
