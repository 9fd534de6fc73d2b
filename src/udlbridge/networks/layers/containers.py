"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import attrs

from udlbridge.errors import LayerError, ShapeError
from udlbridge.networks.layers.base import Layer, Shape, Start, check_chain, shape_after
from udlbridge.options import brief
from udlbridge.texts import kind_of


def chain(layers: Layer | Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers in order of evaluation, from one or several.

    Raises:
        LayerError: something that is neither.
    """
    if isinstance(layers, Layer):
        return (layers,)
    try:
        return tuple(layers)
    except TypeError:
        raise LayerError(
            f"{brief(layers)} in the place of layers",
            allowed="a list of layers",
            remedy="give one, as [ub.Dense(2, 2)]",
        ) from None


def check_inside(_block: Any, setting: attrs.Attribute[Any], layers: tuple[Layer, ...]) -> None:
    """A validator of the layers inside a block.

    Raises:
        LayerError: something that is not a layer, or a layer of tokens.
        ShapeError: neighbours that can never fit.
    """
    for layer in layers:
        if not isinstance(layer, Layer):
            raise LayerError(
                f"Residual has {kind_of(layer)} among its {setting.name}",
                allowed="layers of udlbridge",
                remedy="describe the block with them",
            )
        if layer.of_tokens:
            raise LayerError(
                f"Residual has an Embedding among its {setting.name}",
                allowed="layers of numbers: tokens cannot be added to what is made of them",
                remedy="put the Embedding before the block, as the first layer of the model",
            )
    check_chain(layers)


@attrs.frozen
class Residual(Layer):
    """y = layers(x) + shortcut(x); an empty shortcut is the identity.

    Names inside are `0.weight`, `1.weight`, ... for `layers` and `shortcut.0.weight`, ... for the shortcut, so that a
    block at index 3 of a model has `3.0.weight`. Source: He et al. (2016), equations 1 and 2.

    Raises:
        LayerError: no layers, something that is not a layer, or an Embedding inside.
        ShapeError: neighbours that can never fit.

    Examples:
        >>> ub.Residual([ub.Dense(4, 4, "relu"), ub.Dense(4, 4)]).output_shape((4,))
        (4,)
    """

    kind: ClassVar[str] = "residual"
    layers: tuple[Layer, ...] = attrs.field(converter=chain, validator=check_inside)
    shortcut: tuple[Layer, ...] = attrs.field(default=(), converter=chain, validator=check_inside)

    def __attrs_post_init__(self) -> None:
        if not self.layers:
            raise LayerError("a Residual without layers", allowed="at least one layer", remedy="add one")

    def children(self) -> dict[str, Layer]:
        """The layers inside by the first part of their parameters' names."""
        inside = {str(index): layer for index, layer in enumerate(self.layers)}
        return inside | {f"shortcut.{index}": layer for index, layer in enumerate(self.shortcut)}

    def param_shapes(self) -> dict[str, Shape]:
        """The parameters of all layers inside."""
        return {
            f"{prefix}.{name}": shape
            for prefix, layer in self.children().items()
            for name, shape in layer.param_shapes().items()
        }

    def buffer_shapes(self) -> dict[str, Shape]:
        """The buffers of all layers inside."""
        return {
            f"{prefix}.{name}": shape
            for prefix, layer in self.children().items()
            for name, shape in layer.buffer_shapes().items()
        }

    def start(self, name: str) -> Start:
        """As the layer inside says.

        Raises:
            KeyError: no layer inside has an array of that name.
        """
        for prefix, layer in self.children().items():
            rest = name.removeprefix(f"{prefix}.")
            if rest != name and (rest in layer.param_shapes() or rest in layer.buffer_shapes()):
                return layer.start(rest)
        raise KeyError(name)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape after `layers`, which must be that after the shortcut.

        Raises:
            ShapeError: it is another one, or a layer inside cannot take what comes to it.
        """
        inner = shape_after(self.layers, shape, "inside the residual block, layer ")
        other = shape_after(self.shortcut, shape, "in the shortcut, layer ")
        if inner != other:
            raise ShapeError(
                f"a Residual adds its layers' {inner} to its shortcut's {other}",
                allowed="two equal shapes",
                remedy="give a shortcut that makes the same shape, as a Conv2d of kernel 1 with the block's stride",
            )
        return inner

    def spec(self) -> dict[str, Any]:
        """The specs of the layers inside, nested."""
        return {
            "kind": self.kind,
            "layers": [layer.spec() for layer in self.layers],
            "shortcut": [layer.spec() for layer in self.shortcut],
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], build: Callable[[dict[str, Any]], Layer]) -> Self:
        """Builds the layers inside first."""
        nested = {name: [build(spec) for spec in specs] for name, specs in settings.items()}
        return cls(**nested)
