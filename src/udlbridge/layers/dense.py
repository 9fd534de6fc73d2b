"""Layers of vectors: Dense, activations, softmax, and the two that change nothing or only the shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from udlbridge.errors import LayerError, ShapeError
from udlbridge.layers.base import Layer, Shape, check_activation, check_flag, real, take_positive


@dataclass(frozen=True)
class Dense(Layer):
    """y = activation(W x + b) on the last axis. Parameters: `weight` (out, in) and `bias` (out,)."""

    kind: ClassVar[str] = "dense"
    in_features: int
    out_features: int
    activation: str = "identity"
    bias: bool = True

    def __post_init__(self) -> None:
        take_positive(self, "in_features", "out_features")
        check_activation(self.activation)
        check_flag("Dense", bias=self.bias)

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` (out, in), and `bias` (out,) if there is one."""
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        return shapes

    def widths(self) -> tuple[int, int, int]:
        """The last axis goes from `in_features` to `out_features`."""
        return -1, self.in_features, self.out_features

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
class Activation(Layer):
    """y = activation(x), elementwise: one of `ACTIVATIONS`."""

    kind: ClassVar[str] = "activation"
    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})
    activation: str

    def __post_init__(self) -> None:
        check_activation(self.activation)


@dataclass(frozen=True)
class _Normalising(Layer):
    """Softmax and LogSoftmax, which need an axis to sum over."""

    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; a sample needs at least one axis."""
        if not shape:
            raise ShapeError(
                f"{self.kind} got a scalar sample", allowed="a sample with at least one axis", remedy="reshape"
            )
        return shape


@dataclass(frozen=True)
class Softmax(_Normalising):
    """exp(x_a) / sum_b exp(x_b) along the last axis (Flux: dims=1; PyTorch: dim=-1)."""

    kind: ClassVar[str] = "softmax"


@dataclass(frozen=True)
class LogSoftmax(_Normalising):
    """x_a - log sum_b exp(x_b) along the last axis (Flux: dims=1; PyTorch: dim=-1)."""

    kind: ClassVar[str] = "logsoftmax"


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


@dataclass(frozen=True)
class Dropout(Layer):
    """The identity: kernels and derivatives are those of inference, where dropout does nothing.

    `p` is kept for training and for other programs. Source: Srivastava et al. (2014), in the inverted form that scales
    during training and not afterwards.
    """

    kind: ClassVar[str] = "dropout"
    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})
    p: float = 0.5

    def __post_init__(self) -> None:
        p = real(self.p)
        if p is None or not 0 <= p < 1:
            raise LayerError(f"Dropout has p={self.p!r}", allowed="a probability, 0 <= p < 1", remedy="correct p")
        object.__setattr__(self, "p", p)
