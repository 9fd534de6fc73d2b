"""A place where Julia runs, as others reach it, and what it holds for them."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from udlbridge.errors import BackendError


class Host(ABC):
    """A place in which a `Service` takes calls, one after the other."""

    @abstractmethod
    def call(self, method: str, *args: Any) -> Any:
        """What the method of the service returns or raises.

        Raises:
            BackendError: the place went while it was asked.
        """

    @abstractmethod
    def call_into(self, out: np.ndarray, method: str, *args: Any) -> None:
        """Have the method, which is given an array like `out` as its last argument, write to `out`.

        Raises:
            BackendError: the place went while it was asked.
        """

    @abstractmethod
    def forget(self, number: int) -> None:
        """The caller will not ask for this again. It may be called at any time, in any thread, and does not wait."""

    def start(self) -> None:  # noqa: B027 - a place may be there from the beginning
        """Start Julia there, if it does not run."""

    @property
    def running(self) -> bool:
        """Whether Julia runs there."""
        return True

    def has(self, number: int) -> bool:
        """Whether what it held under that number is still there."""
        return True

    def rest(self) -> None:  # noqa: B027 - a place may keep nothing
        """Give back what was kept for the next call of `call_into`."""

    def close(self) -> None:  # noqa: B027 - a place may be this process
        """Let it go; the next call makes it anew."""


class Held:
    """What the service of a host holds for a caller: factors, a training. It goes there when nobody holds it here."""

    def __init__(self, host: Host, number: int) -> None:
        self.host, self._number = host, number
        weakref.finalize(self, host.forget, number).atexit = False  # then all of it goes

    @property
    def there(self) -> bool:
        """Whether its host holds it still."""
        return self.host.has(self._number)

    @property
    def number(self) -> int:
        """Under which its host holds it.

        Raises:
            BackendError: it went with the process that held it.
        """
        if not self.there:
            raise BackendError(
                "the process of Julia that held this has ended",
                allowed="factors, trainings and models of Julia that were made since",
                remedy="make it anew",
            )
        return self._number
