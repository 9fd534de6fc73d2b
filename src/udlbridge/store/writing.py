"""Writing a kernel store: tiles, one after the other, so that whatever was finished stays valid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.atomic import PARTIAL
from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.model import Model
from udlbridge.store.creating import write_inputs, write_samples
from udlbridge.store.folders import flush, locked
from udlbridge.store.narrowing import STORAGE, narrowed
from udlbridge.store.reading import StoredKernel
from udlbridge.store.samples import data_hash


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
    """A stored kernel with its writing side, for what computes its tiles."""

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
                write_inputs(self._group, self.path, model, x)
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
        more = Grid(n, n, tile, True).count - self.grid.count
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
            write_samples(samples, n, x_new)
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
