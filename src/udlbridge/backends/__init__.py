"""Engines by name: `get("torch")`, `usable()`, and which one is the default."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from udlbridge.backends.base import Availability, Backend
from udlbridge.errors import BackendUnavailable, JuliaUnavailable, TorchUnavailable, UnknownBackend

ENVIRONMENT_VARIABLE = "UDLBRIDGE_BACKEND"


def _reference() -> Backend[Any]:
    from udlbridge.backends.reference.engine import ReferenceBackend

    return ReferenceBackend()


def _torch() -> Backend[Any]:
    from udlbridge.backends.pytorch.engine import TorchBackend

    return TorchBackend()


def _julia() -> Backend[Any]:
    from udlbridge.backends.julia.engine import JuliaBackend

    return JuliaBackend()


# Julia stands first: where several engines start in one process, starting Julia before torch is the safer order
# (PythonCall.jl issue 384).
BACKENDS: dict[str, Callable[[], Backend[Any]]] = {"julia": _julia, "torch": _torch, "reference": _reference}
"""The registry: a backend's name, and what builds it."""


def checked_name(name: object) -> str:
    """`name`, if there is such a backend.

    Raises:
        UnknownBackend: otherwise, naming the choices.
    """
    if isinstance(name, str) and name in BACKENDS:
        return name
    raise UnknownBackend(f"unknown backend {name!r}", allowed=", ".join(BACKENDS), remedy="use one of these names")


def default_name() -> str:
    """$UDLBRIDGE_BACKEND if set, else "torch" if it can be imported, else "reference"."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return checked_name(chosen)
    return "torch" if importlib.util.find_spec("torch") is not None else "reference"


@cache
def _build(name: str) -> Backend[Any]:
    return BACKENDS[name]()


def get(name: str | None = None, *, install: bool = True) -> Backend[Any]:
    """The backend called `name`, or the default one; it is built once in a process.

    Julia that is not set up yet is downloaded through juliapkg if `install` allows it; this takes minutes and says so.

    Raises:
        UnknownBackend: no such backend.
        BackendUnavailable: it cannot run here; the message says why and what mends it.
    """
    checked = checked_name(default_name() if name is None else name)
    state = availability(checked)
    if not state.ok and not (state.installable and install):
        error = {"julia": JuliaUnavailable, "torch": TorchUnavailable}.get(checked, BackendUnavailable)
        raise error(state.reason, remedy=state.remedy)
    return _build(checked)


def availability(name: str) -> Availability:
    """Whether the backend called `name` can run here. For Julia this looks; it starts nothing."""
    if checked_name(name) == "torch" and importlib.util.find_spec("torch") is None:
        return Availability(False, "PyTorch is not installed", "pip install torch")
    if name == "julia":
        from udlbridge.backends.julia import runtime

        return runtime.availability()
    return Availability(True)


def require_torch() -> None:
    """Raise `TorchUnavailable` where PyTorch cannot be imported, for what is not an engine's work."""
    state = availability("torch")
    if not state.ok:
        raise TorchUnavailable(state.reason, remedy=state.remedy)


def usable() -> list[str]:
    """Names of the backends that can run here, in the order in which they are best started."""
    return [name for name in BACKENDS if availability(name).ok]


def chosen(names: Sequence[str] | None) -> list[str]:
    """`names` checked and in starting order, without repetition; None means all that are usable."""
    if names is None:
        return usable()
    for name in names:
        checked_name(name)
    return [name for name in BACKENDS if name in names]
