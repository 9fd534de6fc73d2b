"""Engines by name: `get("torch")`, `usable()`, and which one is the default.

An engine is an entry point of the group `udlbridge.backends`, which names an `Engine`. Those of this package are found
in the same way as anyone's: a further one needs a package of its own, and nothing here.

Examples:
    >>> "reference" in ub.backends.usable()
    True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from udlbridge.backends.base import Backend
from udlbridge.backends.engine import Availability, Engine
from udlbridge.errors import BackendError, BackendUnavailable, OptionError, TorchUnavailable, UnknownBackend
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.options import brief, checked_list
from udlbridge.texts import completion, kind_of, nearest
from udlbridge.words import EngineName

__all__ = ["Availability", "Backend", "Engine", "availability", "engines", "get", "usable"]
__dir__ = completion(__all__)

GROUP = "udlbridge.backends"
"""The group of entry points that engines are found by."""

SHIPPED = ("julia", "torch", "reference")
"""Engines of this package: where one has no entry point, the installation is not whole."""

ENVIRONMENT_VARIABLE = "UDLBRIDGE_BACKEND"


class _Broken(Engine):
    """An engine whose entry point does not lead to one."""

    def __init__(self, point: EntryPoint, reason: str) -> None:
        self.name = point.name
        self._reason = f"the entry point {point.name} = {point.value} {reason}"
        self._package = "udlbridge" if point.dist is None else point.dist.name

    def availability(self) -> Availability:
        """It cannot run."""
        return Availability(False, self._reason, f"install {self._package} again, or uninstall it")

    def load(self) -> Backend[Any]:
        """Nothing can be loaded."""
        raise BackendError(self._reason)


@cache
def engines() -> Mapping[str, Engine]:
    """Every engine that is installed, by name, in the order in which they are best started.

    Raises:
        BackendError: two packages have engines of the same name.
    """
    found: dict[str, Engine] = {}
    for point in entry_points(group=GROUP):
        if point.name in found:
            raise BackendError(
                f"two engines are called {point.name!r}, one of them {point.value}",
                allowed="one engine of a name",
                remedy="uninstall one of the two packages",
            )
        found[point.name] = _named(point)
    return dict(sorted(found.items(), key=lambda item: (item[1].start_order, item[0])))


def _named(point: EntryPoint) -> Engine:
    try:
        named = point.load()
    except Exception as error:  # anyone's package may fail in any way, and must not take the others along
        return _Broken(point, f"cannot be loaded ({type(error).__name__}: {error})")
    if not isinstance(named, Engine):
        return _Broken(point, f"names {kind_of(named)}, which is no Engine")
    if named.name != point.name:
        return _Broken(point, f"names an engine that calls itself {named.name!r}")
    return named


def engine(name: str) -> Engine:
    """The facts of the engine called `name`, whether or not it can run here.

    Raises:
        UnknownBackend: there is none.
        BackendUnavailable: there is nothing behind its entry point.
    """
    found = engines()[checked_name(name)]
    if isinstance(found, _Broken):
        state = found.availability()
        raise BackendUnavailable(state.reason, remedy=state.remedy)
    return found


def checked_name(name: object) -> EngineName:
    """`name`, if there is such an engine.

    Raises:
        UnknownBackend: otherwise, naming the choices.
    """
    if isinstance(name, str) and name in engines():
        return name
    remedy = f"use one of these names{nearest(name, engines())}"
    if isinstance(name, str) and name in SHIPPED:
        remedy = f"install udlbridge again (pip install): it is installed without its entry points {GROUP}"
    raise UnknownBackend(f"unknown backend {brief(name)}", allowed=", ".join(engines()), remedy=remedy)


def default_name(among: Collection[str] | None = None) -> EngineName:
    """$UDLBRIDGE_BACKEND if set, else "torch" if it can be imported, else "reference", else any that can run.

    `among`: the engines to choose from, where not all compute what is asked for.

    Raises:
        UnknownBackend: the variable names no engine, or none is installed.
    """
    asked = os.environ.get(ENVIRONMENT_VARIABLE)
    if asked and (checked_name(asked) in (engines() if among is None else among)):
        return asked
    names = list(engines() if among is None else among) or [checked_name("torch")]
    return next((name for name in ("torch", "reference", *names) if name in names and availability(name).ok), names[0])


def computing(network: object) -> list[str]:
    """Names of the engines that compute a network, whether or not they can run here, in starting order."""
    if not isinstance(network, ForeignNetwork):
        return list(engines())
    if network.engine is not None:
        return [network.engine]
    return [
        name
        for name, one in engines().items()
        if network.operations <= one.graph_operations and one.several_inputs >= network.takes_several
    ]


def check_ability(what: str, name: str, able: Callable[[Engine], bool]) -> None:
    """Refuse `what`, in words, of the engine called `name` where it is not able to.

    Raises:
        UnknownBackend: there is no such engine.
        OptionError: it is not able, naming those that are.
    """
    if not able(engine(name)):
        others = [f"backend={other.name!r}" for other in engines().values() if able(other)]
        raise OptionError(
            f"{what} with backend={name!r}",
            allowed=" or ".join(others) or "engines that have them, of which none is installed",
            remedy="name one of these" if others else "leave it out",
        )


def get(name: str | None = None, *, install: bool = False) -> Backend[Any]:
    """The backend called `name`, or the default one; it is started once in a process.

    Nothing is downloaded unless `install` allows it: then Julia, where it is not set up yet, through juliapkg, which
    takes minutes and says so.

    Raises:
        UnknownBackend: no such backend.
        BackendUnavailable: it cannot run here; the message says why and what mends it.
    """
    checked = checked_name(default_name() if name is None else name)
    state = availability(checked)
    if state.installable and install:
        engine(checked).install()
        state = availability(checked)
    if not state.ok:
        raise engine(checked).unavailable(state.reason, remedy=state.remedy)
    return _started(checked)


@cache
def _started(name: str) -> Backend[Any]:
    return engine(name).load()


def availability(name: str) -> Availability:
    """Whether the engine called `name` can run here. This looks; it starts nothing.

    Raises:
        UnknownBackend: there is no engine of that name.
    """
    return engines()[checked_name(name)].availability()


def checked_device(name: str, device: object) -> str:
    """`device`, if the engine called `name` knows devices of that kind; it says itself whether one is there.

    Raises:
        OptionError: otherwise, naming an engine that does.
    """
    kinds = engine(name).devices
    kind = device.split(":")[0] if isinstance(device, str) else None
    if isinstance(device, str) and kind in kinds:
        return device
    others = [f"backend={other.name!r}" for other in engines().values() if kind in other.devices]
    raise OptionError(
        f"device={brief(device)} with backend={name!r}",
        allowed=", ".join(kinds),
        remedy="use " + " or ".join(others) if others else "choose one of these",
    )


def require_torch() -> None:
    """Raise `TorchUnavailable` where PyTorch cannot be imported, for what is not an engine's work."""
    state = availability("torch")
    if not state.ok:
        raise TorchUnavailable(state.reason, remedy=state.remedy)


def usable() -> list[EngineName]:
    """Names of the engines that can run here, in the order in which they are best started."""
    return [name for name in engines() if availability(name).ok]


def selected(names: str | Sequence[str] | None) -> list[EngineName]:
    """`names` checked and in starting order, without repetition; None and "all" mean all that are usable.

    Args:
        names: one name, several with commas ("torch,reference"), or a list of names.

    Raises:
        UnknownBackend: one of the names is not that of an engine.
        OptionError: no names.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    if names is None:
        return usable()
    listed = checked_list(
        "engines", names, f'"all", or some of {", ".join(engines())}', 'name them in a list, or as "torch,reference"'
    )
    if listed == ["all"]:
        return usable()
    found = [checked_name(name) for name in listed]
    return [name for name in engines() if name in found]


def one_or_more(names: str | Sequence[str] | None) -> list[EngineName]:
    """As `selected`, of at least one name.

    Raises:
        UnknownBackend: one of the names is not that of an engine.
        OptionError: no names, or an empty list of them.
    """
    found = selected(names)
    if not found:
        raise OptionError("no engine", allowed="at least one", remedy='name one, or "all"')
    return found
