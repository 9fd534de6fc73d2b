"""Layers as plain data: what a network is, said once for every engine.

A layer here computes nothing. It is a frozen description: its settings, the shapes of its parameters, and the shape
that it makes of an input. Each backend translates the description into its own engine.
"""

from __future__ import annotations

from typing import Any

import attrs

from udlbridge.errors import ModelFileError
from udlbridge.networks.layers.base import Layer as Layer
from udlbridge.networks.layers.base import Shape as Shape
from udlbridge.networks.layers.base import Start as Start
from udlbridge.networks.layers.base import check_chain as check_chain
from udlbridge.networks.layers.base import shape_after as shape_after
from udlbridge.networks.layers.containers import Residual as Residual
from udlbridge.networks.layers.containers import chain as chain
from udlbridge.networks.layers.convolution import Conv1d as Conv1d
from udlbridge.networks.layers.convolution import Conv2d as Conv2d
from udlbridge.networks.layers.convolution import Convolution as Convolution
from udlbridge.networks.layers.convolution import same_padding as same_padding
from udlbridge.networks.layers.dense import Activation as Activation
from udlbridge.networks.layers.dense import Dense as Dense
from udlbridge.networks.layers.dense import Dropout as Dropout
from udlbridge.networks.layers.dense import Flatten as Flatten
from udlbridge.networks.layers.dense import LogSoftmax as LogSoftmax
from udlbridge.networks.layers.dense import Softmax as Softmax
from udlbridge.networks.layers.normalisation import BatchNorm as BatchNorm
from udlbridge.networks.layers.normalisation import GroupNorm as GroupNorm
from udlbridge.networks.layers.normalisation import LayerNorm as LayerNorm
from udlbridge.networks.layers.pooling import GlobalMeanPool as GlobalMeanPool
from udlbridge.networks.layers.pooling import MaxPool as MaxPool
from udlbridge.networks.layers.pooling import MeanPool as MeanPool
from udlbridge.networks.layers.sequence import Embedding as Embedding
from udlbridge.networks.layers.sequence import LearnedPositions as LearnedPositions
from udlbridge.networks.layers.sequence import SelfAttention as SelfAttention
from udlbridge.networks.layers.sequence import SinusoidalPositions as SinusoidalPositions
from udlbridge.networks.layers.sequence import Take as Take
from udlbridge.networks.layers.settings import ACTIVATIONS as ACTIVATIONS

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
            allowed=", ".join(field.name for field in attrs.fields(cls)),
            remedy="save the model again with this version",
        ) from error
