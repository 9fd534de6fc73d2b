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
from safetensors import SafetensorError
from zarr.codecs import BytesCodec, Crc32cCodec

from udlbridge.atomic import PARTIAL
from udlbridge.backends.reduction import Reduction
from udlbridge.errors import ModelFileError, OptionError, StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.model import Model
from udlbridge.options import show_bytes
from udlbridge.store.folders import flush, locked, new_folder
from udlbridge.store.narrowing import STORAGE, narrowed
from udlbridge.store.reading import FORMAT, StoredKernel, data_hash, sample_rows
from udlbridge.store.tile_files import TileFiles


@dataclass(frozen=True)
class Verification:
    """What `verify` found: tiles whose checksum fails, tiles that are not there, and inputs that are not the kernel's.

    `inputs` says what is wrong with the stored network and samples, by their hashes.
    """

    good: int
    damaged: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]
    inputs: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every tile is there and whole, and the network and the samples are those of the kernel."""
        return not self.damaged and not self.missing and not self.inputs


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
        """A new store without tiles. `description` goes into the manifest (backend, versions, plan).

        It is there with its manifest, network and samples, or not at all, whenever this is interrupted.

        Raises:
            StoreError: the folder exists, another process is making it, or the disk is full or refuses.
        """
        name = checked_storage(storage, model.dtype)
        folder = Path(path)
        try:
            with new_folder(folder) as building:
                cls._begin(building, model, x, chosen, tile, name, description)
        except UDLBridgeError:
            raise
        except OSError as failure:
            raise StoreError(
                f"{folder} could not be made ({failure})", remedy="free some space, or choose another place"
            ) from failure
        return cls(folder)

    @classmethod
    def _begin(
        cls,
        folder: Path,
        model: Model,
        x: np.ndarray,
        chosen: Reduction,
        tile: int,
        storage: str,
        description: dict[str, Any],
    ) -> None:
        """Everything but the tiles."""
        group = zarr.create_group(TileFiles(folder), overwrite=False)
        n = len(x)
        trailing = chosen.trailing
        group.create_array(
            "kernel",
            shape=(n, n, *trailing),
            chunks=(tile, tile, *trailing),
            dtype=STORAGE[storage],
            serializer=BytesCodec(endian="little"),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=0,
        )
        rows = min(n, sample_rows(x))
        group.create_array(
            "x", shape=x.shape, chunks=(rows, *x.shape[1:]), dtype=x.dtype, compressors=[Crc32cCodec()], filters=None
        )
        _write_inputs(group, folder, model, x)
        group.attrs["udlbridge"] = {
            "format": FORMAT,
            "model": model.hash(),
            "data": data_hash(x),
            "n": n,
            "outputs": chosen.outputs,
            "n_outputs": chosen.n_outputs,
            "scale": chosen.scale,
            "dtype": model.dtype.name,
            "storage": storage,
            "tile": tile,
            "complete": False,
            "storage_error": 0.0,
            **description,
        }

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, and know what is on disk: another handle may have written since this one was opened.

        Raises:
            StoreError: another process writes.
        """
        with locked(self.path, self.path):
            self._load()
            with self._disk():
                self._settle()
            yield

    def restore_inputs(self, model: Model, x: np.ndarray) -> None:
        """Write the network and the samples again, which must be those of the kernel, if they are damaged.

        Raises:
            StoreError: they are others (the store may have grown since it was opened), or the disk refuses.
        """
        self._compare("model", model.hash(), "network")
        self._compare("data", data_hash(x), "samples")
        if self._foreign_inputs():
            with self._disk():
                _write_inputs(self._group, self.path, model, x)
                flush(self.path / "x")

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """An error of the operating system, as of a full disk, as a StoreError."""
        try:
            yield
        except UDLBridgeError:
            raise
        except OSError as failure:
            raise StoreError(
                f"{self.path} could not be written ({failure})",
                remedy=f"free some space and go on with `udlbridge store verify {self.path} --repair`: finished tiles "
                "are kept",
            ) from failure

    def write_tile(self, tile: Tile, block: np.ndarray) -> float:
        """Store one tile atomically; returns the largest relative rounding error of its entries (0 if not narrower).

        Raises:
            NumericalError: an entry is not finite.
            StoreError: the disk is full or refuses; or an entry does not fit into the storage.
        """
        raw, error = narrowed(block, self.manifest["storage"], (tile.rows.start, tile.columns.start))
        if error > self.manifest.get("storage_error", 0.0):
            self.update(storage_error=error)  # stated before the tile counts, so that no interruption loses it
        with self._disk():
            self._array[tile.rows, tile.columns] = raw
        return error

    def update(self, **changes: Any) -> None:
        """Change entries of the manifest, atomically; they are on the disk afterwards."""
        self.manifest = {**self.manifest, **changes}
        with self._disk():
            self._group.attrs["udlbridge"] = self.manifest

    def flush_tiles(self) -> None:
        """Wait until all tiles are on the disk, small ones and the names of new files too."""
        with self._disk():
            flush(self.path / "kernel")

    def unfinished(self) -> list[Tile]:
        """Tiles that are missing or damaged, in the order of computation."""
        return [tile for tile in self.grid.tiles() if not self._is_whole(tile)]

    def verify(self) -> Verification:
        """Read every tile and its checksum, and the network and the samples and their hashes."""
        damaged, missing, good = [], [], 0
        for tile in self.grid.tiles():
            if not self._chunk(tile).is_file():
                missing.append((tile.row, tile.column))
            elif not self._is_whole(tile):
                damaged.append((tile.row, tile.column))
            else:
                good += 1
        return Verification(good, tuple(damaged), tuple(missing), self._foreign_inputs())

    def growth_bytes(self, x_new: np.ndarray) -> int:
        """Bytes on disk that more samples will take, with their tiles."""
        n, tile = self.shape[0] + len(x_new), self.grid.tile
        more = sum(1 for _ in Grid(n, n, tile, True).tiles()) - sum(1 for _ in self.grid.tiles())
        entries = int(np.prod(self.shape[2:], dtype=np.int64))
        return more * tile * tile * entries * STORAGE[self.manifest["storage"]].itemsize + x_new.nbytes

    def grow(self, x_new: np.ndarray) -> None:
        """Make room for more samples. Tiles of a last block that was not full are removed: they are no longer whole.

        Raises:
            StoreError: the disk is full or refuses; the store stays as it was, without the tiles that were removed.
        """
        n = self.shape[0]
        self.update(complete=False)
        with self._disk():
            for tile in self.grid.tiles():
                if tile.rows.stop == n and n % self.grid.tile:
                    self._chunk(tile).unlink(missing_ok=True)
            samples: Any = self._group["x"]
            samples.resize((n + len(x_new), *samples.shape[1:]))
            _write_samples(samples, n, x_new)
            flush(self.path / "x")
            self._array.resize((n + len(x_new), n + len(x_new), *self.shape[2:]))
            data = data_hash(samples)
        self.update(n=n + len(x_new), data=data)

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

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes of a tile on disk."""
        return self._chunk(tile).stat().st_size

    def stored_bytes(self) -> int:
        """Bytes of all tiles on disk."""
        return sum(file.stat().st_size for file in (self.path / "kernel" / "c").rglob("*") if file.is_file())

    def _foreign_inputs(self) -> tuple[str, ...]:
        """What is wrong with the stored network and samples, nothing if they are those of the kernel."""
        found = []
        for check in (self.model, self.check_samples):
            try:
                check()
            except StoreError as error:
                found.append(error.given)
        return tuple(found)

    def _is_whole(self, tile: Tile) -> bool:
        try:
            self.read_tile(tile)
        except StoreError:
            return False
        return True


def checked_storage(storage: str | None, dtype: np.dtype[Any]) -> str:
    """How the entries of a kernel of that dtype are stored; None is as they are.

    Raises:
        OptionError: unknown, or wider than the kernel.
    """
    name = dtype.name if storage is None else storage
    if name not in STORAGE or (name == "float64" and dtype == np.float32):
        raise OptionError(
            f"storage={storage!r} for a {dtype} kernel",
            allowed=", ".join(k for k in STORAGE if k != "float64" or dtype == np.float64),
            remedy="leave it out to store the kernel's own dtype",
        )
    return name


def _write_inputs(group: zarr.Group, folder: Path, model: Model, x: np.ndarray) -> None:
    _write_samples(group["x"], 0, x)
    try:
        model.save(folder / "model.safetensors")
    except (ModelFileError, SafetensorError) as failure:  # what these say of a full disk
        raise OSError(str(failure)) from failure


def _write_samples(target: Any, start: int, x: np.ndarray) -> None:
    """Write samples (m, *D) behind the first `start`, one chunk after the other."""
    rows, end = target.chunks[0], start + len(x)
    while start < end:
        stop = min(end, (start // rows + 1) * rows)
        target[start:stop] = x[len(x) - (end - start) : len(x) - (end - stop)]
        start = stop


def check_room(
    folder: Path,
    needed: int,
    remedy: str = 'free some space, choose another disk, or store less precisely (storage="float16")',
) -> None:
    """Raise `StoreError` if the disk under `folder` has less than `needed` bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"the kernel needs {show_bytes(needed)} on disk, {place} has {show_bytes(free)}",
            remedy=remedy,
        )
