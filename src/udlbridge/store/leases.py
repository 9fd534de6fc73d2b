"""One writer at a URL: an object that says who writes, which its writer renews, and which is void once it is old.

Where a storage makes an object only if there is none, and changes it only if it is as it was found (S3, Google's and
Azure's do), of two writers one is refused. A server that takes both orders without looking is found out, and then each
waits and looks whether what stands there in the end is its own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from udlbridge.atomic import partial_of
from udlbridge.errors import StoreError
from udlbridge.store.files import Url
from udlbridge.store.names import LOCK
from udlbridge.store.processes import is_gone, this_process
from udlbridge.store.requesting import obstore_modules, put, repeated

LEASE = 60.0
"""Seconds after which a lease that nobody renewed counts no more."""

RENEW = LEASE / 6
"""Seconds from one renewal to the next."""

SETTLE = 3.0
"""Seconds that a writer waits where conditions are not looked at, for others that came at the same moment."""


class Lease:
    """The lease of a URL while it is held. `inherited`: whether that of a dead writer was found there."""

    def __init__(self, url: Url, store: Any) -> None:
        self._url, self._store = url, store
        self._writer = uuid.uuid4().hex
        self.inherited = False
        self._mark: Any = None
        self._renewals = 0
        self._conditional = True
        self._renewed = time.monotonic()
        self._lost = False
        self._ended = threading.Event()

    def check(self) -> None:
        """Find out whether it is held still.

        Raises:
            StoreError: somebody else has it, or it could not be renewed in time, so that somebody may.
        """
        if self._lost or time.monotonic() - self._renewed > LEASE:
            raise StoreError(
                f"the right to write to {self._url} was lost: it was not renewed in time, or removed",
                allowed="a line to the storage that is not interrupted for long",
                remedy="see that nobody else writes there, and begin again",
            )

    def take(self) -> None:
        """Have it from now on.

        Raises:
            StoreError: another writer has it.
            OSError: the storage does not answer, or refuses.
        """
        left = self._left_by_a_dead_writer()
        self._put(left or "create")
        self.inherited = left is not None
        try:
            put(self._store, LOCK, self._words(), "create")
        except FileExistsError:
            return
        self._conditional = False
        time.sleep(SETTLE)
        self._check_own()

    def _words(self) -> bytes:
        """What the object says. No two are alike."""
        self._renewals += 1
        words = {"writer": self._writer, "host": socket.gethostname(), **this_process()}
        return json.dumps({**words, "renewals": self._renewals}).encode()

    def _put(self, mode: Any) -> None:
        """Write the lease, and remember what it is known by.

        Raises:
            StoreError: it is not as it was found.
        """
        try:
            self._mark = put(self._store, LOCK, self._words(), mode)
        except FileExistsError:
            raise self._refused("somebody who came at the same moment") from None

    def _left_by_a_dead_writer(self) -> dict[str, Any] | None:
        """What is known of a lease that does not count any more, None where there is none.

        It is of a process of this machine that is gone, or it is too old, by the storage's own clock.

        Raises:
            StoreError: it counts.
        """
        obstore, clock = obstore_modules(), str(partial_of(PurePosixPath(LOCK)))
        try:
            found = self._found()
        except FileNotFoundError:
            return None
        if is_gone(found[0]):
            return _version(found[1])
        put(self._store, clock, b"")
        try:
            now = repeated(lambda: obstore.head(self._store, clock))["last_modified"]
        finally:
            repeated(lambda: obstore.delete(self._store, clock))
        if (now - found[1]["last_modified"]).total_seconds() <= LEASE:
            raise self._refused(found[0])
        return _version(found[1])

    def _found(self) -> tuple[str, Any]:
        """What stands there, and what it is known by."""

        def ask() -> tuple[str, Any]:
            found = obstore_modules().get(self._store, LOCK)
            return bytes(found.bytes()).decode(errors="replace"), found.meta

        return repeated(ask)

    def _check_own(self) -> None:
        """Raise `StoreError` unless the lease that stands there is this one."""
        found, _ = self._found()
        if self._writer not in found:
            raise self._refused(found)

    def _refused(self, by: str) -> StoreError:
        return StoreError(
            f"another process is writing to {self._url} ({by[:200]})",
            allowed="one writer",
            remedy=f"wait until it has finished; if it was killed, its right to write ends after {LEASE:.0f} seconds",
        )

    def keep(self) -> None:
        """Renew it until it is ended: what a thread does."""
        while not self._ended.wait(RENEW):
            asked = time.monotonic()
            try:
                if self._conditional:
                    self._put(_version(self._mark))
                else:
                    self._check_own()
                    self._put("overwrite")
                self._renewed = asked
            except (StoreError, FileNotFoundError):
                self._lost = True
                return
            except OSError:
                continue  # the next time, if there is one before the lease is too old

    def end(self) -> None:
        """Give it up, if it is held still."""
        self._ended.set()
        with contextlib.suppress(OSError):  # it is another's, or nobody answers
            self._check_own()
            repeated(lambda: obstore_modules().delete(self._store, LOCK))


def _version(known: Any) -> dict[str, Any]:
    return {name: known[name] for name in ("e_tag", "version") if known.get(name) is not None}


@contextlib.contextmanager
def leased(url: Url, store: Any) -> Iterator[Lease]:
    """Hold the right to write under a URL.

    Raises:
        StoreError: another writer has it.
        OSError: the storage does not answer, or refuses.
    """
    lease = Lease(url, store)
    lease.take()
    keeper = threading.Thread(target=lease.keep, name="udlbridge-lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        lease.end()
        keeper.join()
