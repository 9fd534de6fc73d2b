"""Layers as plain data: what a network is, said once for every engine.

A layer here computes nothing. It is a frozen description: its settings, the shapes of its parameters, and the shape
that it makes of an input. Each backend translates the description into its own engine.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from udlbridge.errors import LayerError, ModelFileError, ShapeError

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


def check_activation(name: str) -> None:
    """Raise `LayerError` unless `name` is one of `ACTIVATIONS`."""
    if name in ACTIVATIONS:
        return
    remedy = "choose one of these names"
    if name == "gelu":
        remedy = 'say which form: "gelu_tanh" is Flux\'s gelu, "gelu_erf" is PyTorch\'s'
    elif name in ("silu", "leaky_relu"):
        remedy = f'use "{"swish" if name == "silu" else "leakyrelu"}", the name of the same function here'
    raise LayerError(f"unknown activation {name!r}", allowed=", ".join(ACTIVATIONS), remedy=remedy)


def check_positive(layer: str, **settings: int) -> None:
    """Raise `LayerError` unless every named setting is an integer of at least 1."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayerError(
                f"{layer} has {name}={value!r}", allowed="an integer of at least 1", remedy=f"correct {name}"
            )


@dataclass(frozen=True)
class Layer:
    """Base of all layers."""

    kind: ClassVar[str]

    def param_shapes(self) -> dict[str, Shape]:
        """Shapes of the parameters by name, in the canonical (PyTorch) layout; empty if there are none."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one sample behind the layer, given the shape of one sample before it.

        Raises:
            ShapeError: if the layer cannot take such a sample.
        """
        return shape

    def spec(self) -> dict[str, Any]:
        """The layer as JSON-ready data; `layer_from_spec` is the inverse."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **settings}


@dataclass(frozen=True)
class Dense(Layer):
    """y = activation(W x + b) on the last axis. Parameters: `weight` (out, in) and `bias` (out,)."""

    kind: ClassVar[str] = "dense"
    in_features: int
    out_features: int
    activation: str = "identity"
    bias: bool = True

    def __post_init__(self) -> None:
        check_positive("Dense", in_features=self.in_features, out_features=self.out_features)
        check_activation(self.activation)

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` (out, in), and `bias` (out,) if there is one."""
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        return shapes

    def output_shape(self, shape: Shape) -> Shape:
        """(*rest, in) -> (*rest, out)."""
        if not shape or shape[-1] != self.in_features:
            raise ShapeError(
                f"Dense({self.in_features}, {self.out_features}) got a sample of shape {shape}",
                allowed=f"a last axis of {self.in_features}",
                remedy="put Flatten() before it, or correct the width",
            )
        return (*shape[:-1], self.out_features)


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x_a) / sum_b exp(x_b) along the last axis (Flux: dims=1; PyTorch: dim=-1)."""

    kind: ClassVar[str] = "softmax"

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; a sample needs at least one axis."""
        if not shape:
            raise ShapeError("Softmax got a scalar sample", allowed="a sample with at least one axis", remedy="reshape")
        return shape


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes of a sample in one, in C order (the last axis runs fastest)."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape) -> Shape:
        """(*D) -> (prod D,)."""
        size = 1
        for axis in shape:
            size *= axis
        return (size,)


LAYERS: dict[str, type[Layer]] = {cls.kind: cls for cls in (Dense, Softmax, Flatten)}
"""The registry: what a layer is called in a file, and its class."""


def layer_from_spec(spec: dict[str, Any]) -> Layer:
    """The layer that `Layer.spec` described.

    Raises:
        ModelFileError: if the kind is unknown or the settings do not fit it.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    cls = LAYERS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ModelFileError(
            f"the model contains a layer of kind {kind!r}",
            allowed=", ".join(LAYERS),
            remedy="update udlbridge, or save the model again with this version",
        )
    try:
        return cls(**settings)
    except TypeError as error:
        raise ModelFileError(
            f"the settings {settings} do not describe a layer of kind {kind!r} ({error})",
            allowed=", ".join(field.name for field in dataclasses.fields(cls)),
            remedy="save the model again with this version",
        ) from error
