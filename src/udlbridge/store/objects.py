"""A store under a URL: its files are whole objects, as S3, Google's and Azure's storage keep them.

They are what they are in a folder, under the same names, so that any tool may copy a store from one to the other.
Requests are repeated, with growing pauses, where a server fails, is slow, or drops the connection.
"""

from __future__ import annotations

import asyncio
import errno
import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.store.files import Url

SCHEMES = ("s3", "gs", "az", "memory")

RETRIES: dict[str, Any] = {
    "max_retries": 10,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2},
}
"""How often and for how long a request is repeated, and the pauses in between: drawn at random, up to these."""

CLIENT: dict[str, Any] = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10), "allow_http": True}
"""How long a request may take: a tile of 16 MB through a slow line. An address that begins with http:// is meant so."""


class ObjectFiles:
    """The objects under a URL; `files.Files` says what is what.

    Where they are served, and who asks, is read from the environment, as the tools of each kind of storage do:
    AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL and the like.
    """

    mode = "r"
    requests = 8  # one alone does not fill a line

    def __init__(self, url: Url) -> None:
        self._store = connected(url)

    def check_there(self) -> None:
        """There are no folders whose absence could be told."""

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(repeated(lambda: obstore_modules().head(self._store, name))["size"])

    def count(self, folder: str) -> int:
        """How many objects there are under a name."""
        return len(repeated(lambda: names_under(self._store, folder)))

    def whole(self, name: str, most: int) -> bytes:
        """An object that has at most `most` bytes."""

        def ask() -> bytes:
            found = obstore_modules().get(self._store, name)
            size = int(found.meta["size"])
            if size > most:
                raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are plausible")
            return bytes(found.bytes())

        return repeated(ask)

    def exactly(self, name: str, size: int) -> np.ndarray:
        """An object that has exactly so many bytes (size,)."""

        def ask() -> np.ndarray:
            found = obstore_modules().get(self._store, name)
            if int(found.meta["size"]) != size:
                raise OSError(errno.EINVAL, f"it has {int(found.meta['size']):,} bytes in the place of {size:,}")
            content = np.frombuffer(found.bytes(), dtype=np.uint8)
            if len(content) != size:
                raise OSError("it became shorter while it was read")
            return content

        return repeated(ask)

    @contextmanager
    def opened(self, name: str, size: int) -> Iterator[io.BytesIO]:
        """An object that has exactly so many bytes; all of them are read first."""
        yield io.BytesIO(self.exactly(name, size).data)

    def pieces(self, name: str, start: int) -> Iterator[bytes]:
        """An object from byte `start` on."""
        size = self.size(name)
        if size > start:
            yield repeated(lambda: bytes(obstore_modules().get_range(self._store, name, start=start, end=size)))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """An object as a file of this machine, which is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="udlbridge") as folder:
            path = Path(folder) / name
            path.write_bytes(self.whole(name, self.size(name)))
            yield path

    def zarr(self) -> Any:
        """Zarr's store of these objects, whose requests are repeated too."""
        from zarr.storage import ObjectStore

        class Objects(ObjectStore):  # type: ignore[misc]
            async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
                if byte_range is not None:
                    return await super().get(key, prototype, byte_range)

                def ask() -> bytes:
                    return bytes(obstore_modules().get(self.store, key).bytes())

                try:
                    return prototype.buffer.from_bytes(await asyncio.to_thread(repeated, ask))
                except FileNotFoundError:
                    return None

        return Objects(self._store, read_only=True)


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
    try:
        return obstore.store.from_url(url, client_options=CLIENT, retry_config=RETRIES)
    except obstore.exceptions.BaseError as error:
        raise StoreError(f"{url} cannot be opened ({_first_line(error)})", remedy="check the URL") from error


def names_under(store: Any, folder: str | None = None) -> set[str]:
    """The names of all objects, or of those in a folder."""
    return {one["path"] for some in obstore_modules().list(store, folder) for one in some}


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


def repeated(ask: Callable[[], T]) -> T:
    """What a request gives, of those that may be asked twice.

    The library repeats what failed before an answer came; here too what broke off in the middle.

    Raises:
        OSError: as `faults`; after as many attempts, or as long a time, as `RETRIES` allows.
    """
    begun, pauses = time.monotonic(), RETRIES["backoff"]
    for attempt in range(RETRIES["max_retries"] + 1):
        try:
            with faults():
                return ask()
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except OSError as error:
            late = time.monotonic() - begun > RETRIES["retry_timeout"].total_seconds()
            if error.errno is not None or isinstance(error, UDLBridgeError) or late:
                raise
            last = error
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
        raise FileNotFoundError(_first_line(error)) from error
    except OSError:
        raise
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise FileExistsError(_first_line(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(_first_line(error)) from error
    except exceptions.BaseError as error:
        raise OSError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    """What went wrong, without the report that comes after it."""
    return str(error).strip().partition("\n")[0]
