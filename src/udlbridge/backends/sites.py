"""Where parameters enter a network, and what each place costs a kernel, from shapes alone: operations, numbers kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

from udlbridge.backends.reduction import Reduction
from udlbridge.backends.rules import affine_rule, gradients_cost, lookup_rule, pairs_cost, tokens_cost
from udlbridge.networks.layers import Conv1d, Conv2d, Dense, Embedding, Layer, Residual, SelfAttention, Shape
from udlbridge.networks.model import Model


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

    @property
    def forward(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return max(self.positions, 1) * self.size

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


@dataclass(frozen=True)
class Table:
    """One place where a row of `rows` enters at each of `positions`: `outputs` parameters in a row."""

    positions: int
    rows: int
    outputs: int

    @property
    def forward(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return self.positions * self.outputs

    def by_tokens(self, chosen: Reduction) -> bool:
        """Whether its share of the kernel comes from equal tokens, and not from gradients of the whole table."""
        return lookup_rule(self.positions, self.rows, self.outputs, chosen) == "tokens"

    def multiply_adds(self, chosen: Reduction) -> float:
        """Multiply-adds for one entry of the kernel, by the cheaper form."""
        if self.by_tokens(chosen):
            return float(tokens_cost(self.positions, self.rows, self.outputs, chosen))
        return float(gradients_cost(self.rows, self.outputs, chosen))

    def kept(self, chosen: Reduction, *, formed: bool = False) -> int:
        """Numbers that one sample's factor holds: for every token its errors, its number and that of its sample.

        Whether other places hold gradients that are `formed` makes no difference to a table.
        """
        if self.by_tokens(chosen):
            return self.positions * (self.outputs * chosen.n_cotangents + 4)
        return self.rows * self.outputs * chosen.n_cotangents


def places(model: Model, sample_shape: Shape, params: Collection[str] | None = None) -> list[Place | Table]:
    """The places of a network for samples of this shape, in order, where parameters in `params` enter; None: any."""
    chosen = model.params if params is None else params
    found: list[Place | Table] = []
    shape = sample_shape
    for index, layer in enumerate(model.layers):
        found += _of_layer(layer, shape, f"{index}.", chosen)
        shape = layer.output_shape(shape)
    return found


def chosen_size(model: Model, params: Collection[str] | None) -> int:
    """How many numbers the parameters in `params` have; None means all."""
    return sum(prod(shape) for name, shape in model.param_shapes().items() if params is None or name in params)


def _of_layer(layer: Layer, shape: Shape, prefix: str, chosen: Collection[str]) -> Iterator[Place | Table]:
    if isinstance(layer, Residual):
        for start, branch in (("", layer.layers), ("shortcut.", layer.shortcut)):
            inner = shape
            for index, one in enumerate(branch):
                yield from _of_layer(one, inner, f"{prefix}{start}{index}.", chosen)
                inner = one.output_shape(inner)
        return
    sizes = {name: prod(one) for name, one in layer.param_shapes().items() if prefix + name in chosen}
    seen = prod(shape)

    def affine(weight: str, bias: str, positions: int, inputs: int, outputs: int, groups: int) -> Iterator[Place]:
        size = sum(sizes.get(name, 0) for name in (weight, bias))
        if weight in sizes:
            yield Place(positions, inputs, outputs, groups, size, seen)
        elif size:
            yield Place(0, 0, 0, 1, size, seen)

    if isinstance(layer, Dense):
        yield from affine("weight", "bias", prod(shape[:-1]), layer.in_features, layer.out_features, 1)
    elif isinstance(layer, Conv1d | Conv2d):
        windows, groups = prod(layer.output_shape(shape)[1:]), layer.groups
        yield from affine("weight", "bias", windows, layer.patch_size, layer.out_channels // groups, groups)
    elif isinstance(layer, SelfAttention):
        tokens, e = shape
        yield from affine("in_proj_weight", "in_proj_bias", tokens, e, 3 * e, 1)
        yield from affine("out_proj.weight", "out_proj.bias", tokens, e, e, 1)
    elif isinstance(layer, Embedding):
        if sizes:
            yield Table(shape[0], layer.num_embeddings, layer.embedding_dim)
    elif sizes:
        yield Place(0, 0, 0, 1, sum(sizes.values()), seen)
