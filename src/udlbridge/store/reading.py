"""A kernel on disk: Zarr v3, one chunk per tile, the lower triangle alone, a checksum per chunk.

The folder holds a Zarr group with the manifest in its attributes, the array `kernel`, the samples `x`, the places of
the tiles, and the network as `model.safetensors`, so that a store can be resumed, verified, repaired and appended to by
itself. Of a PyTorch module it has a hash, and the module has to be at hand. Zarr's own readers see NaN where nothing is
stored, as in the upper triangle.

Nothing in it is believed unproved: the manifest has a checksum, network and samples a hash, each tile a checksum and
a record of its place; and what a file claims is held against its size before anything is read or allocated.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.backends.reduction import Outputs, Reduction, checked_reduction
from udlbridge.backends.sites import parameter_count
from udlbridge.backends.symmetry import transposed
from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.request import as_network
from udlbridge.kernels.tiling import Grid, Tile
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import parse_bytes, show_bytes
from udlbridge.regular import check_readable
from udlbridge.store.arrays import check_sample_files, open_arrays
from udlbridge.store.chunks import chunk_strips, read_chunk
from udlbridge.store.indexing import put_together, rectangle
from udlbridge.store.manifest import read_manifest
from udlbridge.store.narrowing import storage_eps, widened
from udlbridge.store.places import FILE as PLACES
from udlbridge.store.places import Places
from udlbridge.store.products import blas_threads, strip_bytes, triangle_product
from udlbridge.store.samples import Fields, as_given, data_hash

MODEL = "model.safetensors"
"""Name of the file of the network."""

MODEL_HEADER = 1 << 24
"""Far more bytes than the header of that file takes: names, shapes and the layers as JSON."""


class NotComputed(StoreError):  # noqa: N818 - reads as the condition that it names
    """A tile that was not computed yet, or not for all samples."""


class StoredKernel:
    """A kernel on disk that reads like an array. It computes nothing; `kernel_store.KernelStore` does.

    `store[i:j, k:l]`, `store[i]`, `np.asarray(store)` (refused above `memory`), `store.diagonal()`, `store @ v`. The
    upper triangle is mirrored on reading.

    Args:
        path: the folder.
        model: if given, the network that the kernel must be of. A store of a PyTorch module does not hold it: what
            computes (`append`, `repair`, `compare_with_float64`) needs it here.
        x: if given, the samples that it must be of.
        memory: how large an array may be that a read makes, as "2GB"; and how much of tiles a product holds at once.
        output: of a module, as for `udlbridge.as_network`.

    Raises:
        StoreError: there is no store, it has another format, or it is of another network or other samples.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Model | Any = None,
        x: Any = None,
        memory: int | str = "2GB",
        output: Any = None,
    ) -> None:
        self.path = Path(os.path.expanduser(path))
        self._memory = parse_bytes(memory)
        self._load()
        self._network = None if model is None else as_network(model, output=output)
        if self._network is not None:
            self._compare("model", self._network.hash(), "network")
        if x is not None:
            self._compare("data", data_hash(checked_samples(self._network or self.model(), x)), "samples")

    def check_inputs(self, model: Model | ForeignNetwork, x: np.ndarray) -> None:
        """Raise `StoreError` unless this is the kernel of that network and of those samples."""
        self._compare("model", model.hash(), "network")
        self._compare("data", data_hash(x), "samples")

    def _load(self) -> None:
        """Read the manifest, and what it is held against, as they are on disk now: another handle may have written."""
        self.manifest = read_manifest(self.path)
        self._group, self._array, self._stored_samples = open_arrays(self.path, self.manifest)
        self._places = Places(self.path, self.manifest["id"])
        self._refresh_places()

    def _refresh_places(self) -> None:
        try:
            self._places.refresh()
        except OSError as error:
            raise StoreError(
                f"{self.path / PLACES}, which says which tile is which, cannot be read ({error})",
                allowed="the file that udlbridge wrote",
                remedy="mend its permissions, or take it from a copy of the store",
            ) from error

    def __getstate__(self) -> tuple[Path, int]:
        """Where it is: a copy, in whatever process, reads the same folder."""
        return self.path.absolute(), self._memory

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.path, self._memory = state
        self._network = None
        self._load()

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n, *trailing)."""
        n = int(self.manifest["n"])  # not the array's: an append that was killed may have made that larger
        return (n, n, *self.reduction.trailing)

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
        return Grid(int(self.manifest["n"]), int(self.manifest["n"]), int(self.manifest["tile"]), True)

    @property
    def reduction(self) -> Reduction:
        """What `outputs=` the kernel has."""
        outputs: Outputs = self.manifest["outputs"]
        return checked_reduction(outputs, int(self.manifest["n_outputs"]))

    def model(self) -> Any:
        """The network: a `Model`, which the store holds, or what was handed in when it was opened.

        Raises:
            StoreError: its file is damaged, or is another network's; or a module was not handed in, or has changed.
        """
        module = self.manifest.get("module")
        if module is not None:
            if self._network is None:
                raise StoreError(
                    f"{self.path} is the kernel of a PyTorch module ({module['name']}), which it does not hold",
                    allowed="that module, with the same weights",
                    remedy="hand it in: ub.KernelStore(path, model=module), or --model file.py:function",
                )
            self._compare("model", self._network.hash(), "network")
            return self._network
        path = self.path / MODEL
        try:
            size, numbers = check_readable(path), int(self.manifest["model_bytes"])
            if not numbers <= size <= numbers + MODEL_HEADER:
                raise OSError(f"it has {size:,} bytes, and the network {numbers:,}")
            model = Model.load(path)
        except (OSError, UDLBridgeError) as error:
            raise self._foreign(MODEL, str(error)) from error
        if model.hash() != self.manifest["model"]:
            raise self._foreign(MODEL, "its hash is another one")
        return model

    def check_network(self) -> None:
        """Compare the network with its hash: the stored one, or the one that was handed in, if one was.

        Raises:
            StoreError: it is damaged, or another one.
        """
        if self.manifest.get("module") is None or self._network is not None:
            self.model()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the kernel sums over."""
        return tuple(self.manifest["params"])

    @property
    def rank_bound(self) -> int:
        """The largest rank that the kernel can have: P for one output or their sum, O P for a trace or mean."""
        module = self.manifest.get("module")
        count = parameter_count(self.model(), self.parameters) if module is None else int(module["n_params"])
        return count * self.reduction.n_cotangents

    def samples(self) -> np.ndarray:
        """The samples, (n, *D); several inputs of a module as the fields of an array (n,).

        Raises:
            StoreError: they are damaged, or others.
        """
        self.check_samples()
        return as_given(np.asarray(self._stored_samples[: self.shape[0]]), self._fields)

    @property
    def _fields(self) -> Fields | None:
        found: Fields | None = self.manifest["samples"].get("fields")
        return found

    def check_samples(self) -> None:
        """Read the samples, chunk by chunk, and compare their hash.

        Raises:
            StoreError: they are damaged, or others.
        """
        try:
            check_sample_files(self.path, self.manifest)
            found = data_hash(
                self._stored_samples, self.shape[0], self._fields
            )  # another handle may have appended some
        except (OSError, ValueError) as error:
            raise self._foreign("x", str(error)) from error
        if found != self.manifest["data"]:
            raise self._foreign("x", "their hash is another one")

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"{type(self).__name__}({str(self.path)!r}, shape={self.shape}, {self.dtype}, {state})"

    # --- reading --------------------------------------------------------------------------------------------------

    def read_tile(self, tile: Tile) -> np.ndarray:
        """One stored tile (r, c, *trailing), its checksum and its place verified.

        Raises:
            StoreError: it was not computed yet, it is damaged, or another has its place.
        """
        with self._faults(tile):
            raw, checksum = read_chunk(
                self._chunk(tile), self.manifest["storage"], int(self.manifest["tile"]), self.shape[2:]
            )
            self._check_place(tile, checksum)
        return widened(raw[: tile.shape[0], : tile.shape[1]], self.manifest["storage"], self.dtype)

    def read_strips(self, tile: Tile, height: int) -> Iterator[np.ndarray]:
        """One stored tile of a matrix as strips (h, c) of at most `height` rows, each overwritten by the next.

        What it gives is verified when it ends, and must not count before.

        Raises:
            StoreError: as `read_tile`.
        """
        storage, (rows, columns) = self.manifest["storage"], tile.shape
        with self._faults(tile):
            strips = chunk_strips(
                self._chunk(tile), storage, int(self.manifest["tile"]), height, partial(self._check_place, tile)
            )
            for top, raw in strips:
                if top < rows:
                    yield widened(raw[: rows - top, :columns], storage, self.dtype)

    def _check_place(self, tile: Tile, checksum: int) -> None:
        """Raise if no tile with this checksum was written here: ValueError, or `NotComputed` if it was smaller then."""
        if self._places.holds(tile, checksum):
            return
        self._refresh_places()  # another handle may have written
        if self._places.holds(tile, checksum):
            return
        if self._places.holds_less(tile, checksum):
            raise self._not_computed(tile)
        raise ValueError("its checksum was never written for this place: another tile has it")

    @contextlib.contextmanager
    def _faults(self, tile: Tile) -> Iterator[None]:
        """What is wrong with a tile's file, as a StoreError."""
        name = f"tile ({tile.row}, {tile.column}) of {self.path}"
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_computed(tile) from None
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            denied = isinstance(error, PermissionError)
            raise StoreError(
                f"{name} " + (f"cannot be read: permission denied ({error})" if denied else f"is damaged ({error})"),
                allowed="a tile as it was written" if not denied else "files that this user may read",
                remedy=("change its permissions, or " if denied else "")
                + "`udlbridge store verify --repair` computes it again",
            ) from error

    def _not_computed(self, tile: Tile) -> NotComputed:
        return NotComputed(
            f"tile ({tile.row}, {tile.column}) of {self.path} is not there: the computation was interrupted",
            remedy=f"finish it with `udlbridge store verify {self.path} --repair`",
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
        than there is room for within `memory`.

        Raises:
            StoreError: the kernel is not a matrix, or the vectors are not real numbers of its length.
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
        threads = max(1, min(blas_threads(), self._memory // strip_bytes(self.grid.tile)))
        return triangle_product(self.grid, self.read_strips, v.astype(np.float64), threads)

    # --- helpers --------------------------------------------------------------------------------------------------

    def _chunk(self, tile: Tile) -> Path:
        """The file of a tile, by Zarr v3's default encoding of chunk keys."""
        trailing = ["0"] * (self.ndim - 2)
        return self.path.joinpath("kernel", "c", str(tile.row), str(tile.column), *trailing)

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

    def _foreign(self, part: str, why: str) -> StoreError:
        what = {"x": "samples", MODEL: "network"}[part]
        return StoreError(
            f"{self.path / part} does not hold the {what} of this kernel ({why})",
            remedy="`udlbridge kernel ... --resume` with the same network and samples writes both again",
        )

    def _compare(self, field: str, given: str, what: str) -> None:
        if given != self.manifest[field]:
            raise StoreError(
                f"{self.path} is the kernel of other {what}: hash {self.manifest[field][:12]}, given {given[:12]}",
                allowed=f"the same {what}",
                remedy="write to another path, or open the store without naming them",
            )
