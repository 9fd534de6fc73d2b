"""Losses by name, the targets that they take, and what counts as an error. Each engine computes them by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from udlbridge.arrays import as_array
from udlbridge.backends.jobs import Slopes
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.options import brief, checked_positive
from udlbridge.texts import counted, nearest
from udlbridge.words import LossWord

LOSSES: dict[str, str] = {
    "mse": "mean over samples and outputs of (f - y)^2",
    "cross_entropy": "mean over samples of -sum_a y_a log softmax(f)_a",
    "binary_cross_entropy": "mean over samples and outputs of log(1 + exp(f)) - y f",
    "nll": "mean over samples of -sum_a y_a log p_a, for a network that ends in Softmax (p are its outputs) or in "
    "LogSoftmax (log p are); after a sigmoid, mean over samples and outputs of -(y log p + (1 - y) log(1 - p))",
}
"""Name of every loss, and its formula; f are the network's outputs, so the two cross-entropies take logits."""


ALIASES = {
    "MSELoss": "mse", "CrossEntropyLoss": "cross_entropy", "BCEWithLogitsLoss": "binary_cross_entropy",
    "NLLLoss": "nll",
}  # fmt: skip
"""What PyTorch calls them."""


@dataclass(frozen=True, eq=False)
class Sobolev:
    """Values of a network at some samples and slopes at others; `udlbridge.udl.losses.sobolev` makes one.

    The loss is the mean over samples of sum_a (f_a - y_a)^2 + weight sum_ad (d f_a / d x_d - s_ad)^2, where the sums go
    over what was observed: NaN in `slopes` (n, O, *D), and in the targets y (n, O), means nothing was.

    Source: Czarnecki et al. (2017), equation 1.
    """

    slopes: np.ndarray
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_positive("weight", self.weight))


Loss = LossWord | Sobolev


def checked_loss(loss: object) -> str:
    """The name of the loss, if there is a loss of that name.

    Raises:
        OptionError: otherwise.
    """
    if isinstance(loss, Sobolev):
        return "sobolev"
    name = ALIASES.get(loss, loss) if isinstance(loss, str) else loss
    if isinstance(name, str) and name in LOSSES:
        return name
    remedy = f"choose one of these names{nearest(name, LOSSES)}"
    if not isinstance(name, str):
        remedy = "choose one of these names"
    elif name in ("nll_loss", "crossentropy", "binarycrossentropy"):
        remedy = 'use "nll": the negative log likelihood of probabilities'
    elif name == "sobolev":
        remedy = "it has targets of its own: loss=ub.losses.sobolev(slopes)"
    elif name in ("logitcrossentropy", "logitbinarycrossentropy"):
        remedy = f'use "{"binary_" if "binary" in name else ""}cross_entropy": it takes logits'
    raise OptionError(f"unknown loss {brief(name)}", allowed=", ".join(LOSSES), remedy=remedy)


def checked_targets(
    loss: str, y: object, n: int, n_outputs: int, dtype: np.dtype[np.floating], name: str = "y"
) -> Float[np.ndarray, "n outputs"]:
    """`y` as an array (n, O) of the model's dtype.

    Args:
        loss: one of `LOSSES` but "nll", or "sobolev".
        y: class numbers (n,) from 0 to O - 1 (0 and 1 for a single output); or values (n, O), or (n,) for O = 1. For
            "sobolev", NaN where no value was observed.
        n, n_outputs: what the network gives.
        dtype: the model's.
        name: what the error calls it.

    Raises:
        ShapeError: of another length, or not one row of O values for each sample.
        InputError: not finite, class numbers that do not exist, or values that the loss does not take.
    """
    array = as_array(y, name, wanted=np.float64)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has dtype {array.dtype}", allowed="numbers", remedy="convert the labels to numbers")
    if array.ndim == 0 or len(array) != n:
        raise ShapeError(
            f"{name} has shape {array.shape} for {counted(n, 'sample')}",
            allowed=f"{n} class numbers, or ({n}, {n_outputs})",
            remedy="one label for each sample, in their order",
        )
    if array.ndim == 1 and n_outputs > 1 and loss != "sobolev":
        return _one_hot(array, n_outputs, name).astype(dtype)
    if array.ndim == 1:
        array = array[:, None]
    if array.shape != (n, n_outputs):
        raise ShapeError(
            f"{name} has shape {array.shape} for {counted(n, 'sample')} and {counted(n_outputs, 'output')}",
            allowed=f"({n},) class numbers, or ({n}, {n_outputs})",
            remedy="np.eye(n_outputs)[labels] makes one-hot rows",
        )
    if loss == "sobolev":
        return _observed(name, array, dtype)
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinity", allowed="finite numbers", remedy="clean the labels")
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    if not np.isfinite(values).all():
        raise InputError(
            f"{name} has values up to {np.abs(array).max():.3g}, which {dtype} does not hold",
            allowed=f"numbers of {dtype}",
            remedy="scale the targets, or train a float64 model",
        )
    if loss == "cross_entropy":
        if n_outputs == 1:
            raise InputError(
                "cross_entropy of a single output is zero for every network",
                allowed="at least two outputs",
                remedy='use "binary_cross_entropy", or a second output',
            )
        if (array < 0).any() or not np.allclose(array.sum(axis=1), 1.0, atol=1e-5):
            raise InputError(
                f"rows of {name} that are not probabilities",
                allowed="for cross_entropy, the loss, class numbers, one-hot rows, or rows that sum to 1",
                remedy='of classes give np.eye(n_outputs)[labels]; of numbers to fit, loss="mse"',
            )
    if loss == "binary_cross_entropy" and ((array < 0) | (array > 1)).any():
        raise InputError(
            f"{name} has values from {array.min()} to {array.max()}",
            allowed="0 to 1 for binary_cross_entropy",
            remedy="(y + 1) / 2 for labels of -1 and +1",
        )
    return values


def checked_slopes(
    loss: Sobolev, y: Float[np.ndarray, "n outputs"], x: np.ndarray, dtype: np.dtype[np.floating]
) -> Slopes:
    """The slopes of a loss for samples `x` (n, *D) with targets `y`, of the model's dtype.

    Raises:
        ShapeError: not (n, O, *D).
        InputError: infinite, or neither a value nor a slope was observed; or samples that are tokens.
    """
    if x.dtype.kind != "f":
        raise InputError(
            "slopes of a model that begins with an Embedding, or of several inputs: these have no derivatives",
            allowed="models of real numbers",
            remedy='fit values alone, with loss="mse"',
        )
    given = as_array(loss.slopes, "slopes", wanted=np.float64)
    shape = (*y.shape, *x.shape[1:])
    if given.shape != shape:
        raise ShapeError(
            f"slopes of shape {given.shape}",
            allowed=f"{shape}: of every sample, every output by every input; NaN where none was observed",
            remedy="reshape them",
        )
    values = _observed("slopes", given, dtype)
    if np.isnan(y).all() and np.isnan(values).all():
        raise InputError(
            "targets without any observation", allowed="at least one number in y or slopes", remedy="NaN means none"
        )
    return Slopes(values, loss.weight)


def _observed(name: str, array: np.ndarray, dtype: np.dtype[np.floating]) -> np.ndarray:
    """Numbers, or NaN where nothing was observed."""
    if array.dtype.kind not in "biuf" or np.isinf(array).any():
        raise InputError(f"{name} with entries that are not numbers, or infinite", allowed="numbers, NaN where none",
                         remedy="clean the data")  # fmt: skip
    return np.ascontiguousarray(array, dtype=dtype)


def _one_hot(labels: np.ndarray, n_outputs: int, name: str) -> Float[np.ndarray, "n outputs"]:
    if (labels != np.floor(labels)).any() or (labels < 0).any() or (labels >= n_outputs).any():
        raise InputError(
            f"{name} has the values {np.unique(labels)[:10].tolist()}",
            allowed=f"class numbers from 0 to {n_outputs - 1}, or an array (n, {n_outputs})",
            remedy="np.unique(labels, return_inverse=True)[1] numbers the classes from 0",
        )
    return np.eye(n_outputs)[labels.astype(np.int64)]


def class_marks(loss: str, targets: Float[np.ndarray, "n outputs"]) -> tuple[float, float] | None:
    """How the training targets mark what a sample is not and what it is: (0, 1) or (-1, 1); None for regression."""
    if loss == "sobolev":
        return None
    if loss == "cross_entropy" or np.isin(targets, (0.0, 1.0)).all():
        return 0.0, 1.0
    return (-1.0, 1.0) if loss == "mse" and np.isin(targets, (-1.0, 1.0)).all() else None


def classes(
    loss: str, targets: Float[np.ndarray, "n outputs"], marks: tuple[float, float] | None
) -> Int[np.ndarray, " n"] | None:
    """The class of every sample, None where the targets are not classes (regression)."""
    if marks is None:
        return None
    if loss == "cross_entropy":
        return np.argmax(targets, axis=1)
    if not np.isin(targets, marks).all():
        return None
    marked = (targets == 1).astype(np.int64)
    if targets.shape[1] == 1:
        return marked[:, 0]
    return np.argmax(marked, axis=1) if (marked.sum(axis=1) == 1).all() else None


def predicted(loss: str, outputs: Float[np.ndarray, "n outputs"], marks: tuple[float, float]) -> Int[np.ndarray, " n"]:
    """The class that the network gives to every sample: the largest output, or which side of the middle it is on."""
    if outputs.shape[1] > 1:
        return np.argmax(outputs, axis=1)
    middle = 0.0 if loss == "binary_cross_entropy" else sum(marks) / 2
    return (outputs[:, 0] > middle).astype(np.int64)


def check_several_classes(loss: str, targets: Float[np.ndarray, "n outputs"]) -> None:
    """Refuse training data of a single class.

    Raises:
        InputError: a classifier would learn to say the same of everything.
    """
    hard = np.isin(targets, (0.0, 1.0)).all()
    if loss == "mse" or loss == "sobolev" or not hard or len(targets) < 2 or (targets != targets[0]).any():
        return
    if loss == "cross_entropy" or targets.shape[1] == 1:
        only = int(np.argmax(targets[0])) if targets.shape[1] > 1 else int(targets[0, 0])
        raise InputError(
            f"all {len(targets)} training samples are of class {only}",
            allowed="at least two classes",
            remedy="check the selection of samples, and whether they are sorted by class",
        )
