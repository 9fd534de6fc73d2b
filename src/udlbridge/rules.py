"""Which form of a layer's share of the kernel costs less: said once, from shapes alone, for every engine.

A layer whose parameters enter as z_t = W a_t + b at T positions t (one for Dense on a vector, the windows of a
convolution, the tokens of a sequence) has the per-sample gradient G = sum_t d_t a_t', with errors d_t = d f / d z_t.
Its share of the kernel has two exact forms:

- "pairs": sum_{t,s} (a_it . a_js) (d_it . d_js), which never forms a gradient;
- "gradients": G_i . G_j, one matrix product of per-sample gradients.

The product of position-summed Gram matrices, (sum a_it . a_js) (sum d_it . d_js), is neither: it is wrong for T > 1.
Source: Novak, Sohl-Dickstein, Schoenholz (2022), sections 3.2 and 3.3, where the two are called structured derivatives
and Jacobian contraction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from udlbridge.layers import Conv1d, Conv2d, Dense, Embedding, Layer, Residual, SelfAttention, Shape
from udlbridge.reduction import Reduction

AffineRule = Literal["pairs", "gradients"]

ELEMENTWISE = 4
"""What one elementwise multiply-add on a matrix in memory costs, in multiply-adds of a matrix product."""


def pairs_cost(positions: int, inputs: int, outputs: int, reduction: Reduction) -> int:
    """Multiply-adds of "pairs" for one pair of samples: T^2 (p + q K + elementwise), K one-output products."""
    errors = outputs * products(reduction)
    entries = 1
    for axis in reduction.trailing:
        entries *= axis
    return positions**2 * (inputs + errors + ELEMENTWISE * entries)


def gradients_cost(inputs: int, outputs: int, reduction: Reduction) -> int:
    """Multiply-adds of "gradients" for one pair of samples: p q K."""
    return inputs * outputs * products(reduction)


def affine_rule(positions: int, inputs: int, outputs: int, groups: int, reduction: Reduction) -> AffineRule:
    """The cheaper form for a layer with T `positions`, p `inputs` and q `outputs` in each of its groups.

    Grouped layers take "gradients": the fewer inputs a group has, the smaller its gradients are.
    """
    if groups > 1:
        return "gradients"
    pairs = pairs_cost(positions, inputs, outputs, reduction)
    return "pairs" if pairs < gradients_cost(inputs, outputs, reduction) else "gradients"


def products(reduction: Reduction) -> int:
    """Inner products over the parameters for one pair of samples: 1, O or O^2."""
    return reduction.n_cotangents**2 if reduction.name == "full" else reduction.n_cotangents


@dataclass(frozen=True)
class Site:
    """One place where parameters enter a network, by sizes alone.

    An affine map has `positions`, `inputs` and `outputs` in each of `groups`; `size` counts its parameters. Any other
    place has `positions` 0. `given` counts the numbers of a sample that come to it.
    """

    size: int
    given: int
    positions: int = 0
    inputs: int = 0
    outputs: int = 0
    groups: int = 1

    def rule(self, reduction: Reduction) -> AffineRule:
        """The form that the engines take here."""
        if self.positions == 0:
            return "gradients"
        return affine_rule(self.positions, self.inputs, self.outputs, self.groups, reduction)

    def multiply_adds(self, reduction: Reduction) -> int:
        """What the place costs for one pair of samples."""
        if self.rule(reduction) == "pairs":
            return pairs_cost(self.positions, self.inputs, self.outputs, reduction)
        return self.size * products(reduction)

    def kept_numbers(self, reduction: Reduction) -> int:
        """Numbers that are kept for one sample: inputs and errors, or gradients."""
        errors = self.positions * self.outputs * reduction.n_cotangents
        if self.rule(reduction) == "pairs":
            return self.positions * (self.inputs + 1) + errors
        return self.size * reduction.n_cotangents

    def pass_multiply_adds(self) -> int:
        """What one pass through the place costs for one sample."""
        return max(self.positions, 1) * (self.groups * self.inputs * self.outputs or self.size)


def sites(layers: Sequence[Layer], shape: Shape) -> Iterator[Site]:
    """The places where parameters enter a chain of layers, for samples of a shape."""
    for layer in layers:
        behind = layer.output_shape(shape)
        sizes = {name: prod(own) for name, own in layer.param_shapes().items()}
        size, given = sum(sizes.values()), prod(shape)
        match layer:
            case Residual():
                yield from sites(layer.layers, shape)
                yield from sites(layer.shortcut, shape)
            case Dense():
                yield Site(size, given, prod(shape[:-1]), layer.in_features, layer.out_features)
            case Conv1d() | Conv2d():
                yield Site(
                    size, given, prod(behind[1:]), layer.patch_size, layer.out_channels // layer.groups, layer.groups
                )
            case SelfAttention():
                wide = layer.embed_dim
                own = wide * 3 * (wide + layer.bias), wide * (wide + layer.bias)
                yield Site(own[0], given, shape[0], wide, 3 * wide)
                yield Site(own[1], given, shape[0], wide, wide)
            case Embedding():
                yield Site(size, given, shape[0], layer.num_embeddings, layer.embedding_dim)
            case _ if size:
                yield Site(size, given)
        shape = behind
