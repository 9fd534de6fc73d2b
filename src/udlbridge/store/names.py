"""What a store consists of, by name: in a folder files and folders, under a URL objects that begin so."""

from __future__ import annotations

from udlbridge.atomic import is_partial

METADATA = "zarr.json"
"""Name of the files that Zarr keeps its metadata in, and the manifest."""

MODEL = "model.safetensors"
"""Name of the file of the network."""

RECORDS = "tiles.places"
"""Name of the file that says which tile is which."""

LOCK = "writer.lock"
"""What a store's writer holds, from the first moment on: the lock of a file in the folder, or an object."""

ENTRIES = frozenset({"kernel", "x", METADATA, MODEL, LOCK, RECORDS})
"""The names of all that a store holds."""


def others(entries: set[str]) -> list[str]:
    """Of these names those that no store has, sorted; what a killed writer left is a store's."""
    return sorted(name for name in entries - ENTRIES if not is_partial(name))
