"""Layers of vectors: Dense, activations, softmax, and the two that change nothing or only the shape."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from udlbridge.errors import ShapeError
from udlbridge.networks.layers.base import Layer, Shape
from udlbridge.networks.layers.settings import ActivationName, Flag, Probability, Size, frozen_layer


@frozen_layer
class Dense(Layer):
    """y = activation(W x + b) on the last axis. Parameters: `weight` (out, in) and `bias` (out,).

    Raises:
        LayerError: a width below 1, an unknown activation, or a `bias` that is not a truth value.

    Source: Prince, Understanding Deep Learning (2023), section 4.4.

    Examples:
        >>> ub.Dense(784, 60, "sigmoid").output_shape((784,))
        (60,)
    """

    kind: ClassVar[str] = "dense"
    in_features: Size
    out_features: Size
    activation: ActivationName = "identity"
    bias: Flag = True

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
        """(*rest, in) -> (*rest, out).

        Raises:
            ShapeError: the last axis is not `in_features` wide.
        """
        if not shape or shape[-1] != self.in_features:
            # A remedy that can work: to flatten what has other numbers, or nothing to flatten, cannot.
            width = prod(shape)
            remedy = f"give samples of {self.in_features} numbers, or make it Dense({width}, {self.out_features})"
            if len(shape) > 1:
                corrected = "" if width == self.in_features else f", and make it Dense({width}, {self.out_features})"
                remedy = f"put Flatten() before it{corrected}"
            raise ShapeError(
                f"Dense({self.in_features}, {self.out_features}) got a sample of shape {shape}",
                allowed=f"a last axis of {self.in_features}",
                remedy=remedy,
            )
        return (*shape[:-1], self.out_features)


@frozen_layer
class Activation(Layer):
    """y = activation(x), elementwise: one of `ACTIVATIONS`, where the formulas are.

    Raises:
        LayerError: an unknown activation.

    Sources: Hendrycks and Gimpel (2016) for gelu; Ramachandran et al. (2017) for swish; Clevert et al. (2016) for elu;
    Maas et al. (2013) for leakyrelu; Klambauer et al. (2017) for selu; Misra (2020) for mish.

    Examples:
        >>> model = ub.Model([ub.Activation("relu"), ub.Dense(2, 1)])
        >>> ub.outputs(model, -np.eye(2, dtype="float32")).ravel()
        array([0., 0.], dtype=float32)
    """

    kind: ClassVar[str] = "activation"
    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})
    activation: ActivationName


@frozen_layer
class _Normalising(Layer):
    """Softmax and LogSoftmax, which need an axis to sum over."""

    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; a sample needs at least one axis.

        Raises:
            ShapeError: it has none.
        """
        if not shape:
            raise ShapeError(
                f"{self.kind} got a scalar sample", allowed="a sample with at least one axis", remedy="reshape"
            )
        return shape


@frozen_layer
class Softmax(_Normalising):
    """y_a = exp(x_a) / sum_b exp(x_b) along the last axis (Flux: dims=1; PyTorch: dim=-1).

    Source: Bridle (1990); Prince, Understanding Deep Learning (2023), section 5.5.

    Examples:
        >>> ub.Softmax().output_shape((10,))
        (10,)
    """

    kind: ClassVar[str] = "softmax"


@frozen_layer
class LogSoftmax(_Normalising):
    """y_a = x_a - log sum_b exp(x_b) along the last axis (Flux: dims=1; PyTorch: dim=-1): the logarithm of Softmax.

    Source: Bridle (1990) for softmax; Blanchard, Higham, Higham (2021) for the form without overflow.

    Examples:
        >>> ub.LogSoftmax().output_shape((10,))
        (10,)
    """

    kind: ClassVar[str] = "logsoftmax"


@frozen_layer
class Flatten(Layer):
    """y[(i N_2 + j) N_3 + k] = x[i, j, k]: all axes of a sample in one, in C order (the last axis runs fastest).

    Source: PyTorch's `torch.nn.Flatten`. Flux's `Flux.flatten` is the same on its reversed axes.

    Examples:
        >>> ub.Flatten().output_shape((3, 8, 8))
        (192,)
    """

    kind: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape) -> Shape:
        """(*D) -> (prod D,)."""
        size = 1
        for axis in shape:
            size *= axis
        return (size,)


@frozen_layer
class Dropout(Layer):
    """The identity: kernels and derivatives are those of inference, where dropout does nothing.

    `p`, from 0 to below 1, is kept for training and for other programs. Source: Srivastava et al. (2014), in the
    inverted form that scales during training and not afterwards.

    Raises:
        LayerError: another `p`.

    Examples:
        >>> ub.Dropout(0.5).output_shape((7,))
        (7,)
    """

    kind: ClassVar[str] = "dropout"
    keeps: ClassVar[frozenset[int]] = frozenset({0, -1})
    p: Probability = 0.5
