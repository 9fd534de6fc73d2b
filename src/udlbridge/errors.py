"""Every error that udlbridge raises on purpose, with the cause and the remedy in its message."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"\[(?:Errno|WinError) -?\d+\] ")
"""How Python begins what an error of the operating system says."""


def plain(words: str) -> str:
    """What was said, without the numbers that operating systems give their errors, which tell a reader nothing."""
    return _NUMBER.sub("", words)


def composed(given: str, allowed: str, remedy: str) -> str:
    """The message of an error, of its three parts; those that are empty are left out."""
    parts = [given.rstrip(".") + "."]
    if allowed:
        parts.append(f"Allowed: {allowed.rstrip('.')}.")
    if remedy:
        parts.append(f"What to do: {remedy.rstrip('.')}.")
    return " ".join(parts)


class UDLBridgeWarning(UserWarning):
    """A warning of this package; the test suite turns it into an error."""


class UDLBridgeError(Exception):
    """Base of all errors raised on purpose.

    The message says what was given, what is allowed, and what to do. `shell` is what to do at the command line, where
    that is another thing than in Python.

    Examples:
        >>> try:
        ...     ub.Dense(0, 1)
        ... except ub.UDLBridgeError as error:
        ...     print(error.allowed is not None, error.remedy is not None)
        True True
    """

    def __init__(self, given: str, *, allowed: str = "", remedy: str = "", shell: str = "") -> None:
        self.given = plain(given)
        self.allowed = allowed
        self.remedy = remedy
        self.shell = shell
        super().__init__(composed(self.given, allowed, remedy))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, which by itself would call the class with the finished message. Process pools hand errors on."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[UDLBridgeError], args: tuple[Any, ...]) -> UDLBridgeError:
    """An error with its finished message, which those that are an OSError too do not take from `__new__`."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InputError(UDLBridgeError, ValueError):
    """Data that cannot be a batch of samples: NaN, infinity, empty, an object array."""


class ShapeError(InputError):
    """An array whose shape does not fit."""


class DTypeError(InputError, TypeError):
    """An array of a dtype that is not allowed, or another than the model's."""


class OutputsError(UDLBridgeError, ValueError):
    """An `outputs=` reduction that does not exist or is out of range."""


class LayerError(UDLBridgeError, ValueError):
    """A layer with impossible settings: unknown activation, zero width."""


class ParameterError(UDLBridgeError, ValueError):
    """Parameters that are missing, unknown, misshapen or not finite."""


class GraphError(UDLBridgeError, ValueError):
    """A graph that cannot be: an unknown operation, a cycle, shapes that do not fit."""


class ModelFileError(UDLBridgeError, ValueError):
    """A model file that cannot be read: truncated, foreign, of another format version."""


class ConversionError(UDLBridgeError, ValueError):
    """A network of another library that has no translation, or none that would be equal."""


class DataError(UDLBridgeError, OSError):
    """A data set that cannot be found, downloaded or trusted."""


class OptionError(UDLBridgeError, ValueError):
    """A named option (method, optimiser, loss, device, ...) that does not exist or does not fit."""


class ConfigError(UDLBridgeError, ValueError):
    """A configuration file or environment variable that cannot be used."""


class NumericalError(UDLBridgeError, ArithmeticError):
    """A quantity that is not defined for these numbers (a vanishing norm, a NaN loss)."""


class TrainingDiverged(NumericalError):  # noqa: N818 - reads as the condition that it names
    """A loss, or a parameter, that is no longer finite. `run` is the training up to the last good epoch."""

    def __init__(self, given: str, *, run: Any, allowed: str = "", remedy: str = "") -> None:
        super().__init__(given, allowed=allowed, remedy=remedy)
        self.run = run


class RunFileError(UDLBridgeError, ValueError):
    """A file of a training run that cannot be read, or that belongs to another training."""


class StoreError(UDLBridgeError, OSError):
    """A kernel store that cannot be opened, trusted or written."""


class BackendError(UDLBridgeError):
    """A backend that does not exist or cannot do what was asked."""


class UnknownBackend(BackendError, ValueError):  # noqa: N818 - reads as the condition that it names
    """A backend name that is not one of the choices."""


class BackendUnavailable(BackendError, RuntimeError):  # noqa: N818
    """A backend that exists but cannot run here."""


class TorchUnavailable(BackendUnavailable):
    """PyTorch cannot be imported."""


class JuliaUnavailable(BackendUnavailable):
    """Julia, or a Julia package that the bridge needs, cannot be used.

    Examples:
        >>> try:
        ...     k = ub.ntk(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS, backend="julia")
        ... except ub.JuliaUnavailable as error:
        ...     k = ub.ntk(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS, backend="torch")
        >>> k.round(3)
        array([[14.229, 11.109],
               [11.109,  9.095]], dtype=float32)
    """
