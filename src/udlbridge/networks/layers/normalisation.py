"""Normalisation: (x - mean) / sqrt(variance + eps) * weight + bias, over three different choices of mean.

The variance is the biased one (divided by the count). All three use PyTorch's form sqrt(variance + eps); Flux up to
0.16.10 computes sqrt(variance + eps^2) in LayerNorm, so the Julia side has a layer of its own.
"""

from __future__ import annotations

from typing import ClassVar

from udlbridge.errors import ShapeError
from udlbridge.networks.layers.base import Layer, Shape, Start
from udlbridge.networks.layers.settings import Epsilon, Flag, Size, Sizes, check_divides, frozen_layer


@frozen_layer
class LayerNorm(Layer):
    """Mean and variance over the last axes of a sample, `normalized_shape`; weight and bias have that shape.

    Source: Ba, Kiros, Hinton (2016), equation 4.

    Raises:
        LayerError: a size below 1, or an `eps` that is not positive and finite.

    Examples:
        >>> ub.LayerNorm(16).output_shape((12, 16))
        (12, 16)
    """

    kind: ClassVar[str] = "layernorm"
    normalized_shape: Sizes
    eps: Epsilon = 1e-5
    affine: Flag = True

    @property
    def shape(self) -> Shape:
        """`normalized_shape`, always a tuple."""
        return self.normalized_shape  # type: ignore[return-value]

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` and `bias` of shape `normalized_shape`, or nothing."""
        return {"weight": self.shape, "bias": self.shape} if self.affine else {}

    def start(self, name: str) -> Start:
        """Weights begin at one, biases at zero."""
        return "ones" if name == "weight" else "zeros"

    def widths(self) -> tuple[int, int, int] | None:
        """The last axis stays as wide as it is."""
        return -1, self.shape[-1], self.shape[-1]

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; the last axes have to be `normalized_shape`.

        Raises:
            ShapeError: the last axes have other sizes.
        """
        if shape[len(shape) - len(self.shape) :] != self.shape or len(shape) < len(self.shape):
            raise ShapeError(
                f"LayerNorm({self.shape}) got a sample of shape {shape}",
                allowed=f"last axes {self.shape}",
                remedy="correct normalized_shape",
            )
        return shape


@frozen_layer
class _ChannelNorm(Layer):
    """What GroupNorm and BatchNorm share: one weight and one bias for each channel, the first axis of a sample."""

    def _channels(self) -> int:
        raise NotImplementedError

    def start(self, name: str) -> Start:
        """Weights and variances begin at one, biases and means at zero."""
        return "ones" if name in ("weight", "running_var") else "zeros"

    def widths(self) -> tuple[int, int, int] | None:
        """The number of channels stays."""
        return 0, self._channels(), self._channels()

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; the first axis has to be the channels.

        Raises:
            ShapeError: another number of channels.
        """
        if not shape or shape[0] != self._channels():
            raise ShapeError(
                f"{type(self).__name__} of {self._channels()} channels got a sample of shape {shape}",
                allowed=f"({self._channels()}, *space)",
                remedy="correct the number of channels",
            )
        return shape


@frozen_layer
class GroupNorm(_ChannelNorm):
    """Mean and variance over space and over the channels of each of `num_groups` groups of neighbouring channels.

    Source: Wu and He (2018), equation 7.

    Raises:
        LayerError: a number below 1, or `num_groups` that does not divide `num_channels`.

    Examples:
        >>> ub.GroupNorm(2, 8).output_shape((8, 4, 4))
        (8, 4, 4)
    """

    kind: ClassVar[str] = "groupnorm"
    num_groups: Size
    num_channels: Size
    eps: Epsilon = 1e-5
    affine: Flag = True

    def __attrs_post_init__(self) -> None:
        check_divides(self, "num_groups", "num_channels")

    def _channels(self) -> int:
        return self.num_channels

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` and `bias` (channels,), or nothing."""
        return {"weight": (self.num_channels,), "bias": (self.num_channels,)} if self.affine else {}


@frozen_layer
class BatchNorm(_ChannelNorm):
    """Each channel with its stored mean and variance: inference, where samples do not touch each other.

    The statistics are buffers: they belong to the model and its file, and no derivative is taken of them. In training
    mode a sample's output depends on the batch, so there are no per-sample gradients and no kernel.

    Source: Ioffe and Szegedy (2015), algorithm 2.

    Raises:
        LayerError: `num_features` below 1, or an `eps` that is not positive and finite.

    Examples:
        >>> ub.BatchNorm(3).output_shape((3, 8, 8))
        (3, 8, 8)
    """

    kind: ClassVar[str] = "batchnorm"
    num_features: Size
    eps: Epsilon = 1e-5
    affine: Flag = True

    def _channels(self) -> int:
        return self.num_features

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` and `bias` (channels,), or nothing."""
        return {"weight": (self.num_features,), "bias": (self.num_features,)} if self.affine else {}

    def buffer_shapes(self) -> dict[str, Shape]:
        """`running_mean` and `running_var` (channels,)."""
        return {"running_mean": (self.num_features,), "running_var": (self.num_features,)}
