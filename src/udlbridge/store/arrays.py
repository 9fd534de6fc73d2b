"""The two arrays of a store as Zarr knows them, made from the manifest, and held against it when they are opened."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import StoreError
from udlbridge.store.chunks import CHECKSUM, fill_value
from udlbridge.store.files import Files, Url, no_answer, unanswered
from udlbridge.store.manifest import metadata_differs, read_metadata
from udlbridge.store.names import METADATA
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.samples import DTYPES


def make_arrays(group: zarr.Group, manifest: Mapping[str, Any]) -> None:
    """The arrays `kernel` and `x` in a group, without entries."""
    n, tile = manifest["n"], manifest["tile"]
    trailing = checked_reduction(manifest["outputs"], manifest["n_outputs"]).trailing
    samples = manifest["samples"]
    coding: dict[str, Any] = {
        "serializer": BytesCodec(endian="little"),
        "compressors": [Crc32cCodec()],
        "filters": None,
    }
    group.create_array(
        "kernel",
        shape=(n, n, *trailing),
        chunks=(tile, tile, *trailing),
        dtype=STORAGE[manifest["storage"]],
        fill_value=fill_value(manifest["storage"]),
        **coding,
    )
    group.create_array(
        "x",
        shape=(n, *samples["shape"]),
        chunks=(samples["rows"], *samples["shape"]),
        dtype=DTYPES[samples["dtype"]],
        fill_value=0,
        **coding,
    )


def open_arrays(folder: Path | Url, files: Files, manifest: Mapping[str, Any]) -> tuple[zarr.Group, Any, Any]:
    """The group of a store and its arrays `kernel` and `x`, whose metadata are those of the manifest.

    Only their number of samples may be larger: an append that was killed leaves them so, and the manifest counts.

    Raises:
        StoreError: they are others, or cannot be read.
    """
    wanted = zarr.create_group(zarr.storage.MemoryStore())
    make_arrays(wanted, manifest)
    found: dict[str, Any] = {}
    for part in ("kernel", "x"):
        try:
            read_metadata(files, part)  # a regular file, of plausible size, and JSON
            group = zarr.open_group(files.zarr(), mode="r+", use_consolidated=False)
            # Samples of zeros are written like any others: a chunk that is not there was lost.
            with zarr.config.set({"array.write_empty_chunks": True}):
                found[part] = group[part]
            own, expected = (dict(one.metadata.to_dict()) for one in (found[part], wanted[part]))
            shape, least = own.pop("shape"), expected.pop("shape")
        except OSError as error:
            if unanswered(error):
                raise no_answer(folder / part / METADATA, error) from error
            if not isinstance(error, FileNotFoundError):
                raise metadata_differs(folder, part, str(error)) from error
            raise StoreError(
                f"{folder / part / METADATA} is missing, which says how the array {part} is kept",
                allowed="a store with all its files",
                remedy="take it from a copy of the store; nothing of the store was changed",
            ) from error
        except Exception as error:  # Zarr may raise anything when a file is damaged
            raise metadata_differs(folder, part, f"{type(error).__name__}: {error}") from error
        # As text, in which NaN equals itself.
        differing = [name for name in expected | own if str(own.get(name)) != str(expected.get(name))]
        if differing or len(shape) != len(least) or any(map(int.__lt__, shape, least)):
            raise metadata_differs(folder, part, f"other {', '.join(differing) or 'shape'}")
    return group, found["kernel"], found["x"]


def check_sample_files(files: Files, manifest: Mapping[str, Any]) -> None:
    """Find out before anything is read whether the files of the samples are there, and as large as they should be.

    Raises:
        FileNotFoundError: one is missing; it is named.
        OSError: one is not a regular file, of another size, or may not be looked at.
    """
    samples = manifest["samples"]
    entries = samples["rows"] * math.prod(samples["shape"])
    size = entries * DTYPES[samples["dtype"]].itemsize + CHECKSUM.itemsize
    needed, there = -(-manifest["n"] // samples["rows"]), files.count("x/c")
    for index in range(min(needed, there + 1)):
        name = "/".join(["x", "c", str(index), *["0"] * len(samples["shape"])])
        try:
            found = files.size(name)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "a file of the samples is missing", name) from None
        if found != size:
            raise OSError(errno.EINVAL, f"{name} has {found:,} bytes in the place of {size:,}")


def check_claim(folder: Path | Url, files: Files, manifest: Mapping[str, Any], tiles: int) -> None:
    """Refuse to go through tiles, one after the other, that a store with hardly any samples claims to have.

    Raises:
        StoreError: they would be too many to look for, and samples are missing.
    """
    if tiles <= MANY_TILES:
        return
    try:
        check_sample_files(files, manifest)
    except OSError as error:
        raise StoreError(
            f"{folder} claims {tiles:,} tiles of {manifest['n']:,} samples, and these are not there ({error})",
            allowed="a store with all its samples",
            remedy="take the folder x from a copy of the store, or compute the kernel again",
        ) from error


MANY_TILES = 1_000_000
"""Tiles that can be looked for in seconds; a million samples are 125,250 tiles of 2,000."""
