"""A kernel on disk: Zarr v3, one chunk per tile, the lower triangle alone, a checksum per chunk.

The folder holds a Zarr group with the manifest in its attributes, the array `kernel`, the samples `x`, and the network
as `model.safetensors`, so that a store can be resumed, verified, repaired and appended to by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
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

from udlbridge.costs import chosen_size
from udlbridge.errors import OptionError, StoreError
from udlbridge.model import Model
from udlbridge.narrowing import STORAGE, narrowed, storage_eps, widened
from udlbridge.reduction import Outputs, Reduction, reduction
from udlbridge.sizes import parse_bytes, show_bytes
from udlbridge.tiling import Grid, Tile, transposed

FORMAT = 1
"""Version of the manifest."""


def data_hash(x: np.ndarray) -> str:
    """SHA-256 of the shape, dtype and bytes of the samples."""
    digest = hashlib.sha256(f"{x.shape}{x.dtype.str}".encode())
    digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()


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


class StoredKernel:
    """A kernel on disk that reads like an array. It computes nothing; `computing.KernelStore` does.

    `store[i:j, k:l]`, `store[i]`, `np.asarray(store)` (refused above `memory`), `store.diagonal()`, `store @ v`. The
    upper triangle is mirrored on reading.

    Args:
        path: the folder.
        model: if given, the network that the kernel must be of.
        x: if given, the samples that it must be of.
        memory: how large an array may be that a read makes, as "2GB".

    Raises:
        StoreError: there is no store, it has another format, or it is of another network or other samples.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Model | None = None,
        x: np.ndarray | None = None,
        memory: int | str = "2GB",
    ) -> None:
        self.path = Path(path)
        self._memory = parse_bytes(memory)
        try:
            self._group = zarr.open_group(self.path, mode="r+")
            self.manifest: dict[str, Any] = dict(self._group.attrs["udlbridge"])
        except (FileNotFoundError, KeyError, ValueError, TypeError) as error:
            raise StoreError(
                f"{self.path} is not a kernel store ({error})", allowed="a folder that `udlbridge kernel --out` wrote",
                remedy="check the path",
            ) from None  # fmt: skip
        if self.manifest.get("format") != FORMAT:
            raise StoreError(
                f"{self.path} has format {self.manifest.get('format')}", allowed=str(FORMAT), remedy="update udlbridge"
            )
        self._array: Any = self._group["kernel"]
        self._check("model", None if model is None else model.hash(), "network")
        self._check("data", None if x is None else data_hash(x), "samples")

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
        group = zarr.create_group(folder, overwrite=False)
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

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n, *trailing)."""
        return tuple(self._array.shape)

    @property
    def ndim(self) -> int:
        """2, 3 for "diagonal", 4 for "full"."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that reads give: that of the computation, whatever the storage."""
        return np.dtype(self.manifest["dtype"])

    @property
    def eps(self) -> float:
        """The unit of rounding of the entries: that of the storage, which may be narrower than `dtype`."""
        return storage_eps(self.manifest["storage"])

    @property
    def complete(self) -> bool:
        """Whether every tile was written."""
        return bool(self.manifest["complete"])

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return Grid(self.shape[0], self.shape[0], int(self.manifest["tile"]), True)

    @property
    def reduction(self) -> Reduction:
        """What `outputs=` the kernel has."""
        outputs: Outputs = self.manifest["outputs"]
        return reduction(outputs, int(self.manifest["n_outputs"]))

    def model(self) -> Model:
        """The network."""
        return Model.load(self.path / "model.safetensors")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the kernel sums over; stores of older versions sum over all."""
        found = self.manifest.get("params")
        return tuple(self.model().params) if found is None else tuple(found)

    @property
    def rank_bound(self) -> int:
        """The largest rank that the kernel can have: P for one output or their sum, O P for a trace or mean."""
        chosen = self.reduction
        return chosen_size(self.model(), self.parameters) * chosen.n_cotangents

    def samples(self) -> np.ndarray:
        """The samples, (n, *D)."""
        array: Any = self._group["x"]
        return np.asarray(array[...])

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"{type(self).__name__}({str(self.path)!r}, shape={self.shape}, {self.dtype}, {state})"

    # --- reading --------------------------------------------------------------------------------------------------

    def read_tile(self, tile: Tile) -> np.ndarray:
        """One stored tile (r, c, *trailing), its checksum verified.

        Raises:
            StoreError: it was not computed yet, or it is damaged.
        """
        if not self._chunk(tile).is_file():
            raise StoreError(
                f"tile ({tile.row}, {tile.column}) of {self.path} is not there: the computation was interrupted",
                remedy="finish it with `udlbridge kernel ... --resume`",
            )
        try:
            raw = np.asarray(self._array[tile.rows, tile.columns])
        except ValueError as error:
            raise StoreError(
                f"tile ({tile.row}, {tile.column}) of {self.path} is damaged ({error})",
                remedy="`udlbridge store verify --repair` computes it again",
            ) from error
        return widened(raw, self.manifest["storage"], self.dtype)

    def tiles(self) -> Iterator[tuple[Tile, np.ndarray]]:
        """Every stored tile (block row >= block column) with its entries; one is in memory at a time."""
        for tile in self.grid.tiles():
            yield tile, self.read_tile(tile)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows, or a rectangle: `store[i]`, `store[i:j]`, `store[i:j, k:l]`; steps of one."""
        rows, columns, squeeze = self._rectangle(key)
        shape = (rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:])
        self._refuse(int(np.prod(shape, dtype=np.int64)), f"store[{rows.start}:{rows.stop}, ...]")
        result = np.empty(shape, dtype=self.dtype)
        size = self.grid.tile
        for i in range(rows.start // size, -(-rows.stop // size)):
            for j in range(columns.start // size, -(-columns.stop // size)):
                block = self._block(i, j)
                top, left = i * size, j * size
                r = slice(max(rows.start, top), min(rows.stop, top + block.shape[0]))
                c = slice(max(columns.start, left), min(columns.stop, left + block.shape[1]))
                result[r.start - rows.start : r.stop - rows.start, c.start - columns.start : c.stop - columns.start] = (
                    block[r.start - top : r.stop - top, c.start - left : c.stop - left]
                )
        return result[squeeze]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, if that is within `memory`."""
        if copy is False:
            raise ValueError("a kernel store is on disk: an array of it is always a copy")
        return np.asarray(self[:, :], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def diagonal(self) -> np.ndarray:
        """K[i, i], (n, *trailing), from the diagonal tiles alone."""
        parts = []
        for tile in self.grid.tiles():
            if tile.row == tile.column:
                block = self.read_tile(tile)
                index = np.arange(len(block))
                parts.append((tile.row, block[index, index]))
        return np.concatenate([part for _, part in sorted(parts, key=lambda item: item[0])])

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        """K v for a vector (n,) or a block of vectors (n, k), accumulated in float64; each tile is read once."""
        if self.ndim != 2:
            raise StoreError(f"a kernel of shape {self.shape} times a vector", allowed="an (n, n) kernel")
        v = np.asarray(vectors, dtype=np.float64)
        if v.shape[0] != self.shape[0]:
            raise StoreError(f"a vector of length {v.shape[0]}", allowed=f"length {self.shape[0]}")
        result = np.zeros_like(v)
        for tile, block in self.tiles():
            wide = block.astype(np.float64)
            result[tile.rows] += wide @ v[tile.columns]
            if tile.row != tile.column:
                result[tile.columns] += wide.T @ v[tile.rows]
        return result

    # --- writing, for `computing` alone -----------------------------------------------------------------------------

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
        """Undo a growth that was interrupted: the manifest, which is written last, says how many samples count."""
        n = int(self.manifest["n"])
        samples: Any = self._group["x"]
        if samples.shape[0] != n:
            samples.resize((n, *samples.shape[1:]))
        if self.shape[0] != n:
            self._array.resize((n, n, *self.shape[2:]))

    def stored_bytes(self) -> int:
        """Bytes of all tiles on disk."""
        return sum(file.stat().st_size for file in (self.path / "kernel" / "c").rglob("*") if file.is_file())

    # --- helpers --------------------------------------------------------------------------------------------------

    def _chunk(self, tile: Tile) -> Path:
        """The file of a tile, by Zarr v3's default encoding of chunk keys."""
        trailing = ["0"] * (self.ndim - 2)
        return self.path.joinpath("kernel", "c", str(tile.row), str(tile.column), *trailing)

    def _is_whole(self, tile: Tile) -> bool:
        try:
            self.read_tile(tile)
        except StoreError:
            return False
        return True

    def _block(self, i: int, j: int) -> np.ndarray:
        """Block (i, j) of the whole kernel, from the lower triangle."""
        high, low = max(i, j), min(i, j)
        grid = self.grid
        block = self.read_tile(Tile(high, low, grid.block(high, grid.n), grid.block(low, grid.n)))
        return block if i >= j else transposed(block)

    def _rectangle(self, key: Any) -> tuple[slice, slice, Any]:
        keys = key if isinstance(key, tuple) else (key, slice(None))
        if len(keys) != 2:
            raise StoreError(f"an index with {len(keys)} parts", allowed="two, as store[i:j, k:l]")
        found: list[slice] = []
        squeeze: list[Any] = []
        for part in keys:
            if isinstance(part, slice):
                start, stop, step = part.indices(self.shape[0])
                if step != 1:
                    raise StoreError(f"an index with step {step}", allowed="step 1", remedy="read, then take steps")
                found.append(slice(start, max(start, stop)))
                squeeze.append(slice(None))
            else:
                index = range(self.shape[0])[part]
                found.append(slice(index, index + 1))
                squeeze.append(0)
        return found[0], found[1], tuple(squeeze)

    def _refuse(self, entries: int, what: str) -> None:
        size = entries * self.dtype.itemsize
        if size > self._memory:
            raise StoreError(
                f"{what} would be an array of {show_bytes(size)}",
                allowed=f"{show_bytes(self._memory)} (memory=)",
                remedy="read slices, as store[0:1000, 0:1000], or use store.tiles(), store.diagonal() or store @ v",
            )

    def _check(self, field: str, given: str | None, what: str) -> None:
        if given is not None and given != self.manifest[field]:
            raise StoreError(
                f"{self.path} is the kernel of other {what}: hash {self.manifest[field][:12]}, given {given[:12]}",
                allowed=f"the same {what}",
                remedy="write to another path, or open the store without naming them",
            )


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
