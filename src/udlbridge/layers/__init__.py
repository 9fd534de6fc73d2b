"""Layers as plain data: what a network is, said once for every engine.

A layer here computes nothing. It is a frozen description: its settings, the shapes of its parameters, and the shape
that it makes of an input. Each backend translates the description into its own engine.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from udlbridge.errors import ModelFileError
from udlbridge.layers.base import ACTIVATIONS as ACTIVATIONS
from udlbridge.layers.base import Layer as Layer
from udlbridge.layers.base import Shape as Shape
from udlbridge.layers.base import Start as Start
from udlbridge.layers.base import check_activation as check_activation
from udlbridge.layers.base import check_chain as check_chain
from udlbridge.layers.base import shape_behind as shape_behind
from udlbridge.layers.containers import Residual as Residual
from udlbridge.layers.convolution import Conv1d as Conv1d
from udlbridge.layers.convolution import Conv2d as Conv2d
from udlbridge.layers.convolution import Convolution as Convolution
from udlbridge.layers.dense import Activation as Activation
from udlbridge.layers.dense import Dense as Dense
from udlbridge.layers.dense import Dropout as Dropout
from udlbridge.layers.dense import Flatten as Flatten
from udlbridge.layers.dense import LogSoftmax as LogSoftmax
from udlbridge.layers.dense import Softmax as Softmax
from udlbridge.layers.normalisation import BatchNorm as BatchNorm
from udlbridge.layers.normalisation import GroupNorm as GroupNorm
from udlbridge.layers.normalisation import LayerNorm as LayerNorm
from udlbridge.layers.pooling import GlobalMeanPool as GlobalMeanPool
from udlbridge.layers.pooling import MaxPool as MaxPool
from udlbridge.layers.pooling import MeanPool as MeanPool
from udlbridge.layers.sequence import Embedding as Embedding
from udlbridge.layers.sequence import LearnedPositions as LearnedPositions
from udlbridge.layers.sequence import SelfAttention as SelfAttention
from udlbridge.layers.sequence import SinusoidalPositions as SinusoidalPositions
from udlbridge.layers.sequence import Take as Take

_CLASSES: tuple[type[Layer], ...] = (
    *(Dense, Activation, Softmax, LogSoftmax, Flatten, Dropout),
    *(Conv1d, Conv2d, MaxPool, MeanPool, GlobalMeanPool),
    *(LayerNorm, GroupNorm, BatchNorm),
    *(Embedding, SinusoidalPositions, LearnedPositions, SelfAttention, Take),
    Residual,
)

LAYERS: dict[str, type[Layer]] = {cls.kind: cls for cls in _CLASSES}
"""The registry: what a layer is called in a file, and its class."""


def layer_from_spec(spec: dict[str, Any]) -> Layer:
    """The layer that `Layer.spec` described.

    Raises:
        ModelFileError: if the kind is unknown or the settings do not fit it.
    """
    settings = dict(spec) if isinstance(spec, dict) else {}
    kind = settings.pop("kind", None)
    cls = LAYERS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ModelFileError(
            f"the model contains a layer of kind {kind!r}",
            allowed=", ".join(LAYERS),
            remedy="update udlbridge, or save the model again with this version",
        )
    try:
        return cls.from_settings(settings, layer_from_spec)
    except TypeError as error:
        raise ModelFileError(
            f"the settings {settings} do not describe a layer of kind {kind!r} ({error})",
            allowed=", ".join(field.name for field in dataclasses.fields(cls)),
            remedy="save the model again with this version",
        ) from error
