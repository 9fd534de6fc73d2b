"""A kernel on disk: Zarr v3, one chunk per tile, the lower triangle alone, a checksum per chunk.

Zarr's own readers see NaN where nothing is stored, as in the upper triangle. Nothing in a store is believed unproved:
the manifest has a checksum, network and samples a hash (`folder`), each tile a checksum and a record of its place; and
what a file claims is held against its size before anything is read or allocated.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.backends.symmetry import transposed
from udlbridge.backends.threads import numpy_blas
from udlbridge.displays import Displayed, draw
from udlbridge.errors import OptionError, StoreError
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.options import show_bytes
from udlbridge.store.chunks import chunk_bytes, chunk_strips, read_chunk
from udlbridge.store.executors import Crew
from udlbridge.store.files import Url, no_answer, unanswered
from udlbridge.store.folder import StoreFolder
from udlbridge.store.indexing import put_together, rectangle
from udlbridge.store.names import RECORDS
from udlbridge.store.narrowing import widened
from udlbridge.store.products import Bands, band_product, blas_threads, by_threads, strip_bytes, triangle_product
from udlbridge.store.tasks import Tasks


class NotComputed(StoreError):  # noqa: N818 - reads as the condition that it names
    """A tile that was not computed yet, or not for all samples."""


@dataclass(frozen=True)
class Handle:
    """Where a store is, and its random name: each process that gets it opens the store once."""

    path: Path | Url
    name: str

    def opened(self) -> StoredKernel:
        """The store.

        Raises:
            StoreError: there is none, or another one.
        """
        return _opened(self)


MAPPED = 500
"""Samples up to which a store draws its kernel: a picture has no more pixels for it."""


class StoredKernel(StoreFolder, Displayed):
    """A kernel on disk that reads like an array. It computes nothing; `kernel_store.KernelStore` does.

    `store[i:j, k:l]`, `store[i]`, `np.asarray(store)` (refused above `memory`), `store.diagonal()`, `store @ v`. The
    upper triangle is mirrored on reading.

    Args:
        path: the folder, or a URL: file:///folder/K.zarr, or, with the extra `objects`, s3://, gs:// or az:// and
            bucket/K.zarr, where a kernel was computed to (`udlbridge.compute_kernel`) or copied to (`upload`).
        model: if given, the network that the kernel must be of. A store of a PyTorch module does not hold it: what
            computes (`append`, `repair`, `compare_with_float64`) needs it here.
        x: if given, the samples that it must be of.
        memory: how large an array may be that a read makes, as "2GB"; and how much of tiles a product holds at once.
        executor: whose workers read the tiles for products `store @ v`, and so for all that is made of them
            (`udlbridge.spectrum`, `udlbridge.trace`, `udlbridge.predict.solve` and their relatives), for
            `udlbridge.alignment` with other such stores or label kernels, and who compute in `append` and `repair`. As
            for `udlbridge.compute_kernel`; what comes of it is the same as without. None is the threads of this
            process, which take all of its cores.
        output: of a module, as for `udlbridge.as_network`.

    Raises:
        StoreError: there is no store, it has another format, or it is of another network or other samples.
        OptionError: no tasks can be given to the executor.
    """

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        facts = {
            "shape": self.shape,
            "dtype": self.manifest["storage"],
            "complete": self.complete,
            **{name: self.manifest.get(name) for name in ("outputs", "backend", "created")},
        }
        return [{"": name, str(self.path): value} for name, value in facts.items() if value is not None]

    def plot(self, ax: Any = None) -> Any:
        """The kernel of few samples as a map, on `ax` or a new figure; returns the Axes.

        Raises:
            OptionError: more than `MAPPED` samples, or a kernel that keeps the outputs apart.
            StoreError: a tile was not computed yet, or is damaged.
        """
        if len(self.shape) > 2 or max(self.shape) > MAPPED:
            part = ", ".join([":100", ":100", *("0" for _ in self.shape[2:])])
            raise OptionError(
                f"a picture of a kernel of shape {self.shape}",
                allowed=f"a matrix of up to {MAPPED} samples",
                remedy=f"draw a part: matplotlib's imshow(store[{part}])",
            )
        return draw("kernels:draw_kernel", ax, self[:, :], self._title)

    @property
    def _title(self) -> str:
        """What stands over a picture."""
        return f"kernel, {self.manifest.get('outputs', '')}".rstrip(", ")

    def read_tile(self, tile: Tile) -> np.ndarray:
        """One stored tile (r, c, *trailing), its checksum and its place verified.

        Raises:
            StoreError: it was not computed yet, it is damaged, or another has its place.
        """
        raw, _ = self.read_raw(tile)
        return widened(raw[: tile.shape[0], : tile.shape[1]], self.manifest["storage"], self.dtype)

    def read_raw(self, tile: Tile) -> tuple[np.ndarray, int]:
        """One tile as it is stored, filled up (tile, tile, *trailing), and its checksum; both, and its place, verified.

        Raises:
            StoreError: as `read_tile`.
        """
        with self._faults(tile):
            raw, checksum = read_chunk(
                self._files, self._name(tile), self.manifest["storage"], int(self.manifest["tile"]), self.shape[2:]
            )
            self._check_recorded(tile, checksum)
        return raw, checksum

    def read_strips(self, tile: Tile, height: int) -> Iterator[np.ndarray]:
        """One stored tile of a matrix as strips (h, c) of at most `height` rows, each overwritten by the next.

        What it gives is verified when it ends, and must not count before.

        Raises:
            StoreError: as `read_tile`.
        """
        storage, (rows, columns) = self.manifest["storage"], tile.shape
        with self._faults(tile):
            strips = chunk_strips(
                self._files,
                self._name(tile),
                storage,
                int(self.manifest["tile"]),
                height,
                partial(self._check_recorded, tile),
            )
            for top, raw in strips:
                if top < rows:
                    yield widened(raw[: rows - top, :columns], storage, self.dtype)

    def _check_recorded(self, tile: Tile, checksum: int) -> None:
        """Raise if no tile with this checksum was written here.

        Raises:
            ValueError: another tile was.
            StoreError: what was written where is not known; `NotComputed` if the tile was smaller then.
        """
        if self._records.holds(tile, checksum):
            return
        self._refresh_records()  # another handle may have written
        if self._records.holds(tile, checksum):
            return
        if self._records.holds_less(tile, checksum):
            raise self._not_computed(tile)
        if not self._records.there:
            raise StoreError(
                f"{self.path / RECORDS} is missing, which says which tile is which",
                allowed="a store with all its files",
                remedy=f"take it from a copy of the store; or {self._mending} computes every tile again",
            )
        raise ValueError("its checksum was never written for this place: another tile has it")

    @contextlib.contextmanager
    def _faults(self, tile: Tile) -> Iterator[None]:
        """What is wrong with a tile's file, as a StoreError."""
        name = f"tile ({tile.row}, {tile.column}) of {self.path}"
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise (self._missing(tile) if self.complete else self._not_computed(tile)) from None
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            if unanswered(error):
                raise no_answer(name, error) from error
            denied = isinstance(error, PermissionError)
            raise StoreError(
                f"{name} " + (f"cannot be read: permission denied ({error})" if denied else f"is damaged ({error})"),
                allowed="a tile as it was written" if not denied else "files that this user may read",
                remedy=f"{'change its permissions, or ' if denied else ''}{self._mending} computes it again",
            ) from error

    def _not_computed(self, tile: Tile) -> NotComputed:
        return NotComputed(
            f"tile ({tile.row}, {tile.column}) of {self.path} is not there: the computation was interrupted",
            remedy=f"finish it with {self._mending}",
        )

    def _missing(self, tile: Tile) -> NotComputed:
        return NotComputed(
            f"{self.path / self._name(tile)} is missing, the file of tile ({tile.row}, {tile.column})",
            allowed="a store with all its files",
            remedy=f"take it from a copy of the store; or {self._mending} computes it again",
        )

    def tiles(self) -> Iterator[tuple[Tile, np.ndarray]]:
        """Every stored tile (block row >= block column) with its entries; one is in memory at a time."""
        for tile in self.grid.tiles():
            yield tile, self.read_tile(tile)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows, or a rectangle: `store[i]`, `store[i:j]`, `store[i:j, k:l]`; steps of one."""
        rows, columns, squeeze = rectangle(key, self.shape[0])
        shape = (rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:])
        self._refuse(math.prod(shape), f"store[{rows.start}:{rows.stop}, ...]")
        result = np.empty(shape, dtype=self.dtype)
        put_together(result, rows, columns, self.grid.tile, self._block)
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
        """K v for a vector (n,) or a block of vectors (n, k), accumulated in float64; each tile is read once.

        It takes as many threads as NumPy's BLAS would (`threadpoolctl.threadpool_limits` says how many), but no more
        than there is room for within `memory`; or the workers of the store's `executor`. At a URL several requests are
        on their way at a time.

        Raises:
            StoreError: the kernel is not a matrix, the vectors are not real numbers of its length, or the workers of
                the executor die again and again.
        """
        if self.ndim != 2:
            raise StoreError(f"a kernel of shape {self.shape} times a vector", allowed="an (n, n) kernel")
        v = as_array(vectors, "the vectors", wanted=np.float64)
        if v.dtype.kind not in "fiub" or v.ndim not in (1, 2) or len(v) != self.shape[0]:
            raise StoreError(
                f"a kernel of shape {self.shape} times an array of shape {v.shape} and dtype {v.dtype}",
                allowed=f"real numbers, ({self.shape[0]},) or ({self.shape[0]}, k)",
                remedy="multiply the real and the imaginary part one after the other" if v.dtype.kind == "c" else "",
            )
        wide = v.astype(np.float64)
        if self._crew is not None:
            return triangle_product(self.grid, self._by_workers(self._crew, wide), wide)
        at_once = self._files.requests or blas_threads()
        held = strip_bytes(self.grid.tile)
        if self._files.requests:
            held += chunk_bytes(self.manifest["storage"], self.grid.tile, ())
        threads = max(1, min(at_once, self._memory // held))
        return triangle_product(self.grid, by_threads(self.grid, self.read_strips, wide, threads), wide)

    def _by_workers(self, crew: Crew, vectors: np.ndarray) -> Bands:
        """The workers of an executor multiply block rows; what waits to be added stays within `memory`."""

        def bands(order: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            grid, handle = self.grid, self.handle()
            arguments = ((handle, grid, row, vectors[: grid.block(row, grid.n).stop]) for row in order)
            given = Tasks(crew, _stored_band_product, arguments, "ask for the product again")
            return given.in_order(self._memory // vectors.nbytes)

        return bands

    @property
    def crew(self) -> Crew | None:
        """Those who read it besides this process, if it was opened with an `executor`."""
        return self._crew

    def handle(self) -> Handle:
        """What workers find this store by."""
        return Handle(self.path.absolute(), self.manifest["id"])

    # --- helpers --------------------------------------------------------------------------------------------------

    def _name(self, tile: Tile) -> str:
        """The file of a tile, by Zarr v3's default encoding of chunk keys."""
        return "/".join(["kernel", "c", str(tile.row), str(tile.column), *["0"] * (self.ndim - 2)])

    def _block(self, i: int, j: int) -> np.ndarray:
        """Block (i, j) of the whole kernel, from the lower triangle."""
        high, low = max(i, j), min(i, j)
        grid = self.grid
        block = self.read_tile(Tile(high, low, grid.block(high, grid.n), grid.block(low, grid.n)))
        return block if i >= j else transposed(block)

    def _refuse(self, entries: int, what: str) -> None:
        size = entries * self.dtype.itemsize
        if size > self._memory:
            raise StoreError(
                f"{what} would be an array of {show_bytes(size)}",
                allowed=f"{show_bytes(self._memory)} (memory=)",
                remedy="read slices, as store[0:1000, 0:1000], or use store.tiles(), store.diagonal() or store @ v",
            )


@lru_cache(maxsize=4)
def _opened(handle: Handle) -> StoredKernel:
    store = StoredKernel(handle.path)
    check_identity(store, handle.name)
    return store


def check_identity(store: StoreFolder, name: str) -> None:
    """Raise `StoreError` in a worker that finds another store at the path than its coordinator has."""
    if store.manifest["id"] != name:
        raise StoreError(
            f"{store.path} is another store for a worker than for the coordinator",
            allowed="a disk that the coordinator and all workers share, at the same path",
            remedy="use a path on such a disk",
        )


def _stored_band_product(handle: Handle, grid: Grid, row: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A task: `band_product` of a block row that is read here, by one thread."""
    with numpy_blas.to(1):
        return band_product(grid, row, handle.opened().read_strips, vectors)
