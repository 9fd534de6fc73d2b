"""`KernelStore`: a kernel on disk that can be appended to, repaired and compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge import backends
from udlbridge.arrays import as_indices
from udlbridge.backends.jobs import KernelJob
from udlbridge.errors import OptionError, ShapeError, StoreError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.request import DEFAULT_MEMORY
from udlbridge.kernels.tiling import TileComputer
from udlbridge.networks.inputs import checked_samples, in_float64
from udlbridge.options import checked_count
from udlbridge.store.begun import plan_as_begun, request_as_begun
from udlbridge.store.filling import fill
from udlbridge.store.room import check_room
from udlbridge.store.writing import WritableStore
from udlbridge.words import EngineWord


class KernelStore(WritableStore):
    """A kernel on disk or at a URL that reads like an array, and that can be appended to, repaired and verified.

    `store[i:j, k:l]`, `store[i]`, `np.asarray(store)` (refused above `memory`), `store.diagonal()`, `store @ v`. The
    upper triangle is mirrored on reading. See `reading.StoredKernel` for the arguments.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = mkdtemp() + "/K.zarr"
        >>> _ = ub.compute_kernel(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS, path, progress=False)
        >>> store = ub.KernelStore(path)
        >>> store.shape, float(store[0, 1]) == float(store[1, 0])
        ((2, 2), True)
    """

    def _load(self) -> None:
        super()._load()
        if "infinite" in self.manifest:
            raise StoreError(
                f"{self.path} is a kernel at infinite width",
                allowed="the kernel of a finite network",
                remedy="open it as ub.infinite.InfiniteStore(path)",
            )

    def columns(self, indices: Int[np.ndarray, " r"]) -> Float[np.ndarray, "n r"]:
        """These columns of an (n, n) kernel, computed anew by its engine: reading them would take all of the tiles.

        They are computed on the device that the kernel was computed on, if it is here.

        Raises:
            DTypeError, ShapeError, InputError: `indices` are not whole numbers along one axis, or out of range.
            StoreError: the stored network or samples are damaged.
            BackendUnavailable: the engine cannot run here.
        """
        columns = as_indices(indices, self.shape[0])
        x, params, backend = self.samples(), list(self.parameters), self.manifest["backend"]
        device = self.manifest.get("device")
        if device is not None:
            try:
                backends.get(backend).check_device(device)
            except OptionError:
                device = None  # a store may be read where its device is not
        return ntk(
            self.model(), x, x[columns], outputs=self.reduction.outputs, params=params, backend=backend, device=device
        )

    def append(
        self,
        x_new: Any,
        *,
        backend: EngineWord | None = None,
        memory: int | str = DEFAULT_MEMORY,
        threads: int | None = None,
        device: str | None = None,
        progress: bool | None = None,
    ) -> None:
        """Grow from n samples to n + m; only the new rows are computed (and a last block that was not full).

        The workers of the store's `executor` compute them, if it was opened with one.

        Args:
            x_new: m more samples, of the same shape and dtype; several inputs as for `udlbridge.ntk`.
            backend, device: the engine and where torch computes; None is what the store was computed with.
            memory, threads, progress: as for `compute_kernel`.

        Raises:
            StoreError: the store is not complete, its network or samples are damaged, another process writes to it, or
                the disk is too small.
            InputError: what is wrong with `x_new`.
            OptionError, BackendUnavailable: as `compute_kernel`.
        """
        model = self.model()
        batch = checked_samples(model, x_new, "x_new")
        with self.writing():
            if not self.complete:
                raise StoreError(f"{self.path} is not complete", remedy=f"finish it first: {self._mending}")
            x = self.samples()
            if (batch.dtype, batch.shape[1:]) != (x.dtype, x.shape[1:]):
                raise ShapeError(
                    f"the samples of x_new are {batch.dtype} {batch.shape[1:]}, those of {self.path} "
                    f"{x.dtype} {x.shape[1:]}",
                    allowed="the same shape and dtype", remedy="prepare both in the same way",
                )  # fmt: skip
            check_room(self.path, self.growth_bytes(batch))
            request = request_as_begun(
                self, model, batch.shape[1:], backend=backend, memory=memory, threads=threads, device=device
            )
            plan = plan_as_begun(self, request, batch, len(x) + len(batch))
            self.grow(batch)
            fill(self, request, np.concatenate([x, batch]), plan, self.unfinished(), progress, self._executor)

    def repair(
        self,
        *,
        backend: EngineWord | None = None,
        memory: int | str = DEFAULT_MEMORY,
        threads: int | None = None,
        device: str | None = None,
        progress: bool | None = None,
    ) -> int:
        """Compute every tile again that is missing or damaged; returns how many there were. Options as for `append`.

        The workers of the store's `executor` compute them, if it was opened with one.

        Raises:
            StoreError: the stored network or samples are damaged, another process writes to the store, or the disk
                refuses.
            OptionError, BackendUnavailable: as `compute_kernel`.
        """
        with self.writing():
            model, x = self.model(), self.samples()
            x = checked_samples(model, x)
            request = request_as_begun(
                self, model, x.shape[1:], backend=backend, memory=memory, threads=threads, device=device
            )
            plan = plan_as_begun(self, request, x, len(x))
            todo = self.unfinished()
            if todo or not self.complete:
                fill(self, request, x, plan, todo, progress, self._executor)
            return len(todo)

    @property
    def _executor(self) -> Any:
        return None if self._crew is None else self._crew.given

    def upload(self, url: str) -> KernelStore:
        """Copy this store, which is finished, under a URL, as "s3://bucket/K.zarr" (extra `objects`), to be read there.

        Every tile is proved on its way, and the manifest is written last: what is interrupted before is no store, and
        is removed, by the next upload where this one was killed. One process at a time writes there, by a lease that
        it renews. Requests that fail are repeated, with growing pauses, for minutes. Who asks, and where, is read from
        the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like).

        Returns:
            The store there. Products, spectra, alignments and solutions read it as from a folder; so do the workers of
            an `executor` on other machines.

        Raises:
            StoreError: the store is not finished, or damaged; another process writes to it, or there; something is
                there already; or the storage does not answer, or refuses.
        """
        from udlbridge.store.uploading import upload

        return KernelStore(upload(self, url), model=self._network, memory=self._memory)

    def compare_with_float64(self, tiles: int, *, seed: int = 0, backend: EngineWord | None = None) -> float:
        """Compute random tiles again in float64.

        Args:
            tiles: how many tiles, at least 1.
            seed: which ones.
            backend: the engine; None is the one that the store was computed with.

        Returns:
            The largest difference, relative to the largest entry of the tiles that were compared.

        Raises:
            NumericalError: an entry is not finite.
            OptionError: `tiles` is less than 1.
        """
        tiles = checked_count("tiles", tiles, 1)
        model = self.model().astype("float64")
        x = checked_samples(model, in_float64(self.samples()))
        every = list(self.grid.tiles())
        picked = np.random.default_rng(seed).choice(len(every), size=min(tiles, len(every)), replace=False)
        engine = backends.get(backend or self.manifest["backend"])
        job = KernelJob(model, self.reduction, self.manifest["plan"]["method"], params=self.parameters)
        worst, scale = 0.0, 0.0
        with TileComputer(engine, job, x, None, self.grid, 2) as computer:
            for index in picked:
                tile = every[index]
                exact = np.empty((*tile.shape, *self.shape[2:]))
                computer.compute(tile, exact)
                stored = self.read_tile(tile)
                for name, block in (("the stored K", stored), ("K in float64", exact)):
                    check_finite(block, name, tile.corner)
                worst = max(worst, float(np.abs(stored - exact).max()))
                scale = max(scale, float(np.abs(exact).max()))
        return worst / scale if scale > 0 else worst
