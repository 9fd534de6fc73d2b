"""Writing a kernel store: tiles, one after the other, so that whatever was finished stays valid."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import BytesCodec, Crc32cCodec

from udlbridge.errors import OptionError, StoreError
from udlbridge.model import Model
from udlbridge.narrowing import STORAGE, narrowed
from udlbridge.reduction import Reduction
from udlbridge.sizes import show_bytes
from udlbridge.stored import FORMAT, StoredKernel, data_hash
from udlbridge.tile_files import PARTIAL, TileFiles
from udlbridge.tiling import Tile


@dataclass(frozen=True)
class Verification:
    """What `verify` found: tiles whose checksum fails, and tiles that are not there."""

    good: int
    damaged: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]

    @property
    def ok(self) -> bool:
        """Whether every tile is there and whole."""
        return not self.damaged and not self.missing


class WritableStore(StoredKernel):
    """A stored kernel with its writing side, for `computing` alone."""

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: Model,
        x: np.ndarray,
        chosen: Reduction,
        tile: int,
        storage: str | None,
        description: dict[str, Any],
    ) -> Self:
        """A new store without tiles. `description` goes into the manifest (backend, versions, plan)."""
        name = model.dtype.name if storage is None else storage
        if name not in STORAGE or (name == "float64" and model.dtype == np.float32):
            raise OptionError(
                f"storage={storage!r} for a {model.dtype} kernel",
                allowed=", ".join(k for k in STORAGE if k != "float64" or model.dtype == np.float64),
                remedy="leave it out to store the kernel's own dtype",
            )
        folder = Path(path)
        group = zarr.create_group(TileFiles(folder), overwrite=False)
        n = len(x)
        trailing = chosen.trailing
        group.create_array(
            "kernel",
            shape=(n, n, *trailing),
            chunks=(tile, tile, *trailing),
            dtype=STORAGE[name],
            serializer=BytesCodec(endian="little"),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=0,
        )
        rows = max(1, min(n, 2**26 // max(x[0].nbytes, 1)))
        stored = group.create_array(
            "x", shape=x.shape, chunks=(rows, *x.shape[1:]), dtype=x.dtype, compressors=[Crc32cCodec()], filters=None
        )
        stored[...] = x
        model.save(folder / "model.safetensors")
        group.attrs["udlbridge"] = {
            "format": FORMAT,
            "model": model.hash(),
            "data": data_hash(x),
            "n": n,
            "outputs": chosen.outputs,
            "n_outputs": chosen.n_outputs,
            "scale": chosen.scale,
            "dtype": model.dtype.name,
            "storage": name,
            "tile": tile,
            "complete": False,
            **description,
        }
        return cls(folder)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock. The operating system frees it when its holder dies.

        Raises:
            StoreError: another process writes.
        """
        lock = FileLock(self.path / "writer.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"another process is writing to {self.path}", allowed="one writer", remedy="wait until it has finished"
            ) from None
        try:
            self._settle()
            yield
        finally:
            lock.release()

    def write_tile(self, tile: Tile, block: np.ndarray) -> float:
        """Store one tile atomically; returns the largest relative rounding error of its entries (0 if not narrower).

        Raises:
            StoreError: the disk is full or refuses; or an entry does not fit into the storage.
        """
        raw, error = narrowed(block, self.manifest["storage"])
        try:
            self._array[tile.rows, tile.columns] = raw
        except OSError as failure:
            raise StoreError(
                f"{self.path} could not be written ({failure})",
                remedy="free some space and go on with `udlbridge kernel ... --resume`: finished tiles are kept",
            ) from failure
        return error

    def update(self, **changes: Any) -> None:
        """Change entries of the manifest, atomically."""
        self.manifest = {**self.manifest, **changes}
        self._group.attrs["udlbridge"] = self.manifest

    def unfinished(self) -> list[Tile]:
        """Tiles that are missing or damaged, in the order of computation."""
        return [tile for tile in self.grid.tiles() if not self._is_whole(tile)]

    def verify(self) -> Verification:
        """Read every tile and its checksum."""
        damaged, missing, good = [], [], 0
        for tile in self.grid.tiles():
            if not self._chunk(tile).is_file():
                missing.append((tile.row, tile.column))
            elif not self._is_whole(tile):
                damaged.append((tile.row, tile.column))
            else:
                good += 1
        return Verification(good, tuple(damaged), tuple(missing))

    def grow(self, x_new: np.ndarray) -> None:
        """Make room for more samples. Tiles of a last block that was not full are removed: they are no longer whole."""
        n = self.shape[0]
        self.update(complete=False)
        for tile in self.grid.tiles():
            if tile.rows.stop == n and n % self.grid.tile:
                self._chunk(tile).unlink(missing_ok=True)
        samples: Any = self._group["x"]
        samples.resize((n + len(x_new), *samples.shape[1:]))
        samples[n:] = x_new
        self._array.resize((n + len(x_new), n + len(x_new), *self.shape[2:]))
        self.update(n=n + len(x_new), data=data_hash(self.samples()))

    def _settle(self) -> None:
        """Undo what a writer that died left: files that it had not finished, and a growth.

        The manifest, which is written last, says how many samples count.
        """
        for left in self.path.rglob(f"*{PARTIAL}"):
            left.unlink(missing_ok=True)
        n = int(self.manifest["n"])
        samples: Any = self._group["x"]
        if samples.shape[0] != n:
            samples.resize((n, *samples.shape[1:]))
        if self.shape[0] != n:
            self._array.resize((n, n, *self.shape[2:]))

    def stored_bytes(self) -> int:
        """Bytes of all tiles on disk."""
        return sum(file.stat().st_size for file in (self.path / "kernel" / "c").rglob("*") if file.is_file())

    def _is_whole(self, tile: Tile) -> bool:
        try:
            self.read_tile(tile)
        except StoreError:
            return False
        return True


def check_room(folder: Path, needed: int) -> None:
    """Raise `StoreError` if the disk under `folder` has less than `needed` bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"the kernel needs {show_bytes(needed)} on disk, {place} has {show_bytes(free)}",
            remedy='free some space, choose another disk, or store less precisely (storage="float16")',
        )
