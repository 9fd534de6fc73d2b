"""Where parameters enter a network, and what each place costs a kernel, from shapes alone: operations, numbers kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from udlbridge.layers import Conv1d, Conv2d, Dense, Layer, Residual, SelfAttention, Shape
from udlbridge.model import Model
from udlbridge.reduction import Reduction
from udlbridge.rules import affine_rule, gradients_cost, pairs_cost


@dataclass(frozen=True)
class Place:
    """One place where parameters enter: z_t = W a_t + b at `positions`, or other parameters (then `positions` is 0).

    `size` counts the parameters, `seen` the numbers of one sample that come to the place.
    """

    positions: int
    inputs: int
    outputs: int
    groups: int
    size: int
    seen: int

    def by_pairs(self, chosen: Reduction) -> bool:
        """Whether its share of the kernel comes from pairs of positions, and not from per-sample gradients."""
        if self.positions == 0:
            return False
        return affine_rule(self.positions, self.inputs, self.outputs, self.groups, chosen) == "pairs"

    def multiply_adds(self, chosen: Reduction) -> float:
        """Multiply-adds for one entry of the kernel, by the cheaper form."""
        if self.by_pairs(chosen):
            return float(pairs_cost(self.positions, self.inputs, self.outputs, chosen))
        return float(gradients_cost(self.size, 1, chosen))

    def kept(self, chosen: Reduction, *, formed: bool = False) -> int:
        """Numbers that one sample's factor holds; `formed`: per-sample gradients, where these are multiplied."""
        count = chosen.n_cotangents
        errors = count * self.positions * self.outputs * self.groups
        if self.by_pairs(chosen):
            return self.positions * (self.inputs + 1) + errors
        gradients = count * self.size
        return gradients if formed or self.positions == 0 else min(gradients, errors + self.seen)


def places(model: Model, sample_shape: Shape) -> list[Place]:
    """All places of a network for samples of this shape, in order."""
    found: list[Place] = []
    shape = sample_shape
    for layer in model.layers:
        found += _of_layer(layer, shape)
        shape = layer.output_shape(shape)
    return found


def _of_layer(layer: Layer, shape: Shape) -> Iterator[Place]:
    size = sum(prod(one) for one in layer.param_shapes().values())
    seen = prod(shape)
    if isinstance(layer, Dense):
        yield Place(prod(shape[:-1]), layer.in_features, layer.out_features, 1, size, seen)
    elif isinstance(layer, Conv1d | Conv2d):
        windows = prod(layer.output_shape(shape)[1:])
        yield Place(windows, layer.patch_size, layer.out_channels // layer.groups, layer.groups, size, seen)
    elif isinstance(layer, SelfAttention):
        e, bias = layer.embed_dim, int(layer.bias)
        yield Place(shape[0], e, 3 * e, 1, 3 * e * (e + bias), seen)
        yield Place(shape[0], e, e, 1, e * (e + bias), seen)
    elif isinstance(layer, Residual):
        for branch in (layer.layers, layer.shortcut):
            inner = shape
            for one in branch:
                yield from _of_layer(one, inner)
                inner = one.output_shape(inner)
    elif size:
        yield Place(0, 0, 0, 1, size, seen)
