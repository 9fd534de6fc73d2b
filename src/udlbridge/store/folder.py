"""What the folder of a store says that it holds: manifest, network and samples, each held against its hash.

The folder holds a Zarr group with the manifest in its attributes, the array `kernel`, the samples `x`, the places of
the tiles, and the network as `model.safetensors`, so that a store can be resumed, verified, repaired and appended to by
itself. Of a PyTorch module it has a hash, and the module has to be at hand.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.backends.reduction import Outputs, Reduction, checked_reduction
from udlbridge.backends.sites import parameter_count
from udlbridge.errors import StoreError, UDLBridgeError
from udlbridge.kernels.request import as_network
from udlbridge.kernels.tiling import Grid
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.files import load_network
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import parse_bytes
from udlbridge.store.arrays import check_sample_files, open_arrays
from udlbridge.store.executors import Crew, checked_executor
from udlbridge.store.files import Url, files_of, located, no_answer, unanswered
from udlbridge.store.manifest import read_manifest
from udlbridge.store.names import MODEL, RECORDS
from udlbridge.store.narrowing import storage_eps
from udlbridge.store.samples import Fields, as_given, data_hash
from udlbridge.store.tile_records import TileRecords

MODEL_HEADER = 1 << 24
"""Far more bytes than the header of that file takes: names, shapes and the layers as JSON."""


class StoreFolder:
    """A store as far as it is known without reading a tile. Arguments and errors are those of `StoredKernel`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Model | Any = None,
        x: Any = None,
        memory: int | str = "2GB",
        executor: Any = None,
        output: Any = None,
    ) -> None:
        self._crew = None if executor is None else Crew(checked_executor(executor))
        self.path: Path | Url = located(path)
        self._files = files_of(self.path)
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
        self.manifest = read_manifest(self.path, self._files)
        self._group, self._array, self._stored_samples = open_arrays(self.path, self._files, self.manifest)
        self._records = TileRecords(self._files, self.manifest["id"])
        self._refresh_records()

    def _refresh_records(self) -> None:
        try:
            self._records.refresh()
        except OSError as error:
            raise StoreError(
                f"{self.path / RECORDS}, which says which tile is which, cannot be read ({error})",
                allowed="the file that udlbridge wrote",
                remedy="mend its permissions, or take it from a copy of the store",
            ) from error

    def __getstate__(self) -> tuple[Path | Url, int]:
        """Where it is: a copy, in whatever process, reads the same folder."""
        return self.path.absolute(), self._memory

    def __setstate__(self, state: tuple[Path | Url, int]) -> None:
        self.path, self._memory = state
        self._files = files_of(self.path)
        self._network = self._crew = None
        self._load()

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n, *trailing)."""
        n = int(self.manifest["n"])  # not the array's: an append that was killed may have made that larger
        return (n, n, *self.reduction.trailing)

    @property
    def ndim(self) -> int:
        """2, 3 for "diagonal" and lists of outputs, 4 for "full"."""
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
        """The network: a `Model` or `Graph`, which the store holds, or what was handed in when it was opened.

        Raises:
            StoreError: its file is damaged, may not be read, or is another network's; or a module was not handed in, or
                has changed.
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
        try:
            size, numbers = self._files.size(MODEL), int(self.manifest["model_bytes"])
            if not numbers <= size <= numbers + MODEL_HEADER:
                raise OSError(errno.EINVAL, f"it has {size:,} bytes, and the network {numbers:,}")
            with self._files.local(MODEL) as path:
                model = load_network(path)
        except (OSError, UDLBridgeError) as error:
            raise self._foreign(MODEL, error) from error
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
        """The samples, (n, *D); several inputs as the fields of an array (n,).

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
            check_sample_files(self._files, self.manifest)
            found = data_hash(
                self._stored_samples, self.shape[0], self._fields
            )  # another handle may have appended some
        except (OSError, ValueError) as error:
            raise self._foreign("x", error) from error
        if found != self.manifest["data"]:
            raise self._foreign("x", "their hash is another one")

    @property
    def _resumption(self) -> str:
        """What goes on with a computation into the store."""
        return "`udlbridge kernel ... --resume`"

    @property
    def _mending(self) -> str:
        """What computes missing and damaged tiles again."""
        module = " --model FILE.py:FUNCTION" if self.manifest.get("module") else ""
        return f"`udlbridge store verify {self.path} --repair{module}`"

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"{type(self).__name__}({str(self.path)!r}, shape={self.shape}, {self.dtype}, {state})"

    def _foreign(self, part: str, why: str | Exception) -> StoreError:
        if isinstance(why, PermissionError) or (
            isinstance(why, UDLBridgeError) and isinstance(why.__cause__, PermissionError)
        ):
            return StoreError(
                f"{self.path / part} cannot be read: permission denied ({why})",
                allowed="files that this user may read",
                remedy="change its permissions, or ask its owner to",
            )
        if unanswered(why):
            return no_answer(self.path / part, why)
        what = {"x": "samples", MODEL: "network"}[part]
        if isinstance(why, FileNotFoundError):
            name = why.filename if part == "x" and why.filename else part
            return StoreError(
                f"{self.path / name} is missing, which holds the {what} of this kernel",
                allowed="a store with all its files",
                remedy=f"take it from a copy of the store; or {self._resumption} with the same network and samples "
                "writes both again",
            )
        return StoreError(
            f"{self.path / part} does not hold the {what} of this kernel ({why})",
            remedy=f"{self._resumption} with the same network and samples writes both again",
        )

    def _compare(self, field: str, given: str, what: str) -> None:
        if given != self.manifest[field]:
            raise StoreError(
                f"{self.path} is the kernel of other {what}: hash {self.manifest[field][:12]}, given {given[:12]}",
                allowed=f"the same {what}",
                remedy="write to another path, or open the store without naming them",
            )
