"""Writing a kernel store: tiles, one after the other, so that whatever was finished stays valid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.atomic import remedy_of
from udlbridge.displays import Displayed, Row
from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.model import Model
from udlbridge.store.arrays import check_claim
from udlbridge.store.chunks import CHECKSUM, chunk_bytes, packed
from udlbridge.store.creating import write_inputs, write_samples
from udlbridge.store.files import Right
from udlbridge.store.manifest import KEY, signed
from udlbridge.store.names import RECORDS
from udlbridge.store.narrowing import STORAGE, narrowed
from udlbridge.store.reading import NotComputed, StoredKernel
from udlbridge.store.samples import as_stored, data_hash
from udlbridge.texts import counted


@dataclass(frozen=True, repr=False)
class Verification(Displayed):
    """What `verify` found: tiles whose checksum fails, tiles that are not there, and inputs that are not the kernel's.

    `inputs` says what is wrong with the stored network and samples, by their hashes, and whether what says which tile
    is which is missing.
    """

    good: int
    damaged: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]
    inputs: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every tile is there and whole, and the network and the samples are those of the kernel."""
        return not self.damaged and not self.missing and not self.inputs

    def __str__(self) -> str:
        counts = f"{counted(self.good, 'tile')} whole, {len(self.damaged):,} damaged, {len(self.missing):,} missing"
        return "\n".join([counts, *self.inputs])

    def as_rows(self) -> list[Row]:
        """A row for each tile that is damaged or missing, and for what is wrong with the inputs."""
        tiles = (("damaged", self.damaged), ("missing", self.missing))
        found: list[Row] = [{"what": word, "where": f"tile {tile}"} for word, some in tiles for tile in some]
        return [*found, *({"what": "inputs", "where": words} for words in self.inputs)]


@dataclass(frozen=True)
class Draft:
    """A tile that is whole on the disk, beside its place, and does not count before `place_tiles` gives it that place.

    `name`: of its file. `error`: the largest relative rounding error of its entries. `size`: in bytes.
    """

    tile: Tile
    name: str
    checksum: int
    error: float
    size: int


class WritableStore(StoredKernel):
    """A stored kernel with its writing side, for what computes its tiles."""

    _held: Right | None = None
    """The lock, while this handle writes."""

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, and know what is on disk: another handle may have written since this one was opened.

        Raises:
            StoreError: another process writes.
        """
        with self._files.held() as held:
            self._load()
            self._held = held
            try:
                with self._disk():
                    self._files.clear_drafts()
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
                write_inputs(self._files, model, x)
                self._files.flush("x")

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
                remedy=f"{remedy_of(failure, self._files.remedy)} and go on with {self._mending}: "
                "finished tiles are kept",
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
            self._records.add([(tile, checksum)])
            self._files.write(self._name(tile), entries.data, np.array([checksum], CHECKSUM).data)
        return error

    def draft_tile(self, tile: Tile, block: np.ndarray) -> Draft:
        """Write one tile beside its place, as a worker does: neither lock nor manifest nor records are touched.

        A draft that nobody places is removed by the next that writes to the store.

        Raises:
            NumericalError, StoreError: as `write_tile`; or the store is gone.
        """
        entries, checksum, error = self._packed(tile, block)
        with self._disk():
            draft = self._files.draft(self._name(tile), entries.data, np.array([checksum], CHECKSUM).data)
        return Draft(tile, draft, checksum, error, self.tile_bytes(tile))

    def place_tiles(self, drafts: Sequence[Draft]) -> None:
        """Let drafts take their places: they are tiles from then on.

        Raises:
            StoreError: one is not there, as where a worker has another disk; or the disk refuses.
        """
        with self._disk():
            self._state_error(max(draft.error for draft in drafts))
            self._records.add([(draft.tile, draft.checksum) for draft in drafts])
            self._files.place([(draft.name, self._name(draft.tile)) for draft in drafts])

    def _packed(self, tile: Tile, block: np.ndarray) -> tuple[np.ndarray, int, float]:
        """The entries of a tile as its file has them, their checksum, and their error of storage."""
        raw, error = narrowed(block, self.manifest["storage"], (tile.rows.start, tile.columns.start))
        return *packed(raw, self.manifest["storage"], self.grid.tile), error

    def _state_error(self, error: float) -> None:
        """Keep the largest error of storage. It is stated before its tile counts, so that no interruption loses it."""
        if error > self.manifest.get("storage_error", 0.0):
            self.update(storage_error=error)

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
            self._files.flush("kernel")
            sizes = self._files.sizes("kernel/c")
        for tile in self.grid.tiles():
            if sizes.get(self._name(tile)) != self.tile_bytes(tile):
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
        check_claim(self.path, self._files, self.manifest, self.grid.count)
        there = self._files.sizes("kernel/c")
        looked_at = self._looked_at(tile for tile in self.grid.tiles() if self._name(tile) in there)
        whole = {self._name(tile) for tile, problem in looked_at if problem is None}
        return [tile for tile in self.grid.tiles() if self._name(tile) not in whole]

    def verify(self) -> Verification:
        """Read every tile, its checksum and its place, and the network and the samples and their hashes.

        Raises:
            StoreError: the store claims more than can be looked for.
        """
        check_claim(self.path, self._files, self.manifest, self.grid.count)
        damaged, missing, good = list[tuple[int, int]](), list[tuple[int, int]](), 0
        for tile, problem in self._looked_at(self.grid.tiles()):
            if problem is None:
                good += 1
            else:
                (missing if isinstance(problem, NotComputed) else damaged).append((tile.row, tile.column))
        inputs = self._foreign_inputs()
        if damaged and not self._records.there:
            inputs = (f"{self.path / RECORDS} is missing, which says which tile is which", *inputs)
        return Verification(good, tuple(damaged), tuple(missing), inputs)

    def _looked_at(self, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, StoreError | None]]:
        """Read these tiles, in their order; what is wrong with each. Several are read at a time at a URL."""

        def look(tile: Tile) -> tuple[Tile, StoreError | None]:
            try:
                self.read_tile(tile)
            except StoreError as problem:
                return tile, problem
            return tile, None

        held = 3 * chunk_bytes(self.manifest["storage"], self.grid.tile, self.shape[2:])
        at_once = min(self._files.requests, self._memory // held)
        if at_once < 2:
            yield from map(look, tiles)
            return
        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(look, tiles)

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
            self._files.flush("x")
            length = max(total, *self._array.shape[:2])
            self._array.resize((length, length, *self.shape[2:]))
            data = data_hash(samples, total, self._fields)
        self.update(n=total, data=data, complete=False)

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes of the file of a tile."""
        return chunk_bytes(self.manifest["storage"], self.grid.tile, self.shape[2:])

    def stored_bytes(self) -> int:
        """Bytes of all tiles that are there."""
        return sum(self._files.sizes("kernel/c").values())

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
