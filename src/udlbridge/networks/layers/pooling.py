"""Pooling over windows of a sample (channels, *space), channel by channel, and over all of space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from udlbridge.errors import LayerError, ShapeError
from udlbridge.networks.layers.base import Layer, Shape, per_axis, whole
from udlbridge.networks.layers.convolution import Extent, window_count


@dataclass(frozen=True)
class _Pool(Layer):
    """Settings of both pools: windows of `kernel_size`, `stride` apart (None: side by side), over `dims` axes.

    `dims` is 2 unless `kernel_size` is a tuple of another length: `MaxPool(2)` pools images, `MaxPool(2, dims=1)`
    series.
    """

    keeps: ClassVar[frozenset[int]] = frozenset({0})
    kernel_size: Extent
    stride: Extent | None = None
    padding: Extent = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        dims = self.dims
        if dims is None:
            dims = len(self.kernel_size) if isinstance(self.kernel_size, list | tuple) else 2
        dims = whole(dims)
        if dims not in (1, 2):
            raise LayerError(f"{name} has dims={self.dims!r}", allowed="1 or 2", remedy="correct dims or kernel_size")
        object.__setattr__(self, "dims", dims)
        object.__setattr__(self, "kernel_size", per_axis(name, "kernel_size", self.kernel_size, dims))
        stride = self.kernel_size if self.stride is None else self.stride
        object.__setattr__(self, "stride", per_axis(name, "stride", stride, dims))
        object.__setattr__(self, "padding", per_axis(name, "padding", self.padding, dims, least=0))
        if any(2 * p > k for p, k in zip(self.paddings, self.kernel, strict=True)):
            raise LayerError(
                f"{name} has padding={self.paddings} for kernel_size={self.kernel}",
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

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, *space) -> (channels, *windows)."""
        name = type(self).__name__
        if len(shape) != len(self.kernel) + 1:
            raise ShapeError(
                f"{name} over {len(self.kernel)} axes got a sample of shape {shape}",
                allowed="channels first, then " + ("(length,)" if len(self.kernel) == 1 else "(height, width)"),
                remedy=f"say dims=1 or dims=2, as {name}(2, dims=1)",
            )
        windows = tuple(
            window_count(length, k, s, p, 1)
            for length, k, s, p in zip(shape[1:], self.kernel, self.strides, self.paddings, strict=True)
        )
        if min(windows) < 1:
            raise ShapeError(
                f"{name} has windows of {self.kernel} for a sample of shape {shape}",
                allowed="windows no larger than the padded sample",
                remedy="use smaller windows",
            )
        return (shape[0], *windows)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """y[c, t] = max_u x[c, s t + u - p], the largest entry of every window; padding never wins.

    Where several entries are largest, the derivative goes to the first of them in C order, as in PyTorch.
    Source: Yamaguchi et al. (1990); Dumoulin and Visin (2016) for the arithmetic of shapes.
    """

    kind: ClassVar[str] = "maxpool"


@dataclass(frozen=True)
class MeanPool(_Pool):
    """y[c, t] = 1/k sum_u x[c, s t + u - p], the mean of every window of k entries.

    Padding counts as zeros, as in PyTorch (`count_include_pad=True`) and Flux. Source: LeCun et al. (1998), layer S2
    without its trained scale; Dumoulin and Visin (2016) for the arithmetic of shapes.
    """

    kind: ClassVar[str] = "meanpool"


@dataclass(frozen=True)
class GlobalMeanPool(Layer):
    """y[c] = 1/N sum_t x[c, t] over all of space: (channels, *space) -> (channels, 1, ...), as `Flatten()` needs it.

    Source: Lin, Chen, Yan (2014), section 3.2.
    """

    kind: ClassVar[str] = "globalmeanpool"
    keeps: ClassVar[frozenset[int]] = frozenset({0})

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, *space) -> (channels, 1, ...)."""
        if len(shape) < 2:
            raise ShapeError(
                f"GlobalMeanPool got a sample of shape {shape}",
                allowed="(channels, length) or (channels, height, width)",
                remedy="put it before Flatten()",
            )
        return (shape[0], *(1 for _ in shape[1:]))
