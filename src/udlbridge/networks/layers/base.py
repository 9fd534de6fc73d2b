"""What every layer is: a frozen description that computes nothing, and the checks that layers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

from udlbridge.errors import LayerError, ShapeError

ACTIVATIONS: dict[str, str] = {
    "identity": "z",
    "relu": "max(z, 0), with slope 0 at 0",
    "sigmoid": "1 / (1 + exp(-z))",
    "tanh": "tanh(z)",
    "gelu_tanh": "z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))",
    "gelu_erf": "z/2 (1 + erf(z / sqrt 2))",
    "softplus": "log(1 + exp(z))",
    "swish": "z sigmoid(z)",
    "elu": "z where z > 0, else exp(z) - 1",
    "leakyrelu": "z where z > 0, else 0.01 z",
    "selu": "1.0507 (z where z > 0, else 1.67326 (exp(z) - 1))",
    "mish": "z tanh(softplus(z))",
}
"""Name of every activation, and its formula. `gelu` alone is refused: Flux and PyTorch mean different functions."""

Shape = tuple[int, ...]
Start = Literal["glorot", "zeros", "ones", "normal"]


def check_activation(name: str) -> None:
    """Raise `LayerError` unless `name` is one of `ACTIVATIONS`."""
    if isinstance(name, str) and name in ACTIVATIONS:
        return
    remedy = "choose one of these names"
    if name == "gelu":
        remedy = 'say which form: "gelu_tanh" is Flux\'s gelu, "gelu_erf" is PyTorch\'s'
    elif name in ("silu", "leaky_relu"):
        remedy = f'use "{"swish" if name == "silu" else "leakyrelu"}", the name of the same function here'
    raise LayerError(f"unknown activation {name!r}", allowed=", ".join(ACTIVATIONS), remedy=remedy)


def whole(value: Any) -> int | None:
    """`value` as an int if it is an integer of Python or of NumPy, else None; a truth value is none."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, Integral) else None


def real(value: Any) -> float | None:
    """`value` as a number of Python if it is one, or one of NumPy, else None; a truth value is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, Real) else None


def take_positive(layer: Layer, *names: str) -> None:
    """Keep the named settings of a new layer as ints; `LayerError` unless every one is an integer of at least 1."""
    for name in names:
        given = getattr(layer, name)
        value = whole(given)
        if value is None or value < 1:
            raise LayerError(
                f"{type(layer).__name__} has {name}={given!r}",
                allowed="an integer of at least 1",
                remedy=f"correct {name}",
            )
        object.__setattr__(layer, name, value)


def check_flag(layer: str, **settings: bool) -> None:
    """Raise `LayerError` unless every named setting is True or False."""
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise LayerError(f"{layer} has {name}={value!r}", allowed="True or False", remedy=f"correct {name}")


def take_eps(layer: Any) -> None:
    """Keep `eps` of a new layer as a number of Python; `LayerError` unless it is a positive number."""
    given = layer.eps
    value = real(given)
    if value is None or not 0 < value < float("inf"):
        raise LayerError(
            f"{type(layer).__name__} has eps={given!r}", allowed="a positive number, as 1e-5", remedy="correct eps"
        )
    object.__setattr__(layer, "eps", value)


def per_axis(layer: str, name: str, value: int | Sequence[int], axes: int, least: int = 1) -> Shape:
    """`value` as one integer per spatial axis; a single integer serves all.

    Raises:
        LayerError: not integers of at least `least`, or not as many as there are axes.
    """
    given = value if isinstance(value, list | tuple) else (value,) * axes
    values = tuple(number for number in map(whole, given) if number is not None and number >= least)
    if len(values) == len(given) == axes:
        return values
    raise LayerError(
        f"{layer} has {name}={value!r}",
        allowed=f"an integer of at least {least}, or {axes} of them",
        remedy=f"correct {name}",
    )


@dataclass(frozen=True)
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
        """How a parameter or buffer begins when nobody gives it."""
        return "glorot" if len(self.param_shapes()[name]) >= 2 else "zeros"

    def widths(self) -> tuple[int, int, int] | None:
        """(axis, width before, width behind) where the settings fix the width of an axis, else None."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one sample behind the layer, given the shape of one sample before it.

        Raises:
            ShapeError: if the layer cannot take such a sample.
        """
        return shape

    def spec(self) -> dict[str, Any]:
        """The layer as JSON-ready data; `layer_from_spec` is the inverse."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            "kind": self.kind,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], build: Callable[[dict[str, Any]], Layer]) -> Self:
        """The layer with the settings of a spec; `build` makes a layer of a nested spec."""
        return cls(**settings)


def shape_behind(layers: Iterable[Layer], shape: Shape, where: str = "layer ") -> Shape:
    """Shape of a sample behind a chain of layers.

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
        axis, before, behind = widths
        if known is not None and known[0] == axis and known[1] != before:
            word = "channels" if axis == 0 else "features"
            raise ShapeError(
                f"{called[index]} ({layer.kind}) does not fit behind {known[2]}: it gets {known[1]} {word}",
                allowed=f"{before} {word}",
                remedy=f"correct the width of {called[index]} or of {known[2]}",
            )
        known = (axis, behind, called[index])
