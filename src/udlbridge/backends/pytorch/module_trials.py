"""A module tried on some samples before its outputs are believed: they are the same twice, and for each alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from udlbridge.backends.pytorch.layouts import agree
from udlbridge.backends.pytorch.watching import OutsideTableError, Watching
from udlbridge.errors import ConversionError, InputError, ShapeError, UDLBridgeError
from udlbridge.networks.several import fields_of, named
from udlbridge.texts import counted

Evaluation = Callable[[np.ndarray], tuple[Tensor, Watching]]
"""Samples to outputs (n, O), and what was noted on the way; its tables are noted too."""


@dataclass(frozen=True)
class Trial:
    """The samples of `indices`, or the one twice, evaluated together: outputs (n, O), and what was noted on the way.

    `batch`: what they are samples of, which errors call `name`, and the module `network`.
    """

    network: str
    evaluate: Evaluation
    batch: np.ndarray
    name: str
    indices: tuple[int, ...]
    samples: np.ndarray
    y: Tensor
    watching: Watching

    @classmethod
    def of(cls, network: str, evaluate: Evaluation, batch: np.ndarray, indices: Sequence[int], name: str) -> Trial:
        """Evaluate the samples of `indices` together.

        Raises:
            ConversionError: random numbers are drawn.
            InputError: samples that the module does not take.
        """
        some = batch[list(indices) if len(indices) > 1 else [0, 0]]
        y, watching = _tried(network, evaluate, some, batch, name)
        if watching.draws:
            raise _random(network, f" ({watching.draws[0]})")
        return cls(network, evaluate, batch, name, tuple(indices), some, y, watching)

    def check_alone(self) -> None:
        """Evaluate each of the samples alone: the outputs have to be those that it has beside the others.

        Where they are not, a second evaluation of all says whether the reason is chance or the batch.

        Raises:
            ConversionError: they are random, or one sample depends on the others.
        """
        for position, sample in enumerate(self.indices):
            cause: UDLBridgeError | None = None
            try:
                alone, _ = _tried(self.network, self.evaluate, self.batch[[sample]], self.batch, self.name)
                own = alone[0].detach()
                if agree(own, self.y[position].detach()):
                    continue
                reason = f"its outputs differ by {self._gap(own, position):.3g} from those that it has by itself"
            except UDLBridgeError as error:
                cause, reason = error, f"by itself it fails: {error.given}"
            self._raise_mixed(sample, reason, cause)

    def check_among(self, x: np.ndarray, y: Tensor, now: Callable[[np.ndarray], Tensor]) -> None:
        """Hold the outputs y (n, O) of more samples x against those of the trial, where the first or last is of it.

        `now`: the outputs of the trial's samples, by the parameters that y is by. In another thread somebody may have
        changed these since the trial.

        Raises:
            ConversionError: they are random, or one sample depends on the others.
        """
        ends = [(x[at].tobytes(), y[at].detach()) for at in (0, -1)]
        for position, sample in enumerate(self.indices):
            tried = self.samples[position].tobytes()
            for own, found in ends:
                if own != tried or agree(found, self.y[position].detach()):
                    continue
                if not agree(found, now(self.samples)[position].detach()):
                    self.check_alone()  # which says more, where it shows there
                    gap = self._gap(found, position)
                    self._raise_mixed(sample, f"its outputs differ by {gap:.3g} from those beside others", None)

    def _gap(self, own: Tensor, position: int) -> float:
        return float((own - self.y[position].detach()).abs().max())

    def _raise_mixed(self, sample: int, reason: str, cause: UDLBridgeError | None) -> NoReturn:
        again, _ = _tried(self.network, self.evaluate, self.samples, self.batch, self.name)
        if not agree(self.y.detach(), again.detach()):
            raise _random(self.network, ": two evaluations differ")
        raise _mixed(self.network, sample, reason) from cause


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
        return f"see whether module({name}[:1]) works by itself; correct {name}, or forward"
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
    for field, part in fields_of(batch).items():
        found: Any = np.argwhere(part == error.token) if part.dtype.kind in "iu" else []
        if len(found):
            index = tuple(int(i) for i in found[0])
            return InputError(
                f"{named(name, field)} is {error.token} at {index}, in sample {index[0]}",
                allowed=f"tokens from 0 to {error.rows - 1}",
                remedy="check the tokeniser",
            )
    return InputError(
        f"a token {error.token}, made from {name}, for a table of {counted(error.rows, 'row')}",
        allowed=f"tokens from 0 to {error.rows - 1}",
        remedy="check the tokeniser",
    )
