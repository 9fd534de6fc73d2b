"""A module tried on some samples before its outputs are believed: they are the same twice, and for each alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from udlbridge.backends.pytorch.layouts import agree
from udlbridge.backends.pytorch.watching import OutsideTableError, Watching
from udlbridge.errors import ConversionError, InputError, ShapeError, UDLBridgeError
from udlbridge.texts import counted

Evaluation = Callable[[np.ndarray], tuple[Tensor, Watching]]
"""Samples to outputs (n, O), and what was noted on the way; its tables are noted too."""


@dataclass(frozen=True)
class Trial:
    """The samples that were evaluated together, their outputs (n, O), and what was noted on the way."""

    samples: np.ndarray
    y: Tensor
    watching: Watching


def check_evaluation(network: str, evaluate: Evaluation, batch: np.ndarray, samples: Sequence[int], name: str) -> Trial:
    """Evaluate the samples of indices `samples` together, and each alone: the outputs have to be the same.

    Where they are not, a second evaluation of all says whether the reason is chance or the batch. `network` and `name`:
    what errors call the module, and its samples.

    Raises:
        ConversionError: they are random, or one sample depends on the others.
        InputError: samples that the module does not take.
    """
    some = batch[list(samples) if len(samples) > 1 else [0, 0]]
    together, watching = _tried(network, evaluate, some, batch, name)
    y = together.detach()
    if watching.draws:
        raise _random(network, f" ({watching.draws[0]})")
    for position, sample in enumerate(samples):
        cause: UDLBridgeError | None = None
        try:
            alone, _ = _tried(network, evaluate, batch[[sample]], batch, name)
            own = alone[0].detach()
            if agree(own, y[position]):
                continue
            gap = (own - y[position]).abs().max().item()
            reason = f"its outputs differ by {gap:.3g} from those that it has by itself"
        except UDLBridgeError as error:
            cause, reason = error, f"by itself it fails: {error.given}"
        if not agree(y, _tried(network, evaluate, some, batch, name)[0].detach()):
            raise _random(network, ": two evaluations differ")
        raise _mixed(network, sample, reason) from cause
    return Trial(some, together, watching)


def _random(network: str, reason: str) -> ConversionError:
    return ConversionError(
        f"{network} draws random numbers{reason}, so its outputs are random",
        allowed="networks in inference mode",
        remedy="call module.eval() first, and give functional.dropout training=self.training",
    )


def _mixed(network: str, sample: int, reason: str) -> ConversionError:
    return ConversionError(
        f"sample {sample} depends on the other samples of its batch in {network}: {reason}",
        allowed="networks that take each sample by itself",
        remedy="look for means, sums or a softmax over the first axis, statistics of the batch, and layers that "
        "expect the samples along another axis, as batch_first=False",
    )


def _tried(
    network: str, evaluate: Evaluation, some: np.ndarray, batch: np.ndarray, name: str
) -> tuple[Tensor, Watching]:
    """Outputs, where whatever the module may raise says which input it does not take."""
    try:
        y, watching = evaluate(some)
        for field, rows in watching.tables.items():
            part = batch if field == "" else batch[field]
            outside = part[(part < 0) | (part >= rows)]
            if outside.size:
                raise OutsideTableError(int(outside[0]), rows)
    except UDLBridgeError:
        raise
    except OutsideTableError as error:
        raise _token_error(error, batch, name) from error
    except Exception as error:  # the module is the caller's: it may raise anything
        raise InputError(
            f"{network} cannot take samples of shape {_shapes(some)} ({type(error).__name__}: {error})",
            allowed=f"samples {name} that module({name}[:1]) takes",
            remedy=_remedy(str(error), some, name),
        ) from error
    return y, watching


def _remedy(said: str, some: np.ndarray, name: str) -> str:
    """What to do where torch says that the width of a linear layer is another: the samples alone need not be at fault.

    Torch has no error of its own for this, so its words are read; where they are others, the advice is the general one.
    """
    widths = re.search(r"cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", said)
    if widths is None:
        return f"correct {name}"
    got, wanted = map(int, widths.groups())
    shape = some.shape[1:]
    if len(shape) > 1 and prod(shape) == wanted:
        return f"put nn.Flatten() before its linear layer, or give {name}.reshape(len({name}), {wanted})"
    return f"a linear layer takes {wanted} numbers and gets {got}: correct {name}, or in_features"


def check_same(batch: np.ndarray, other: np.ndarray, name: str) -> None:
    """Raise `ShapeError` for samples of another shape or dtype than those that came before."""
    if (batch.dtype, batch.shape[1:]) != (other.dtype, other.shape[1:]):
        raise ShapeError(
            f"the samples of {name} have shape {_shapes(batch)}, those of x {_shapes(other)}",
            allowed="the same shape",
            remedy="prepare both in the same way",
        )


def _shapes(batch: np.ndarray) -> str:
    if batch.dtype.names is None:
        return str(batch.shape[1:])
    return str({field: batch.dtype[field].shape for field in batch.dtype.names})


def _token_error(error: OutsideTableError, batch: np.ndarray, name: str) -> InputError:
    parts = {"": batch} if batch.dtype.names is None else {field: batch[field] for field in batch.dtype.names}
    for field, part in parts.items():
        found: Any = np.argwhere(part == error.token) if part.dtype.kind in "iu" else []
        if len(found):
            index = tuple(int(i) for i in found[0])
            where = f"{name}{f'[{field!r}]' if field else ''}"
            return InputError(
                f"{where} is {error.token} at {index}, in sample {index[0]}",
                allowed=f"tokens from 0 to {error.rows - 1}",
                remedy="check the tokeniser",
            )
    return InputError(
        f"a token {error.token}, made from {name}, for a table of {counted(error.rows, 'row')}",
        allowed=f"tokens from 0 to {error.rows - 1}",
        remedy="check the tokeniser",
    )
