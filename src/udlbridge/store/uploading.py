"""Copying a finished store under a URL: every tile is proved on its way, and the manifest comes last."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Tile
from udlbridge.store.chunks import CHECKSUM
from udlbridge.store.files import Url, located
from udlbridge.store.folders import LOCK
from udlbridge.store.leases import Lease, leased
from udlbridge.store.manifest import METADATA_BYTES
from udlbridge.store.objects import connected, names_under, put, repeated
from udlbridge.store.tile_files import METADATA
from udlbridge.store.tile_records import FILE as RECORDS

if TYPE_CHECKING:
    from udlbridge.store.writing import WritableStore

AT_ONCE = 4
"""Tiles that are on their way at a time: each is in memory twice."""


def upload(store: WritableStore, url: str) -> Url:
    """Copy a finished store under a URL, where nothing else is; where it is then.

    What a killed upload left of the same files is written over.

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
        objects = connected(target)
        try:
            with leased(target, objects) as lease:
                _send(store, target, objects, lease)
        except UDLBridgeError:
            raise
        except OSError as failure:
            raise StoreError(
                f"{target} cannot be written ({failure})",
                allowed="a storage that answers, and a user who may write there",
                remedy="see what it says, and begin again; nothing counts there before the manifest is written",
            ) from failure
    return target


def _send(store: WritableStore, target: Url, objects: Any, lease: Lease) -> None:
    """All of it, the manifest last."""
    others = list(_other_files(store))
    names = {METADATA, LOCK, *others, *map(store._name, store.grid.tiles())}
    found = repeated(lambda: names_under(objects))
    if METADATA in found or found - names:
        raise StoreError(
            f"there is something at {target} already: {', '.join(sorted(found - {LOCK})[:3])}",
            allowed="a URL under which there is nothing, or what a killed upload left of this store",
            remedy="use another URL, or remove what is there with the tools of its storage",
        )
    manifest = store._files.whole(METADATA, METADATA_BYTES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(partial(_send_tile, store, objects, lease), store.grid.tiles()):
            pass
    for name in others:
        lease.check()
        put(objects, name, store._files.exactly(name, store._files.size(name)))
    lease.check()
    try:
        put(objects, METADATA, manifest, "create")
    except FileExistsError:
        raise StoreError(f"another store appeared at {target}", remedy="use another URL") from None


def _send_tile(store: WritableStore, objects: Any, lease: Lease, tile: Tile) -> None:
    lease.check()
    entries, checksum = store.read_raw(tile)
    content = np.concatenate([entries.reshape(-1).view(np.uint8), np.array([checksum], CHECKSUM).view(np.uint8)])
    put(objects, store._name(tile), content)


def _other_files(store: WritableStore) -> Iterator[str]:
    """The names of what is neither a tile nor the manifest, the file that says which tile is which last."""
    samples = store.manifest["samples"]
    for index in range(-(-store.manifest["n"] // samples["rows"])):
        yield "/".join(["x", "c", str(index), *["0"] * len(samples["shape"])])
    if store.manifest.get("module") is None:
        yield "model.safetensors"
    yield from (f"x/{METADATA}", f"kernel/{METADATA}", RECORDS)
