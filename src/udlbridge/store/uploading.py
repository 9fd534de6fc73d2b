"""Copying a finished store under a URL: every tile is proved on its way, and the manifest comes last."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Tile
from udlbridge.store.chunks import CHECKSUM
from udlbridge.store.files import Url, located
from udlbridge.store.manifest import METADATA_BYTES
from udlbridge.store.names import METADATA, MODEL, RECORDS
from udlbridge.store.objects import ObjectFiles

if TYPE_CHECKING:
    from udlbridge.store.writing import WritableStore

AT_ONCE = 4
"""Tiles that are on their way at a time: each is in memory twice."""


def upload(store: WritableStore, url: str) -> Url:
    """Copy a finished store under a URL, where nothing else is; where it is then.

    What a killed upload left is cleared away first.

    Raises:
        StoreError: the store is not finished, or damaged; another process writes to it, or under the URL; something is
            there already, or is no URL of objects; or the storage does not answer, or refuses.
    """
    target = located(url)
    if isinstance(target, Path):
        raise StoreError(
            f"{url} is a folder", allowed="a URL such as s3://bucket/K.zarr", remedy="copy the folder of the store"
        )
    with store.writing():
        if not store.complete:
            raise StoreError(f"{store.path} is not complete", remedy=f"finish it first: {store._mending}")
        store.check_network()
        store.check_samples()
        files = ObjectFiles(target)
        try:
            with files.making():
                _send(store, files)
        except UDLBridgeError:
            raise
        except OSError as failure:
            raise StoreError(
                f"{target} cannot be written ({failure})",
                allowed="a storage that answers, and a user who may write there",
                remedy="see what it says, and begin again; nothing counts there before the manifest is written",
            ) from failure
    return target


def _send(store: WritableStore, files: ObjectFiles) -> None:
    """All of it, the manifest last."""
    manifest = store._files.whole(METADATA, METADATA_BYTES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(partial(_send_tile, store, files), store.grid.tiles()):
            pass
    for name in _other_files(store):
        files.write(name, store._files.exactly(name, store._files.size(name)).data)
    files.write(METADATA, memoryview(manifest))


def _send_tile(store: WritableStore, files: ObjectFiles, tile: Tile) -> None:
    entries, checksum = store.read_raw(tile)
    files.write(store._name(tile), entries.reshape(-1).view(np.uint8).data, np.array([checksum], CHECKSUM).data)


def _other_files(store: WritableStore) -> Iterator[str]:
    """The names of what is neither a tile nor the manifest, the file that says which tile is which last."""
    samples = store.manifest["samples"]
    for index in range(-(-store.manifest["n"] // samples["rows"])):
        yield "/".join(["x", "c", str(index), *["0"] * len(samples["shape"])])
    if store.manifest.get("module") is None:
        yield MODEL
    yield from (f"x/{METADATA}", f"kernel/{METADATA}", RECORDS)
