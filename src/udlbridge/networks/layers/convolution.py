"""Convolutions, in PyTorch's meaning of every setting: a cross-correlation, not flipped, over (channels, *space)."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from udlbridge.errors import LayerError, ShapeError
from udlbridge.networks.layers.base import Layer, Shape
from udlbridge.networks.layers.settings import (
    ActivationName,
    Extent,
    Flag,
    Size,
    check_divides,
    frozen_layer,
    spread,
    spread_sides,
)
from udlbridge.options import checked_count

Side = tuple[int, int]
"""Zeros before and after an axis."""


def window_count(length: int, kernel: int, stride: int, padding: Side, dilation: int) -> int:
    """How many windows of a kernel fit into a padded axis: floor((L + p + q - d (k-1) - 1) / s) + 1; below 1: none."""
    return (length + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1


def same_padding(length: int, kernel: int, stride: int = 1, dilation: int = 1) -> Side:
    """The zeros before and after an axis that give ceil(length / stride) windows: "SAME" of JAX and TensorFlow.

    An odd number has the larger half after. With a stride it depends on the length, so that a layer has to be told:
    `Conv2d(3, 8, 3, stride=2, padding=(same_padding(32, 3, 2),) * 2)`.

    Raises:
        OptionError: a number below 1.
    """
    sizes = {"length": length, "kernel": kernel, "stride": stride, "dilation": dilation}
    length, kernel, stride, dilation = (checked_count(name, value, 1) for name, value in sizes.items())
    total = max((-(-length // stride) - 1) * stride + dilation * (kernel - 1) + 1 - length, 0)
    return total // 2, total - total // 2


@frozen_layer
class _Convolution(Layer):
    """z[o, t] = b[o] + sum_{c, u} W[o, c, u] x[c, s t + d u - p], y = activation(z).

    With groups, output channel o sees only the in/groups input channels of its own group. Source: Dumoulin and Visin
    (2016), "A guide to convolution arithmetic", for the arithmetic of shapes.
    """

    axes: ClassVar[int]
    in_channels: Size
    out_channels: Size
    kernel_size: Extent
    activation: ActivationName = "identity"
    stride: Extent = 1
    padding: Extent | tuple[Side, ...] | str = 0
    dilation: Extent = 1
    groups: Size = 1
    bias: Flag = True

    def __attrs_post_init__(self) -> None:
        check_divides(self, "groups", "in_channels", "out_channels")
        for name in ("kernel_size", "stride", "dilation"):
            spread(self, name, self.axes)
        if isinstance(self.padding, str) and self.padding in ("same", "valid"):
            object.__setattr__(self, "padding", self._same_padding() if self.padding == "same" else 0)
        spread_sides(self, "padding", self.axes)

    def _same_padding(self) -> tuple[Side, ...]:
        if any(s != 1 for s in self.strides):
            raise LayerError(
                f'{type(self).__name__} has padding="same" with stride={self.strides}',
                allowed='"same" with stride 1: with another stride the padding depends on the length of the axis',
                remedy="give pairs (before, after), as udlbridge.networks.layers.same_padding(32, 3, 2)",
            )
        # Any length that the kernel fits into has the same padding.
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        return tuple(same_padding(span, span) for span in spans)

    @property
    def kernel(self) -> Shape:
        """`kernel_size`, one entry per axis."""
        return self.kernel_size  # type: ignore[return-value]

    @property
    def strides(self) -> Shape:
        """`stride`, one entry per axis."""
        return self.stride  # type: ignore[return-value]

    @property
    def sides(self) -> tuple[Side, ...]:
        """`padding` as zeros before and after each axis."""
        return tuple(p if isinstance(p, tuple) else (p, p) for p in self.padding)  # type: ignore[union-attr]

    @property
    def paddings(self) -> Shape | None:
        """`padding` as one number for each axis, where both sides have as many zeros; None where they have not."""
        return None if any(before != after for before, after in self.sides) else tuple(p for p, _ in self.sides)

    @property
    def dilations(self) -> Shape:
        """`dilation`, one entry per axis."""
        return self.dilation  # type: ignore[return-value]

    @property
    def patch_size(self) -> int:
        """Numbers that one output sees: in/groups times the kernel's size."""
        return self.in_channels // self.groups * prod(self.kernel)

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` (out, in/groups, *kernel), and `bias` (out,) if there is one."""
        shapes: dict[str, Shape] = {"weight": (self.out_channels, self.in_channels // self.groups, *self.kernel)}
        if self.bias:
            shapes["bias"] = (self.out_channels,)
        return shapes

    def widths(self) -> tuple[int, int, int]:
        """The channels go from `in_channels` to `out_channels`."""
        return 0, self.in_channels, self.out_channels

    def output_shape(self, shape: Shape) -> Shape:
        """(in, *space) -> (out, *windows).

        Raises:
            ShapeError: another number of axes or channels, or a kernel that is larger than the padded sample.
        """
        name = type(self).__name__
        if len(shape) != self.axes + 1 or shape[0] != self.in_channels:
            raise ShapeError(
                f"{name}({self.in_channels}, {self.out_channels}, {self.kernel}) got a sample of shape {shape}",
                allowed=f"({self.in_channels}, {', '.join(['length'] if self.axes == 1 else ['height', 'width'])})",
                remedy=self._remedy(shape),
            )
        settings = zip(shape[1:], self.kernel, self.strides, self.sides, self.dilations, strict=True)
        windows = tuple(window_count(*axis) for axis in settings)
        if min(windows) < 1:
            raise ShapeError(
                f"{name} has a kernel of {self.kernel} with dilation {self.dilations} for a sample of shape {shape} "
                f"and padding {self.padding}",
                allowed="a kernel no larger than the padded sample",
                remedy="use a smaller kernel or more padding",
            )
        return (self.out_channels, *windows)

    def _remedy(self, shape: Shape) -> str:
        """What would make a sample of another shape fit, as far as its shape tells."""
        if len(shape) == self.axes + 1:
            if shape[-1] == self.in_channels:
                return f"put the channels first, as {(shape[-1], *shape[:-1])}"
            return f"give samples of as many channels, or make in_channels {shape[0]}"
        if len(shape) == self.axes and self.in_channels == 1:
            return f"give the one channel an axis of its own, as {(1, *shape)}"
        if len(shape) == 1 and self.axes > 1:
            side = round((shape[0] / self.in_channels) ** (1 / self.axes))
            square = (self.in_channels, *[side] * self.axes)
            return "reshape the flat samples" + (
                f", as {square} if they are square" if prod(square) == shape[0] else ""
            )
        return "give the channels the first axis, and each axis of space one"


@frozen_layer
class Conv1d(_Convolution):
    """A convolution over one axis: samples (in, length) -> (out, windows).

    z[o, t] = b[o] + sum_{c, u} W[o, c, u] x[c, s t + d u - p], y = activation(z), with stride s, dilation d, zeros as
    padding p, and c over the in/groups channels of o's group. It is a cross-correlation (the kernel is not flipped), as
    in PyTorch. Parameters: `weight` (out, in/groups, kernel) and `bias` (out,). Source: LeCun et al. (1989); Dumoulin
    and Visin (2016) for the arithmetic of shapes.

    Raises:
        LayerError: a setting of the wrong kind or range, as a width below 1, `groups` that do not divide both widths,
            or padding="same" with a stride.

    Examples:
        >>> ub.Conv1d(2, 4, 3, "relu", padding=1).output_shape((2, 10))
        (4, 10)
    """

    kind: ClassVar[str] = "conv1d"
    axes: ClassVar[int] = 1


@frozen_layer
class Conv2d(_Convolution):
    """A convolution over two axes: samples (in, height, width) -> (out, *windows); settings are (height, width).

    z[o, t, r] = b[o] + sum_{c, u, v} W[o, c, u, v] x[c, s1 t + d1 u - p1, s2 r + d2 v - p2], y = activation(z), with
    strides s, dilations d, zeros as padding p, and c over the in/groups channels of o's group. It is a
    cross-correlation (the kernel is not flipped), as in PyTorch. Parameters: `weight` (out, in/groups, kH, kW) and
    `bias` (out,). Source: LeCun et al. (1989); Dumoulin and Visin (2016) for the arithmetic of shapes.

    Raises:
        LayerError: as `Conv1d`.

    Examples:
        >>> ub.Conv2d(3, 8, 3, "relu", stride=2, padding=1).output_shape((3, 8, 8))
        (8, 4, 4)
    """

    kind: ClassVar[str] = "conv2d"
    axes: ClassVar[int] = 2


Convolution = Conv1d | Conv2d
