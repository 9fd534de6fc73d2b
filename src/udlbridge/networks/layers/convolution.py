"""Convolutions, in PyTorch's meaning of every setting: a cross-correlation, not flipped, over (channels, *space)."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from udlbridge.errors import LayerError, ShapeError
from udlbridge.networks.layers.base import Layer, Shape
from udlbridge.networks.layers.settings import ActivationName, Extent, Flag, Size, check_divides, frozen_layer, spread


def window_count(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows of a kernel fit into a padded axis: floor((L + 2p - d (k-1) - 1) / s) + 1; below 1: none."""
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


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
    padding: Extent | str = 0
    dilation: Extent = 1
    groups: Size = 1
    bias: Flag = True

    def __attrs_post_init__(self) -> None:
        check_divides(self, "groups", "in_channels", "out_channels")
        for name in ("kernel_size", "stride", "dilation"):
            spread(self, name, self.axes)
        if isinstance(self.padding, str) and self.padding in ("same", "valid"):
            object.__setattr__(self, "padding", self._same_padding() if self.padding == "same" else 0)
        spread(self, "padding", self.axes, least=0)

    def _same_padding(self) -> Shape:
        needed = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]
        if any(s != 1 for s in self.strides) or any(total % 2 for total in needed):
            raise LayerError(
                f'{type(self).__name__} has padding="same" with kernel_size={self.kernel} and stride={self.strides}',
                allowed='"same" with stride 1 and odd kernels, which pad both sides alike',
                remedy="give the padding as numbers",
            )
        return tuple(total // 2 for total in needed)

    @property
    def kernel(self) -> Shape:
        """`kernel_size`, one entry per axis."""
        return self.kernel_size  # type: ignore[return-value]

    @property
    def strides(self) -> Shape:
        """`stride`, one entry per axis."""
        return self.stride  # type: ignore[return-value]

    @property
    def paddings(self) -> Shape:
        """`padding`, one entry per axis."""
        return self.padding  # type: ignore[return-value]

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
        """(in, *space) -> (out, *windows)."""
        name = type(self).__name__
        if len(shape) != self.axes + 1 or shape[0] != self.in_channels:
            raise ShapeError(
                f"{name}({self.in_channels}, {self.out_channels}, {self.kernel}) got a sample of shape {shape}",
                allowed=f"({self.in_channels}, {', '.join(['length'] if self.axes == 1 else ['height', 'width'])})",
                remedy="put the channels first, or correct in_channels",
            )
        settings = zip(shape[1:], self.kernel, self.strides, self.paddings, self.dilations, strict=True)
        windows = tuple(window_count(*axis) for axis in settings)
        if min(windows) < 1:
            raise ShapeError(
                f"{name} has a kernel of {self.kernel} with dilation {self.dilations} for a sample of shape {shape} "
                f"and padding {self.paddings}",
                allowed="a kernel no larger than the padded sample",
                remedy="use a smaller kernel or more padding",
            )
        return (self.out_channels, *windows)


@frozen_layer
class Conv1d(_Convolution):
    """A convolution over one axis: samples (in, length) -> (out, windows).

    z[o, t] = b[o] + sum_{c, u} W[o, c, u] x[c, s t + d u - p], y = activation(z), with stride s, dilation d, zeros as
    padding p, and c over the in/groups channels of o's group. It is a cross-correlation (the kernel is not flipped), as
    in PyTorch. Parameters: `weight` (out, in/groups, kernel) and `bias` (out,). Source: LeCun et al. (1989); Dumoulin
    and Visin (2016) for the arithmetic of shapes.
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
    """

    kind: ClassVar[str] = "conv2d"
    axes: ClassVar[int] = 2


Convolution = Conv1d | Conv2d
