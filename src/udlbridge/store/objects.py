"""A store under a URL: its files are whole objects, as S3, Google's and Azure's storage keep them.

They are what they are in a folder, under the same names, so that any tool may copy a store from one to the other.
"""

from __future__ import annotations

import asyncio
import errno
import io
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from udlbridge.atomic import is_partial, partial_of
from udlbridge.errors import StoreError
from udlbridge.store.files import Url
from udlbridge.store.leases import Lease, leased
from udlbridge.store.names import LOCK, METADATA, RECORDS, others
from udlbridge.store.requesting import connected, copy, delete, obstore_modules, put, repeated, sizes_under

GUARDED = (METADATA, RECORDS)
"""The objects that say what counts: they are changed only if they are as this writer left them."""


class ObjectFiles:
    """The objects under a URL; `files.Files` says what is what.

    Where they are served, and who asks, is read from the environment, as the tools of each kind of storage do:
    AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL and the like.
    """

    requests = 8  # one alone does not fill a line
    remedy = "see what the storage says, and whether this user may write there"

    def __init__(self, url: Url) -> None:
        self._url, self._store = url, connected(url)
        self._lease: Lease | None = None
        self._made: set[str] = set()
        self._marks: dict[str, Any] = {}
        self._grown: dict[str, bytes] = {}

    # --- reading --------------------------------------------------------------------------------------------------

    def check_there(self) -> None:
        """Raise FileNotFoundError where nothing is in the memory of this process. There are no other folders."""
        if self._url.startswith("memory://") and not sizes_under(self._store):
            raise FileNotFoundError("memory:// holds what this process has put there, and nothing is there")

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(repeated(lambda: obstore_modules().head(self._store, name))["size"])

    def count(self, folder: str) -> int:
        """How many objects there are under a name."""
        return len(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """The objects under a name, and their bytes."""
        return sizes_under(self._store, folder)

    def whole(self, name: str, most: int) -> bytes:
        """An object that has at most `most` bytes."""

        def ask() -> tuple[bytes, Any]:
            found = obstore_modules().get(self._store, name)
            size = int(found.meta["size"])
            if size > most:
                raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are plausible")
            return bytes(found.bytes()), found.meta

        content, mark = repeated(ask)
        if name in GUARDED:
            self._marks[name] = mark
        return content

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

        files = self

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

            async def set(self, key: str, value: Any) -> None:
                await asyncio.to_thread(files.write, key, memoryview(value.as_numpy_array()))

        return Objects(self._store)

    # --- writing --------------------------------------------------------------------------------------------------

    def entries(self) -> set[str]:
        """The first parts of the names of all objects."""
        return {name.partition("/")[0] for name in sizes_under(self._store)}

    def begun(self) -> bool:
        """Whether there is a manifest.

        Raises:
            StoreError: the storage does not answer, or refuses.
        """
        try:
            self.size(METADATA)
        except FileNotFoundError:
            return False
        except OSError as failure:
            raise StoreError(
                f"{self._url} cannot be looked at ({failure})",
                allowed="a storage that answers, and a user who may read there",
                remedy="see what it says, and begin again",
            ) from failure
        return True

    def taken(self) -> bool:
        """As `begun`: whether what else is there is in the way is known when a store is made."""
        return self.begun()

    @contextmanager
    def making(self) -> Iterator[ObjectFiles]:
        """These files: without the manifest, which comes last, they are no store.

        What a killed process left is cleared away by the next that makes a store there. It is known by its lease: what
        somebody else put there is never touched.

        Raises:
            StoreError: something is there, or another process writes there.
        """
        with self.held() as lease:
            self._make_free(lease.inherited)
            self._made.clear()
            try:
                yield self
            except BaseException:
                with suppress(OSError):  # so that nothing of it is left, where the lease and the line still hold
                    self._check_lease()
                    delete(self._store, self._made & {METADATA})
                    delete(self._store, self._made)
                raise

    def _make_free(self, inherited: bool) -> None:
        """Raise `StoreError` unless nothing is there, or only what the killed writer left whose lease was found."""
        found = set(sizes_under(self._store)) - {LOCK}
        if not found:
            return
        if inherited and METADATA not in found and not others({name.partition("/")[0] for name in found}):
            self.clear()
            return
        raise StoreError(
            f"there is something at {self._url} already: {', '.join(sorted(found)[:3])}",
            allowed="a URL under which there is nothing, or what an interrupted computation left",
            remedy="use another URL, or remove what is there with the tools of its storage; it is left as it is",
        )

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """A lease.

        Raises:
            StoreError: another writer has it, or the storage does not answer, or refuses.
        """
        with ExitStack() as stack:
            try:
                lease = stack.enter_context(leased(self._url, self._store))
            except StoreError:
                raise
            except OSError as failure:
                raise StoreError(
                    f"{self._url} cannot be written ({failure})",
                    allowed="a storage that answers, and a user who may write there",
                    remedy="see what it says, and begin again",
                ) from failure
            self._lease = lease
            self._marks.clear()  # another may have written in between
            self._grown.clear()
            try:
                yield lease
            finally:
                self._lease = None

    def write(self, name: str, *pieces: memoryview) -> None:
        """Put an object. Those in `GUARDED` are new, or as they were when they were read or written last."""
        self._check_lease()
        content = b"".join(pieces)
        self._made.add(name)
        if name not in GUARDED:
            put(self._store, name, content)
            return
        known = self._marks.get(name, {})
        condition = {part: known[part] for part in ("e_tag", "version") if known.get(part) is not None}
        try:
            self._marks[name] = put(self._store, name, content, condition or "create")
        except FileExistsError:
            self._made.discard(name)  # it is somebody else's
            raise

    @contextmanager
    def saved(self, name: str) -> Iterator[Path]:
        """A file in a folder that is removed when it was put."""
        with tempfile.TemporaryDirectory(prefix="udlbridge") as folder:
            path = Path(folder) / name
            yield path
            self.write(name, memoryview(path.read_bytes()))

    def append(self, name: str, records: bytes, size: int) -> None:
        """Put the object anew: its records are few bytes for each tile."""
        if name not in self._grown:
            try:
                self._grown[name] = self.whole(name, self.size(name))
            except FileNotFoundError:
                self._grown[name] = b""
        before = self._grown[name]
        grown = before[: len(before) // size * size] + records
        self.write(name, memoryview(grown))
        self._grown[name] = grown

    def draft(self, name: str, *pieces: memoryview) -> str:
        """Put an object beside its place; its own name.

        Raises:
            FileNotFoundError: the store is gone.
        """
        if not self.begun():  # whoever removed it does not want a part of it back
            raise FileNotFoundError(errno.ENOENT, "the store is gone", str(self._url))
        partial = str(partial_of(PurePosixPath(name)))
        self.write(partial, *pieces)
        return partial

    def place(self, drafts: Sequence[tuple[str, str]]) -> None:
        """Let the storage copy drafts, and remove them: there is no renaming."""
        self._check_lease()
        with ThreadPoolExecutor(self.requests) as pool:
            for _ in pool.map(lambda pair: copy(self._store, *pair), drafts):
                pass
        delete(self._store, [draft for draft, _ in drafts])

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        delete(self._store, [name])

    def clear_drafts(self) -> None:
        """Delete drafts."""
        self._check_lease()  # those of who has it now are none of ours
        delete(self._store, [name for name in sizes_under(self._store) if is_partial(PurePosixPath(name).name)])

    def clear(self) -> None:
        """Delete the manifest, so that it is no store any more, and then all but the lease."""
        self._check_lease()
        self.remove(METADATA)
        delete(self._store, set(sizes_under(self._store)) - {LOCK})

    def flush(self, name: str) -> None:
        """What a storage has said yes to lasts."""

    def _check_lease(self) -> None:
        """Raise `StoreError` if the lease that is held was lost; a worker holds none."""
        if self._lease is not None:
            self._lease.check()
