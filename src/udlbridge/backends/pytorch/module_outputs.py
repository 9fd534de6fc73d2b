"""The outputs (n, O) among what a module's forward returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from udlbridge.backends.pytorch.tracing import REORDERINGS, shape_of
from udlbridge.errors import ConversionError, DTypeError, ShapeError
from udlbridge.options import brief
from udlbridge.texts import kind_of

Choice = str | int | Callable[[Any], Any] | None
"""Which of several outputs counts: a key or attribute, a position, or a function of what forward returns."""


ENDINGS = {"SoftmaxBackward0": "Softmax", "LogSoftmaxBackward0": "LogSoftmax", "SigmoidBackward0": "sigmoid"}
"""Nodes of autograd's graph that make probabilities, or their logarithms, of logits."""


def ending_of(y: Tensor) -> str | None:
    """What makes the outputs y (n, O) of logits, where it gave them in that shape; None for anything else."""
    node: Any = y.grad_fn
    while node is not None and node.name() in REORDERINGS and shape_of(node, 0) == tuple(y.shape):
        node = node.next_functions[0][0]
    return None if node is None or shape_of(node, 0) != tuple(y.shape) else ENDINGS.get(node.name())


def output_tensor(y: Any, n: int, output: Choice, name: str) -> Tensor:
    """The outputs (n, O) among what forward returned.

    Raises:
        ConversionError: there is no such output, or it is not a tensor.
        ShapeError: it does not have one row for each sample.
        DTypeError: it is not of real numbers.
    """
    y = requested(y, output, name)
    if not isinstance(y, Tensor):
        keys = f", with {', '.join(map(repr, y))}" if isinstance(y, Mapping) else ""
        raise ConversionError(
            f"{name} gives {kind_of(y)}{keys}",
            allowed="one tensor (n, O)",
            remedy="say which of its outputs counts, as output='logits' or output=0, or "
            "wrap it in a module whose forward returns the tensor, as y['logits'] or y[0]",
            shell="say which of its outputs counts, as --output logits or --output 0, or wrap it in a module whose "
            "forward returns the tensor",
        )
    if y.ndim == 0 or len(y) != n:
        raise ShapeError(
            f"{name} gives a tensor of shape {tuple(y.shape)} for {n} sample{'s' * (n > 1)}",
            allowed=f"({n}, *outputs): samples along the first axis",
            remedy="keep that axis in the module's forward",
        )
    if not y.is_floating_point():
        raise DTypeError(
            f"{name} gives outputs of dtype {str(y.dtype).removeprefix('torch.')}",
            allowed="real numbers that depend on the parameters",
            remedy="return the logits",
        )
    return y.reshape(n, -1)


def requested(y: Any, output: Choice, name: str) -> Any:
    """Which part of what forward returned was asked for.

    Raises:
        ConversionError: there is no such output.
    """
    if output is None:
        return y
    if callable(output):
        return output(y)
    try:
        if isinstance(output, str) and not isinstance(y, Mapping):
            return getattr(y, output)
        return y[output]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        known = list(y) if isinstance(y, Mapping) else list(vars(y)) if hasattr(y, "__dict__") else []
        raise ConversionError(
            f"output={brief(output)} of {kind_of(y)}, which {name} gives",
            allowed=", ".join(map(repr, known)) or "a position, or a function of what forward returns",
            remedy="correct output",
        ) from error
