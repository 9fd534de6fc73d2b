"""Calls of public functions that cannot be meant, refused as options are: what is allowed, and what to do."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from udlbridge.errors import OptionError
from udlbridge.texts import nearest

P = ParamSpec("P")
R = TypeVar("R")


def explained(*, called: str = "", **remedies: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, or an `__init__`: `OptionError`, not `TypeError`, for arguments that it does not take.

    Args:
        called: what the error calls it; its own name if it is empty.
        remedies: what to do, by the name of a keyword that others would try; `positional` for too many arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        known = [name for name in signature.parameters if name != "self"]
        name = called or function.__name__

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            unknown = next((word for word in kwargs if word not in known), None)
            if unknown is not None:
                remedy = remedies.get(unknown, f"correct the name{nearest(unknown, known)}")
                raise OptionError(f"{name}({unknown}=...)", allowed=", ".join(known), remedy=remedy)
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                remedy = f"see help(ub.{name})"
                if "too many" in str(error):
                    remedy = remedies.get("positional", "give the options by name")
                elif "missing" in str(error):
                    remedy = remedies.get(str(error).rpartition(" argument: ")[2].strip("'"), "give it")
                raise OptionError(f"{name}(...): {error}", allowed=f"{name}({_shown(known)})", remedy=remedy) from None
            return function(*args, **kwargs)

        return checked

    return decorate


def _shown(names: list[str]) -> str:
    """The first names of a long list."""
    return ", ".join(names if len(names) < 9 else [*names[:8], "..."])
