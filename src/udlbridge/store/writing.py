"""Writing a kernel store: tiles, one after the other, so that whatever was finished stays valid."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.atomic import is_partial, partial_of
from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.model import Model
from udlbridge.regular import regular_size
from udlbridge.store.arrays import check_claim
from udlbridge.store.chunks import CHECKSUM, chunk_bytes, packed
from udlbridge.store.creating import write_inputs, write_samples
from udlbridge.store.folders import Held, flush, locked
from udlbridge.store.manifest import KEY, signed
from udlbridge.store.narrowing import STORAGE, narrowed
from udlbridge.store.reading import NotComputed, StoredKernel
from udlbridge.store.samples import as_stored, data_hash
from udlbridge.store.tile_files import METADATA, DirectWriter


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


@dataclass(frozen=True)
class Draft:
    """A tile that is whole on the disk, beside its place, and does not count before `place_tile` gives it that place.

    `partial`: the name of its file. `error`: the largest relative rounding error of its entries. `size`: in bytes.
    """

    tile: Tile
    partial: str
    checksum: int
    error: float
    size: int


class WritableStore(StoredKernel):
    """A stored kernel with its writing side, for what computes its tiles."""

    _held: Held | None = None
    """The lock, while this handle writes."""

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, and know what is on disk: another handle may have written since this one was opened.

        Raises:
            StoreError: another process writes.
        """
        with locked(self._folder, self._folder) as held:
            self._load()
            self._held = held
            try:
                with self._disk():
                    self.clear_partial_files()
                yield
            finally:
                self._held = None

    def restore_inputs(self, model: Model | ForeignNetwork, x: np.ndarray) -> None:
        """Write the network and the samples again, which must be those of the kernel, if they are damaged.

        Raises:
            StoreError: they are others (the store may have grown since it was opened), or the disk refuses.
        """
        self.check_inputs(model, x)
        if self._foreign_inputs():
            with self._disk():
                write_inputs(self._group, self._folder, model, x)
                flush(self._folder / "x")

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """An error of the operating system, as of a full disk, as a StoreError; so too a store that is gone."""
        try:
            yield
            if self._held is not None:
                self._held.check()
        except UDLBridgeError:
            raise
        except OSError as failure:
            if self._held is not None:
                self._held.check()
            raise StoreError(
                f"{self.path} could not be written ({failure})",
                remedy=f"free some space and go on with {self._mending}: finished tiles are kept",
            ) from failure

    def write_tile(self, tile: Tile, block: np.ndarray) -> float:
        """Store one tile atomically; returns the largest relative rounding error of its entries (0 if not narrower).

        Raises:
            NumericalError: an entry is not finite.
            StoreError: the disk is full or refuses; or an entry does not fit into the storage.
        """
        entries, checksum, error = self._packed(tile, block)
        with self._disk():
            self._state_error(error)
            self._records.add(tile, checksum)
            self._writer.write(self._chunk(tile), entries.data, np.array([checksum], CHECKSUM).data)
        return error

    def draft_tile(self, tile: Tile, block: np.ndarray) -> Draft:
        """Write one tile beside its place, as a worker does: neither lock nor manifest nor records are touched.

        A draft that nobody places is removed by the next that writes to the store.

        Raises:
            NumericalError, StoreError: as `write_tile`; or the store is gone.
        """
        entries, checksum, error = self._packed(tile, block)
        partial = partial_of(self._chunk(tile))
        with self._disk():
            if not (self._folder / METADATA).is_file():  # whoever removed it does not want a part of it back
                raise FileNotFoundError(errno.ENOENT, "the folder of the store is gone", str(self.path))
            self._writer.write(partial, entries.data, np.array([checksum], CHECKSUM).data)
        return Draft(tile, partial.name, checksum, error, entries.nbytes + CHECKSUM.itemsize)

    def place_tile(self, draft: Draft) -> None:
        """Let a draft take its place: it is a tile from then on.

        Raises:
            StoreError: it is not there, as where a worker has another disk; or the disk refuses.
        """
        target = self._chunk(draft.tile)
        with self._disk():
            self._state_error(draft.error)
            self._records.add(draft.tile, draft.checksum)
            os.replace(target.with_name(draft.partial), target)

    def _packed(self, tile: Tile, block: np.ndarray) -> tuple[np.ndarray, int, float]:
        """The entries of a tile as its file has them, their checksum, and their error of storage."""
        raw, error = narrowed(block, self.manifest["storage"], (tile.rows.start, tile.columns.start))
        return *packed(raw, self.manifest["storage"], self.grid.tile), error

    def _state_error(self, error: float) -> None:
        """Keep the largest error of storage. It is stated before its tile counts, so that no interruption loses it."""
        if error > self.manifest.get("storage_error", 0.0):
            self.update(storage_error=error)

    @cached_property
    def _writer(self) -> DirectWriter:
        return DirectWriter()

    def update(self, **changes: Any) -> None:
        """Change entries of the manifest, atomically; they are on the disk afterwards."""
        changed = {**self.manifest, **changes}
        with self._disk():
            self._group.attrs[KEY] = signed(changed)
        self.manifest = changed

    def flush_tiles(self) -> None:
        """Wait until all tiles and their places are on the disk, and that they are all there: somebody may delete some.

        Raises:
            StoreError: one is not there, or the disk refuses.
        """
        with self._disk():
            self._records.flush()
            flush(self._folder / "kernel")
        size = chunk_bytes(self.manifest["storage"], self.grid.tile, self.shape[2:])
        for tile in self.grid.tiles():
            try:
                there = regular_size(self._chunk(tile)) == size
            except OSError:
                there = False
            if not there:
                raise StoreError(
                    f"tile ({tile.row}, {tile.column}) of {self.path} was removed while others were written",
                    allowed="a folder that is left alone until its writer has finished",
                    remedy=f"{self._mending} computes it again",
                )

    def unfinished(self) -> list[Tile]:
        """Tiles that are missing or damaged, in the order of computation.

        Raises:
            StoreError: the store claims more than can be looked for.
        """
        check_claim(self.path, self.manifest, self.grid.count)
        return [tile for tile in self.grid.tiles() if not self._is_whole(tile)]

    def verify(self) -> Verification:
        """Read every tile, its checksum and its place, and the network and the samples and their hashes.

        Raises:
            StoreError: the store claims more than can be looked for.
        """
        check_claim(self.path, self.manifest, self.grid.count)
        damaged, missing, good = [], [], 0
        for tile in self.grid.tiles():
            try:
                self.read_tile(tile)
                good += 1
            except NotComputed:
                missing.append((tile.row, tile.column))
            except StoreError:
                damaged.append((tile.row, tile.column))
        return Verification(good, tuple(damaged), tuple(missing), self._foreign_inputs())

    def growth_bytes(self, x_new: np.ndarray) -> int:
        """Bytes on disk that more samples will take, with their tiles."""
        n, tile = self.shape[0] + len(x_new), self.grid.tile
        more = Grid(n, n, tile, True).count - self.grid.count
        entries = int(np.prod(self.shape[2:], dtype=np.int64))
        return more * tile * tile * entries * STORAGE[self.manifest["storage"]].itemsize + x_new.nbytes

    def grow(self, x_new: np.ndarray) -> None:
        """Make room for more samples. Tiles of a last block that was not full are then no longer whole.

        The manifest, which is written last, says how many samples count: until then the store is what it was.

        Raises:
            StoreError: the disk is full or refuses; the store stays as it was.
        """
        n, total = self.shape[0], self.shape[0] + len(x_new)
        with self._disk():
            samples = self._stored_samples
            samples.resize((max(total, samples.shape[0]), *samples.shape[1:]))
            write_samples(samples, n, as_stored(x_new))
            flush(self._folder / "x")
            length = max(total, *self._array.shape[:2])
            self._array.resize((length, length, *self.shape[2:]))
            data = data_hash(samples, total, self._fields)
        self.update(n=total, data=data, complete=False)

    def clear_partial_files(self) -> None:
        """Remove the files that a writer that died had not finished."""
        for top, _, names in os.walk(self._folder):
            for name in filter(is_partial, names):
                Path(top, name).unlink(missing_ok=True)

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes of a tile on disk."""
        return self._chunk(tile).stat().st_size

    def stored_bytes(self) -> int:
        """Bytes of all tiles on disk."""
        return sum(file.stat().st_size for file in (self._folder / "kernel" / "c").rglob("*") if file.is_file())

    @property
    def _folder(self) -> Path:
        """Where it is written.

        Raises:
            StoreError: it is at a URL.
        """
        if isinstance(self.path, Path):
            return self.path
        raise StoreError(
            f"{self.path} is at a URL, where stores are only read",
            allowed="a store in a folder",
            remedy=f"copy it into a folder, change it there, and `upload` it under another name than {self.path}",
        )

    def _chunk(self, tile: Tile) -> Path:
        return self._folder / self._name(tile)

    def _foreign_inputs(self) -> tuple[str, ...]:
        """What is wrong with the stored network and samples, nothing if they are those of the kernel.

        A network that is not stored is looked at where it was handed in.
        """
        found = []
        for check in (self.check_network, self.check_samples):
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
