"""Networks of another width: the same layers, with every hidden layer as wide as one says."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from udlbridge.errors import LayerError, OptionError
from udlbridge.networks.layers import Conv1d, Conv2d, Dense, Layer, LayerNorm, Residual
from udlbridge.options import checked_count, checked_list


def checked_widths(widths: object) -> tuple[int, ...]:
    """Widths of hidden layers, at least one.

    Raises:
        OptionError: no whole numbers of at least 1 in a list.
    """
    given = checked_list("widths", widths, "whole numbers of at least 1, in a list", "as widths=(32, 128, 512)")
    if not given:
        raise OptionError("no widths", allowed="at least one", remedy="as (32, 128, 512)")
    return tuple(checked_count("widths", width, 1) for width in given)


def widened(layers: Sequence[Layer], width: int, shape: tuple[int, ...]) -> list[Layer]:
    """The layers with `width` neurons or channels in each but the last one with weights, which keeps its outputs.

    Args:
        layers: a chain that ends in weights, perhaps with an activation after them.
        width: neurons, or channels, of every hidden layer.
        shape: of one sample.

    Raises:
        LayerError: the chain itself does not end in a layer with weights.
    """
    weighted = [index for index, layer in enumerate(layers) if isinstance(layer, Dense | Conv1d | Conv2d)]
    if not weighted or any(isinstance(layer, Residual) for layer in layers[weighted[-1] :]):
        raise LayerError(
            "a chain that does not end in a layer with weights",
            allowed="a last Dense layer after all others with weights",
            remedy="add ub.Dense(features, 1)",
        )
    return _chain(layers, width, shape, weighted[-1])[0]


def _chain(
    layers: Sequence[Layer], width: int, shape: tuple[int, ...], last: int | None
) -> tuple[list[Layer], tuple[int, ...]]:
    """The new layers, and the shape after them; layer `last` keeps its outputs."""
    wide: list[Layer] = []
    for index, layer in enumerate(layers):
        new = _wide(layer, width, shape, keeps=index == last)
        shape = new.output_shape(shape)
        wide.append(new)
    return wide, shape


def _wide(layer: Layer, width: int, shape: tuple[int, ...], *, keeps: bool) -> Layer:
    if isinstance(layer, Dense):
        return attrs.evolve(layer, in_features=shape[-1], out_features=layer.out_features if keeps else width)
    if isinstance(layer, Conv1d | Conv2d):
        return attrs.evolve(layer, in_channels=shape[0], out_channels=layer.out_channels if keeps else width)
    if isinstance(layer, LayerNorm):
        return attrs.evolve(layer, normalized_shape=shape[-len(layer.shape) :])
    if isinstance(layer, Residual):
        inside, _ = _chain(layer.layers, width, shape, None)
        return Residual(inside, _chain(layer.shortcut, width, shape, None)[0])
    return layer
