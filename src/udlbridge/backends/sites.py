"""The sites of a network, where its parameters enter, and what each costs a kernel, in any engine: from shapes alone.

A site is an affine map, a table of which rows are looked up, or other parameters of a layer, which enter elementwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import singledispatch
from math import prod
from typing import Any

from udlbridge.backends.reduction import Reduction
from udlbridge.backends.rules import affine_rule, gradients_cost, lookup_rule, pairs_cost, tile_rule, tokens_cost
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.layers import Conv1d, Conv2d, Dense, Embedding, Layer, Residual, SelfAttention, Shape
from udlbridge.networks.model import Model
from udlbridge.texts import kind_of


@dataclass(frozen=True)
class Affine:
    """z_t = W a_t + b at `positions`, in `groups` with maps of their own, each from `inputs` to `outputs` numbers.

    `size` counts the parameters, `seen` the numbers of one sample that come to the site.
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
        return self.positions * self.size

    @property
    def forming(self) -> int:
        """Multiply-adds that form one gradient of one sample."""
        return self.positions * self.size

    def by_pairs(self, reduction: Reduction) -> bool:
        """Whether its share of the kernel comes from pairs of positions, and not from per-sample gradients."""
        return affine_rule(self.positions, self.inputs, self.outputs, self.groups, reduction) == "pairs"

    def multiply_adds(self, reduction: Reduction) -> float:
        """Multiply-adds for one entry of the kernel, by the cheaper form."""
        if self.by_pairs(reduction):
            return float(pairs_cost(self.positions, self.inputs, self.outputs, reduction))
        return float(gradients_cost(self.size, 1, reduction))

    def formed_later(self, reduction: Reduction) -> bool:
        """Whether inputs and errors are smaller than the gradients of one sample, which are then formed when needed."""
        errors = reduction.n_cotangents * self.positions * self.outputs * self.groups
        return self.groups == 1 and reduction.n_cotangents * self.size > errors + self.seen

    def by_pairs_of_few(self, tile: tuple[int, int], formed: int, reduction: Reduction, *, lower: bool) -> bool:
        """Whether the samples of a tile are too few to form their gradients, as `rules.tile_rule` has it."""
        rule = tile_rule(self.positions, self.inputs, self.outputs, tile, formed, reduction, lower=lower)
        return rule == "pairs"

    def factor_numbers(self, reduction: Reduction, *, forms_gradients: bool = False) -> int:
        """Numbers that one sample's factor holds; `forms_gradients`: as in the footprint of an engine."""
        count = reduction.n_cotangents
        errors = count * self.positions * self.outputs * self.groups
        if self.by_pairs(reduction):
            return (self.positions * (self.inputs + 1) if forms_gradients else self.seen + 1) + errors
        gradients = count * self.size
        return gradients if forms_gradients else min(gradients, errors + self.seen)


@dataclass(frozen=True)
class Elementwise:
    """`size` parameters that enter in any other way: their share of the kernel comes from per-sample gradients."""

    size: int

    @property
    def forward(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return self.size

    def multiply_adds(self, reduction: Reduction) -> float:
        """Multiply-adds for one entry of the kernel."""
        return float(gradients_cost(self.size, 1, reduction))

    def factor_numbers(self, reduction: Reduction, *, forms_gradients: bool = False) -> int:
        """Numbers that one sample's factor holds: its gradients, in every engine."""
        return reduction.n_cotangents * self.size


@dataclass(frozen=True)
class Lookup:
    """A row of a table of `rows` enters at each of `positions`: `outputs` parameters in a row."""

    positions: int
    rows: int
    outputs: int

    @property
    def forward(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return self.positions * self.outputs

    def by_tokens(self, reduction: Reduction) -> bool:
        """Whether its share of the kernel comes from equal tokens, and not from gradients of the whole table."""
        return lookup_rule(self.positions, self.rows, self.outputs, reduction) == "tokens"

    def multiply_adds(self, reduction: Reduction) -> float:
        """Multiply-adds for one entry of the kernel, by the cheaper form."""
        if self.by_tokens(reduction):
            return float(tokens_cost(self.positions, self.rows, self.outputs, reduction))
        return float(gradients_cost(self.rows, self.outputs, reduction))

    def factor_numbers(self, reduction: Reduction, *, forms_gradients: bool = False) -> int:
        """Numbers that one sample's factor holds: for every token its errors, its number and that of its sample.

        Whether gradients of other sites are formed makes no difference to a table.
        """
        if self.by_tokens(reduction):
            return self.positions * (self.outputs * reduction.n_cotangents + 4)
        return self.rows * self.outputs * reduction.n_cotangents


@dataclass(frozen=True)
class Tied:
    """A table, looked up and used as an affine map too: the gradients of both are added up before they are multiplied.

    Its share of the kernel is that of the map, that of the lookups, and what one of them has with the other.
    """

    lookup: Lookup
    affine: Affine

    @property
    def forward(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return self.lookup.forward + self.affine.forward

    @property
    def size(self) -> int:
        """The parameters of the table."""
        return self.affine.size

    @property
    def forming(self) -> int:
        """Multiply-adds that form one gradient of one sample: that of the map, to which those of rows are added."""
        return self.affine.forming + self.lookup.forward

    def formed_later(self, reduction: Reduction) -> bool:
        """Always: the gradients of a whole table are never kept."""
        return True

    def by_pairs(self, reduction: Reduction) -> bool:
        """Whether its share of the kernel comes from pairs of positions, and not from gradients of the whole table."""
        return self._pairs(reduction) < gradients_cost(self.affine.size, 1, reduction)

    def multiply_adds(self, reduction: Reduction) -> float:
        """Multiply-adds for one entry of the kernel, by the cheaper form."""
        return float(min(self._pairs(reduction), gradients_cost(self.affine.size, 1, reduction)))

    def factor_numbers(self, reduction: Reduction, *, forms_gradients: bool = False) -> int:
        """Numbers that one sample's factor holds: those of the map as they came, and of the lookups twice."""
        count = reduction.n_cotangents
        looked = 2 * self.lookup.positions * (self.lookup.outputs * count + 4)
        return looked + self.affine.seen + count * self.affine.positions * self.affine.outputs

    def _pairs(self, reduction: Reduction) -> int:
        map_, looked = self.affine, self.lookup
        own = pairs_cost(map_.positions, map_.inputs, map_.outputs, reduction)
        return (
            own
            + tokens_cost(looked.positions, looked.rows, looked.outputs, reduction)
            + 2 * map_.positions * tokens_cost(looked.positions, looked.rows, looked.outputs, reduction)
        )


Site = Affine | Elementwise | Lookup | Tied


@singledispatch
def sites(model: Any, sample_shape: Shape, params: Collection[str] | None = None) -> list[Site]:
    """The sites of a network for samples of this shape, in order, where parameters in `params` enter; None: any.

    An engine that computes networks of another kind says here what their sites are.

    Raises:
        TypeError: no engine has said so of such a network.
    """
    raise TypeError(f"no sites are known of {kind_of(model)}")


@sites.register
def _of_model(model: Model, sample_shape: Shape, params: Collection[str] | None = None) -> list[Site]:
    names = model.params if params is None else params
    found: list[Site] = []
    shape = sample_shape
    for index, layer in enumerate(model.layers):
        found += _of_layer(layer, shape, f"{index}.", names)
        shape = layer.output_shape(shape)
    return found


@sites.register
def _of_graph(graph: Graph, sample_shape: Shape, params: Collection[str] | None = None) -> list[Site]:
    """Affine maps and tables whose parameter is used there alone are sites; all other parameters count elementwise."""
    names = graph.params if params is None else params
    values = graph.values(1)
    uses = Counter(name for node in graph.nodes for name in set(node.inputs))
    found: list[Site] = []
    rest = {name: prod(shape) for name, shape in graph.param_shapes().items() if name in names}
    for node in graph.nodes:
        weight = node.inputs[0 if node.op == "embedding" else 1] if len(node.inputs) > 1 else ""
        if weight not in rest or uses[weight] > 1:
            continue
        shape, out = values[weight].shape, values[node.name].shape
        if node.op in ("linear", "conv"):
            groups = node.attributes.get("groups", 1)
            size = rest.pop(weight) + (rest.pop(node.inputs[2], 0) if len(node.inputs) > 2 else 0)
            positions = prod(out[2:]) if node.op == "conv" else prod(out[:-1])
            seen = prod(values[node.inputs[0]].shape)
            found.append(Affine(positions, prod(shape[1:]), shape[0] // groups, groups, size, seen))
        elif node.op == "embedding":
            found.append(Lookup(prod(out[:-1]), shape[0], shape[1]))
            del rest[weight]
    return [*found, *([Elementwise(sum(rest.values()))] if rest else [])]


@singledispatch
def activation_numbers(model: Any, sample_shape: Shape, params: Collection[str] | None = None) -> int:
    """Numbers that one sample's forward pass holds for the way back: what comes to each layer, and leaves it.

    Raises:
        TypeError: no engine has said so of such a network.
    """
    raise TypeError(f"no activations are known of {kind_of(model)}")


@activation_numbers.register
def _activations_of_model(model: Model, sample_shape: Shape, params: Collection[str] | None = None) -> int:
    total, shape = 0, sample_shape
    for layer in model.layers:
        total += prod(shape)
        shape = layer.output_shape(shape)
    return total + prod(shape)


@activation_numbers.register
def _activations_of_graph(graph: Graph, sample_shape: Shape, params: Collection[str] | None = None) -> int:
    values = graph.values(1)
    entering = sum(prod(value.shape) for value in graph.inputs.values())
    return entering + sum(prod(values[node.name].shape) for node in graph.nodes)


@singledispatch
def samples_together(model: Any, sample_shape: Shape, params: Collection[str] | None, n: int) -> int:
    """How many of the n samples of a block pass through a network at a time: all, where nothing else is said."""
    return n


def parameter_count(model: Model | ForeignNetwork, params: Collection[str] | None) -> int:
    """How many numbers the parameters in `params` have; None means all."""
    return sum(prod(shape) for name, shape in model.param_shapes().items() if params is None or name in params)


def _of_layer(layer: Layer, shape: Shape, prefix: str, names: Collection[str]) -> Iterator[Site]:
    if isinstance(layer, Residual):
        for start, branch in (("", layer.layers), ("shortcut.", layer.shortcut)):
            inner = shape
            for index, one in enumerate(branch):
                yield from _of_layer(one, inner, f"{prefix}{start}{index}.", names)
                inner = one.output_shape(inner)
        return
    sizes = {name: prod(one) for name, one in layer.param_shapes().items() if prefix + name in names}
    seen = prod(shape)

    def affine(weight: str, bias: str, positions: int, inputs: int, outputs: int, groups: int) -> Iterator[Site]:
        size = sum(sizes.get(name, 0) for name in (weight, bias))
        if weight in sizes:
            yield Affine(positions, inputs, outputs, groups, size, seen)
        elif size:
            yield Elementwise(size)

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
            yield Lookup(shape[0], layer.num_embeddings, layer.embedding_dim)
    elif sizes:
        yield Elementwise(sum(sizes.values()))
