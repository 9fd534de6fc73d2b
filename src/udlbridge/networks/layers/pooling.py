"""Pooling over windows of a sample (channels, *space), channel by channel, and over all of space."""

from __future__ import annotations

from typing import ClassVar

from udlbridge.errors import LayerError, ShapeError
from udlbridge.networks.layers.base import Layer, Shape
from udlbridge.networks.layers.convolution import window_count
from udlbridge.networks.layers.settings import Axes, Extent, frozen_layer, several, spread


@frozen_layer
class _Pool(Layer):
    """Settings of both pools: windows of `kernel_size`, `stride` apart (None: side by side), over `dims` axes.

    `dims` is 2 unless `kernel_size` is a tuple of another length: `MaxPool(2)` pools images, `MaxPool(2, dims=1)`
    series.
    """

    keeps: ClassVar[frozenset[int]] = frozenset({0})
    kernel_size: Extent
    stride: Extent | None = None
    padding: Extent = 0
    dims: Axes = None

    def __attrs_post_init__(self) -> None:
        axes = self.dims or (1 if len(several(self.kernel_size, 2)) == 1 else 2)
        object.__setattr__(self, "dims", axes)
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel_size)
        spread(self, "kernel_size", axes)
        spread(self, "stride", axes)
        spread(self, "padding", axes, least=0)
        if any(2 * p > k for p, k in zip(self.paddings, self.kernel, strict=True)):
            raise LayerError(
                f"{type(self).__name__} has padding={self.paddings} for kernel_size={self.kernel}",
                allowed="at most half the kernel, so that no window lies outside the sample",
                remedy="pad less",
            )

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
    def sides(self) -> tuple[tuple[int, int], ...]:
        """`padding` before and after each axis: the same."""
        return tuple((p, p) for p in self.paddings)

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, *space) -> (channels, *windows).

        Raises:
            ShapeError: another number of axes, or windows that are larger than the padded sample.
        """
        name = type(self).__name__
        if len(shape) != len(self.kernel) + 1:
            raise ShapeError(
                f"{name} over {len(self.kernel)} axes got a sample of shape {shape}",
                allowed="channels first, then " + ("(length,)" if len(self.kernel) == 1 else "(height, width)"),
                remedy=f"say dims=1 or dims=2, as {name}(2, dims=1)",
            )
        windows = tuple(
            window_count(length, k, s, (p, p), 1)
            for length, k, s, p in zip(shape[1:], self.kernel, self.strides, self.paddings, strict=True)
        )
        if min(windows) < 1:
            raise ShapeError(
                f"{name} has windows of {self.kernel} for a sample of shape {shape}",
                allowed="windows no larger than the padded sample",
                remedy="use smaller windows",
            )
        return (shape[0], *windows)


@frozen_layer
class MaxPool(_Pool):
    """y[c, t] = max_u x[c, s t + u - p], the largest entry of every window; padding never wins.

    Where several entries are largest, the derivative goes to the first of them in C order, as in PyTorch.
    Source: Yamaguchi et al. (1990); Dumoulin and Visin (2016) for the arithmetic of shapes.

    Raises:
        LayerError: a size below 1, or padding of more than half the kernel.

    Examples:
        >>> ub.MaxPool(2).output_shape((3, 8, 8))
        (3, 4, 4)
    """

    kind: ClassVar[str] = "maxpool"


@frozen_layer
class MeanPool(_Pool):
    """y[c, t] = 1/k sum_u x[c, s t + u - p], the mean of every window of k entries.

    Padding counts as zeros, as in PyTorch (`count_include_pad=True`) and Flux. Source: LeCun et al. (1998), layer S2
    without its trained scale; Dumoulin and Visin (2016) for the arithmetic of shapes.

    Raises:
        LayerError: as `MaxPool`.

    Examples:
        >>> ub.MeanPool(2).output_shape((3, 8, 8))
        (3, 4, 4)
    """

    kind: ClassVar[str] = "meanpool"


@frozen_layer
class GlobalMeanPool(Layer):
    """y[c] = 1/N sum_t x[c, t] over all of space: (channels, *space) -> (channels, 1, ...), as `Flatten()` needs it.

    Source: Lin, Chen, Yan (2014), section 3.2.

    Examples:
        >>> ub.GlobalMeanPool().output_shape((3, 8, 8))
        (3, 1, 1)
    """

    kind: ClassVar[str] = "globalmeanpool"
    keeps: ClassVar[frozenset[int]] = frozenset({0})

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, *space) -> (channels, 1, ...).

        Raises:
            ShapeError: there are no axes after the channels.
        """
        if len(shape) < 2:
            raise ShapeError(
                f"GlobalMeanPool got a sample of shape {shape}",
                allowed="(channels, length) or (channels, height, width)",
                remedy="put it before Flatten()",
            )
        return (shape[0], *(1 for _ in shape[1:]))
