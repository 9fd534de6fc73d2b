"""What every layer is: a frozen description that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import attrs

from udlbridge.errors import LayerError, ShapeError

Shape = tuple[int, ...]
Start = Literal["glorot", "zeros", "ones", "normal"]


@attrs.frozen
class Layer:
    """Base of all layers.

    `keeps` names the axes of a sample whose width the layer neither changes nor minds: 0 for channels, -1 for the last
    axis. It lets neighbours be compared before there is any data. `of_tokens` says that samples are integers.
    """

    kind: ClassVar[str]
    of_tokens: ClassVar[bool] = False
    keeps: ClassVar[frozenset[int]] = frozenset()

    def param_shapes(self) -> dict[str, Shape]:
        """Shapes of the trainable parameters by name, in the canonical (PyTorch) layout; empty if there are none."""
        return {}

    def buffer_shapes(self) -> dict[str, Shape]:
        """Shapes of arrays that belong to the layer and are not trained (BatchNorm's statistics)."""
        return {}

    def start(self, name: str) -> Start:
        """The initial values of a parameter or buffer that is not given."""
        return "glorot" if len(self.param_shapes()[name]) >= 2 else "zeros"

    def widths(self) -> tuple[int, int, int] | None:
        """(axis, width before, width after) where the settings fix the width of an axis, else None."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one sample after the layer, given the shape of one sample before it.

        Raises:
            ShapeError: if the layer cannot take such a sample.
        """
        return shape

    def spec(self) -> dict[str, Any]:
        """The layer as JSON-ready data; `layer_from_spec` is the inverse."""
        settings = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return {
            "kind": self.kind,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], build: Callable[[dict[str, Any]], Layer]) -> Self:
        """The layer with the settings of a spec; `build` makes a layer of a nested spec."""
        return cls(**settings)


def shape_after(layers: Iterable[Layer], shape: Shape, where: str = "layer ") -> Shape:
    """Shape of a sample after a chain of layers.

    Raises:
        ShapeError: if a layer cannot take what comes to it; it names the layer.
    """
    for index, layer in enumerate(layers):
        try:
            shape = layer.output_shape(shape)
        except ShapeError as error:
            raise ShapeError(
                f"{where}{index} does not fit: {error.given}", allowed=error.allowed, remedy=error.remedy
            ) from None
    return shape


def check_chain(layers: Sequence[Layer], names: Sequence[str] | None = None) -> None:
    """Refuse neighbours that can never fit, as far as that is known without the shape of the data.

    Args:
        layers: in order of evaluation.
        names: what errors call the layers; None means "layer 0" and so on.

    Raises:
        ShapeError: naming the layer, what it gets and what it needs.
        LayerError: a layer of tokens that is not the first.
    """
    called = names or [f"layer {index}" for index in range(len(layers))]
    known: tuple[int, int, str] | None = None  # axis, its width, the layer that made it so
    for index, layer in enumerate(layers):
        if layer.of_tokens and index > 0:
            raise LayerError(
                f"{called[index]} is an Embedding",
                allowed="an Embedding as the first layer, layer 0",
                remedy="start the model with it",
            )
        widths = layer.widths()
        if widths is None:
            known = known if known is not None and known[0] in layer.keeps else None
            continue
        axis, before, after = widths
        if known is not None and known[0] == axis and known[1] != before:
            word = "channels" if axis == 0 else "features"
            raise ShapeError(
                f"{called[index]} ({layer.kind}) does not fit after {known[2]}: it gets {known[1]} {word}",
                allowed=f"{before} {word}",
                remedy=f"correct the width of {called[index]} or of {known[2]}",
            )
        known = (axis, after, called[index])
