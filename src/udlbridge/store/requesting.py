"""Asking for objects: requests are repeated, with growing pauses, where a server fails, is slow, or hangs up.

What was never reached is more likely an address that is wrong than a server that rests: a first contact waits for
seconds alone. What is waited for is said, by a warning of the logger "udlbridge".
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.store.files import Url
from udlbridge.store.names import METADATA

SCHEMES = ("s3", "gs", "az", "memory")

RETRIES: dict[str, Any] = {
    "max_retries": 10,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2},
}
"""How often and for how long a request is repeated, and the pauses in between: drawn at random, up to these."""

FIRST_CONTACT = timedelta(seconds=20)
"""How long a storage is asked that has not answered yet."""

NOTICE = timedelta(seconds=2)
"""How long requests fail before it is said."""

CLIENT: dict[str, Any] = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10), "allow_http": True}
"""How long a request may take: a tile of 16 MB through a slow line. An address that begins with http:// is meant so."""

DELETED_AT_ONCE = 1000
"""What S3 takes in one request."""


def obstore_modules() -> Any:
    """The library that asks for objects, with its modules.

    Raises:
        StoreError: it is not installed.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise StoreError(
            f"a store at a URL, and obstore is not installed ({error})",
            allowed="an installation with it",
            remedy='pip install "udlbridge[objects]"; or copy the store into a folder',
        ) from None
    return obstore


@lru_cache(maxsize=32)
def connected(url: Url) -> Any:
    """What asks for the objects under a URL, one for each URL: connections are kept, and so is what memory:// holds.

    Raises:
        StoreError: a URL of a kind that is not known, or that cannot be meant.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise StoreError(
            f"{url} begins with {scheme}://",
            allowed=", ".join(f"{known}://" for known in (*SCHEMES, "file")),
            remedy="name a store of one of these kinds, or a folder",
        )
    obstore = obstore_modules()
    if scheme == "memory":
        return obstore.store.MemoryStore()
    few = {"max_retries": min(2, RETRIES["max_retries"]), "retry_timeout": timedelta(seconds=10)}
    try:
        first = obstore.store.from_url(
            url,
            client_options={**CLIENT, "timeout": FIRST_CONTACT, "connect_timeout": timedelta(seconds=5)},
            retry_config={**RETRIES, "max_retries": 0},
        )
        store = obstore.store.from_url(url, client_options=CLIENT, retry_config={**RETRIES, **few})
    except obstore.exceptions.BaseError as error:
        raise StoreError(f"{url} cannot be opened ({first_line(error)})", remedy="check the URL") from error
    try:
        repeated(lambda: obstore.head(first, METADATA), FIRST_CONTACT, url)
    except (FileNotFoundError, PermissionError):
        pass  # which are answers
    except OSError as error:
        raise _unreachable(url, error) from error
    return store


def _unreachable(url: Url, error: OSError) -> StoreError:
    """The error of a storage that was never reached."""
    s3 = urlsplit(url).scheme == "s3"
    address = os.environ.get("AWS_ENDPOINT_URL") if s3 else None
    where = f" at {address}, where AWS_ENDPOINT_URL says that it is" if address else ""
    if s3 and CLOUD in str(error):
        return StoreError(
            f"nobody says who asks for {url}, neither the environment nor a machine of a cloud ({error})",
            allowed="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true where anyone may read",
            remedy="set them, and AWS_REGION or AWS_ENDPOINT_URL, which say where it is",
        )
    return StoreError(
        f"{url} does not answer{where} ({error})",
        allowed="a storage that answers",
        remedy="check the URL, and where the environment says that it is (AWS_ENDPOINT_URL and the like), or try again",
    )


CLOUD = "169.254.169.254"
"""Where machines of clouds are told who they are."""


def sizes_under(store: Any, folder: str | None = None) -> dict[str, int]:
    """The names of all objects, or of those in a folder, and their bytes.

    Raises:
        OSError: as `repeated`.
    """
    listed = obstore_modules().list
    return repeated(lambda: {one["path"]: int(one["size"]) for some in listed(store, folder) for one in some})


def delete(store: Any, names: Iterable[str]) -> None:
    """Delete these objects, as far as they are there.

    Raises:
        OSError: as `repeated`.
    """
    remove, every = obstore_modules().delete, sorted(names)
    for start in range(0, len(every), DELETED_AT_ONCE):
        some = every[start : start + DELETED_AT_ONCE]
        try:
            repeated(lambda some=some: remove(store, some))  # type: ignore[misc]
        except FileNotFoundError:  # some storages say so, and stop there
            for name in some:
                with suppress(FileNotFoundError):
                    repeated(lambda name=name: remove(store, name))  # type: ignore[misc]


def copy(store: Any, name: str, to: str) -> None:
    """Copy an object within the storage, whole or not at all, in the place of one that is there.

    Raises:
        OSError: as `repeated`.
    """
    repeated(lambda: obstore_modules().copy(store, name, to))


def put(store: Any, name: str, content: Any, mode: Any = "overwrite") -> Any:
    """Make an object, whole or not at all; what it is known by.

    Args:
        store: as `connected` gives it.
        name: of the object.
        content: its bytes. Those of an object with a condition are like no other's, so that one that is there already
            and has them is known to be this one: an answer that was lost may have been a yes.
        mode: "overwrite"; "create", if there is none; or what the object is known by that it takes the place of.

    Raises:
        FileExistsError: the condition does not hold.
        OSError: the storage does not answer, or refuses.
    """
    obstore = obstore_modules()
    try:
        return repeated(lambda: obstore.put(store, name, content, mode=mode, use_multipart=False))
    except FileExistsError:

        def known() -> tuple[bytes, Any]:
            found = obstore.get(store, name)
            return bytes(found.bytes()), found.meta

        found, mark = repeated(known)
        if found != content:
            raise
        return mark


T = TypeVar("T")

LOG = logging.getLogger("udlbridge")
"""Where it is said what is waited for. Python shows warnings of loggers that nobody has set up on standard error."""


def repeated(ask: Callable[[], T], patience: timedelta | None = None, what: str = "a storage of objects") -> T:
    """What a request gives, of those that may be asked twice.

    The library repeats a few times what failed before an answer came; here what fails longer, or broke off in the
    middle.

    Args:
        ask: the request.
        patience: how long it is repeated; None is as long as `RETRIES` allows.
        what: who is asked, in words.

    Raises:
        OSError: as `faults`; after as many attempts as `RETRIES` allows, or as long a time.
    """
    begun, pauses, said = time.monotonic(), RETRIES["backoff"], False
    longest_wait = (RETRIES["retry_timeout"] if patience is None else patience).total_seconds()
    for attempt in range(RETRIES["max_retries"] + 1):
        try:
            with faults():
                return ask()
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except OSError as error:
            waited = time.monotonic() - begun
            if error.errno is not None or isinstance(error, UDLBridgeError) or waited > longest_wait:
                raise
            last = error
            if not said and waited > NOTICE.total_seconds():
                said = True
                LOG.warning("waiting for %s, for up to %.0f s: %s", what, longest_wait - waited, error)
        longest = pauses["init_backoff"] * pauses["base"] ** attempt
        time.sleep(random.uniform(0.0, min(longest, pauses["max_backoff"]).total_seconds()))
    raise last


@contextmanager
def faults() -> Iterator[None]:
    """What a server says, as errors of the operating system say it. Those of the line have no `errno`.

    Raises:
        FileNotFoundError: there is no such object.
        FileExistsError: a condition does not hold.
        PermissionError: this user may not, or nobody said who it is.
        OSError: the storage does not answer, or fails.
    """
    exceptions = obstore_modules().exceptions
    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise FileNotFoundError(first_line(error)) from error
    except OSError:
        raise
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise FileExistsError(first_line(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(first_line(error)) from error
    except exceptions.BaseError as error:
        raise OSError(first_line(error)) from error


def first_line(error: Exception) -> str:
    """What went wrong, without the report that comes after it; what S3 says of it in XML, in its words."""
    line, _, report = str(error).strip().partition("\n")
    said = re.search("<Message>(.*?)</Message>", report)
    return line.partition("<?xml")[0] + said[1] if said else line
