"""What a network ends in, logits or probabilities, and which losses go with it.

"cross_entropy" and "binary_cross_entropy" apply softmax and sigmoid themselves. For a network that has done it already
there is "nll", the negative log likelihood of its probabilities. Engines compute it from the logits that these
probabilities are made of: it is the same function, and where a probability is too small for a float, its logarithm and
the gradient are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import numpy as np

from udlbridge.errors import OptionError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import output_size
from udlbridge.networks.layers import (
    Activation,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LogSoftmax,
    Softmax,
    Take,
    shape_after,
)
from udlbridge.networks.model import Model
from udlbridge.options import brief

OF_LOGITS = {"Softmax": "cross_entropy", "LogSoftmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}
"""What makes probabilities, or their logarithms, of logits; and the loss of these logits that is "nll" of them."""


NOT_AFTER = {
    # After LogSoftmax it is right: the softmax of log-probabilities gives the probabilities.
    "cross_entropy": ("Softmax",),
    "binary_cross_entropy": ("Softmax", "LogSoftmax", "sigmoid"),
}
"""Losses that apply softmax or sigmoid themselves, and the endings after which that would be the second time."""


class Ending(NamedTuple):
    """What the last layer that changes numbers makes of logits: one of `OF_LOGITS`; and the number of that layer."""

    kind: str
    layer: int


def ending(model: Model) -> Ending | None:
    """What makes the outputs of logits, as far as layers after it only choose or arrange; None for other networks."""
    for index in reversed(range(len(model.layers))):
        layer = model.layers[index]
        if isinstance(layer, Softmax):
            return Ending("Softmax", index)
        if isinstance(layer, LogSoftmax):
            return Ending("LogSoftmax", index)
        if isinstance(layer, Dense | Conv1d | Conv2d | Activation) and layer.activation == "sigmoid":
            return Ending("sigmoid", index)
        still = isinstance(layer, Activation) and layer.activation == "identity"
        if not still and not isinstance(layer, Dropout | Flatten | Take):
            return None
    return None


class Objective(NamedTuple):
    """A loss as engines compute it: its name, and the network whose outputs it is of, with the parameters of the other.

    It is another network than the one that is trained for "nll" alone: that gives probabilities, and this the logits.
    """

    loss: str
    model: Any


def objective(model: Model | ForeignNetwork, loss: str, x: np.ndarray) -> Objective:
    """What engines compute for a loss (a name of `objectives.LOSSES`, or "sobolev") of a network on samples like `x`.

    Raises:
        OptionError: softmax or sigmoid would be applied twice; or "nll" of a network that gives no probabilities.
    """
    if isinstance(model, ForeignNetwork):
        return _of_foreign(model, loss)
    end = ending(model)
    if loss == "nll":
        return _of_logits(model, end, x)
    if end is not None:
        _check_once(loss, end.kind, f"layer {end.layer}")
    return Objective(loss, model)


def _check_once(loss: str, kind: str, where: str) -> None:
    """Raise `OptionError` where softmax or sigmoid would be applied a second time."""
    if kind in NOT_AFTER.get(loss, ()):
        own = "softmax" if loss == "cross_entropy" else "sigmoid"
        what = "log-probabilities" if kind == "LogSoftmax" else "probabilities"
        raise OptionError(
            f"loss={brief(loss)} applies {own} to outputs that are {what} already: {where} ends in {kind}",
            allowed='logits; or loss="nll", the negative log likelihood of probabilities',
            remedy=f'leave the {kind} out and train the logits, or use loss="nll"',
        )


def _of_foreign(network: ForeignNetwork, loss: str) -> Objective:
    """For somebody's own network, whose last step cannot be left out."""
    kind = network.ending()
    if loss != "nll":
        if kind is not None:
            _check_once(loss, kind, network.name)
        return Objective(loss, network)
    if kind != "LogSoftmax":
        raise OptionError(
            f'loss="nll" of {network.name}, whose outputs are not log-probabilities',
            allowed="modules that end in log_softmax, with outputs (n, O)",
            remedy='give the logits, and use "cross_entropy" (classes) or "binary_cross_entropy" (yes or no)',
        )
    # The softmax of log-probabilities gives the probabilities.
    return Objective("cross_entropy", network)


def _of_logits(model: Model, end: Ending | None, x: np.ndarray) -> Objective:
    if end is None:
        raise OptionError(
            'loss="nll" of a network whose outputs are not probabilities',
            allowed=f"networks that end in {', '.join(OF_LOGITS)}",
            remedy='for logits, use "cross_entropy" (classes) or "binary_cross_entropy" (yes or no)',
        )
    layers: list[Layer] = list(model.layers)
    last = layers[end.layer]
    # After a layer that is left out the names of parameters would change; and one that stays may have none.
    layers[end.layer] = (
        attrs.evolve(last, activation="identity")
        if isinstance(last, Dense | Conv1d | Conv2d)
        else Activation("identity")
    )
    classes = shape_after(model.layers[: end.layer], x.shape[1:])[-1]
    width = output_size(model, x.shape[1:])
    if end.kind != "sigmoid" and width != classes:
        raise OptionError(
            f'loss="nll" of {width} outputs, in several distributions over {classes} classes each',
            allowed="one distribution for each sample",
            remedy="take one of them with Take, or train on each as a sample",
        )
    return Objective(OF_LOGITS[end.kind], Model(layers, model.arrays, dtype=model.dtype))
