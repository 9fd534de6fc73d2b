"""What a worker does of a kernel: it opens the store once, computes tiles with its own engine, and writes drafts.

A worker is a thread or a process, on this machine or on one that has the same disk. It holds neither lock nor manifest:
what it writes counts when the coordinator (`sharing`) has given it its place. So one that is lost, or comes back after
its task was given to another, spoils nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.errors import BackendError, ConversionError, StoreError
from udlbridge.kernels.tiling import Tile, TileComputer
from udlbridge.networks.inputs import checked_samples
from udlbridge.store.begun import request_as_begun
from udlbridge.store.files import Url, files_of
from udlbridge.store.peak_memory import PeakMemory
from udlbridge.store.reading import check_identity
from udlbridge.store.tile_writer import TileWriter
from udlbridge.store.writing import Draft, WritableStore

IDLE = 60.0
"""Seconds after its last task for which a worker keeps the network, the samples and the factors of blocks."""


@dataclass(frozen=True)
class Work:
    """What every task of one computation shares: where the store is, and how its tiles are computed.

    `token`: a name that no other computation has. `store`: the random name of the store at `path`. `network`: the file
    of a pickled network in its folder and the file's SHA-256, for one that the store does not hold. `versions`: of the
    coordinator's engine. The others mean what they mean for `compute_kernel`; `memory` is the bound of each worker.
    """

    token: str
    path: Path | Url
    store: str
    network: tuple[str, str] | None
    versions: dict[str, str]
    backend: str
    memory: int
    threads: int | None
    device: str
    cached_blocks: int


@dataclass(frozen=True)
class Finished:
    """What a task gives: drafts of its tiles, and the most memory that its process took so far."""

    drafts: tuple[Draft, ...]
    peak: int


def compute_tiles(work: Work, tiles: tuple[Tile, ...]) -> Finished:
    """One task: compute these tiles and write drafts of them into the store."""
    with _open_desk(work) as desk:
        return Finished(desk.drafts(tiles), desk.memory.over_baseline)


class _Drafts:
    """The drafts of a task's tiles, for a `TileWriter`."""

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self.written: list[Draft] = []

    def write_tile(self, tile: Tile, block: np.ndarray) -> float:
        self.written.append(self._store.draft_tile(tile, block))
        return self.written[-1].error

    def tile_bytes(self, tile: Tile) -> int:
        return self.written[-1].size


class _Desk:
    """What a process holds of one computation, for all of its tasks: network, samples, and the factors of blocks."""

    def __init__(self, work: Work, model: Any, x: np.ndarray | None) -> None:
        self.memory = PeakMemory()
        self.memory.__enter__()
        try:
            self._engine = backends.get(work.backend)
            _check_versions(work, self._engine.versions())
            self._store = WritableStore(work.path, model=_unpickled(work) if model is None else model)
            check_identity(self._store, work.store)
            self._model = self._store.model() if model is None else model
            self._x = checked_samples(self._model, self._store.samples() if x is None else x)
            self._request = request_as_begun(
                self._store, self._model, self._x.shape[1:],
                backend=work.backend, memory=work.memory, threads=work.threads, device=work.device,
            )  # fmt: skip
        except BaseException:
            self.memory.__exit__(None)
            raise
        self._cached_blocks = work.cached_blocks
        self._lock = threading.Lock()
        self._idle: list[TileComputer] = []
        self._closed = False
        self.users = 0

    def drafts(self, tiles: tuple[Tile, ...]) -> tuple[Draft, ...]:
        """Compute the tiles and write their drafts, one thread for each."""
        found = _Drafts(self._store)
        with self._computer() as computer, TileWriter(found) as writer:
            for tile in tiles:
                buffer = np.empty((*tile.shape, *self._request.reduction.trailing), dtype=self._model.dtype)
                computer.compute(tile, buffer)
                writer.put(tile, buffer)
        return tuple(found.written)

    @contextlib.contextmanager
    def _computer(self) -> Iterator[TileComputer]:
        """One that no other thread uses, with what it holds of the tiles before."""
        with self._lock:
            computer = self._idle.pop() if self._idle else None
        if computer is None:
            grid = self._store.grid
            computer = TileComputer(self._engine, self._request, self._x, None, grid, self._cached_blocks)
        try:
            yield computer
        finally:
            with self._lock:
                if not self._closed:
                    self._idle.append(computer)
                else:
                    computer.__exit__()

    def close(self) -> None:
        """Give back the factors."""
        with self._lock:
            self._closed = True
            for computer in self._idle:
                computer.__exit__()
            self._idle.clear()
        self.memory.__exit__(None)


_desks: dict[str, _Desk] = {}
_timers: dict[str, threading.Timer] = {}
_lent: dict[str, tuple[Any, np.ndarray]] = {}
_turn = threading.Lock()


@contextlib.contextmanager
def lent(work: Work, model: Any, x: np.ndarray) -> Iterator[None]:
    """Within it, workers that are threads of this process take network and samples as they are here."""
    _lent[work.token] = model, x
    try:
        yield
    finally:
        with _turn:
            del _lent[work.token]
            _forget(work.token)


@contextlib.contextmanager
def _open_desk(work: Work) -> Iterator[_Desk]:
    """The desk of a computation, opened by its first task here; those of others that nobody uses are given up."""
    with _turn:
        for token in [token for token, desk in _desks.items() if desk.users == 0 and token not in (work.token, *_lent)]:
            _forget(token)
        if work.token not in _desks:
            _desks[work.token] = _Desk(work, *_lent.get(work.token, (None, None)))
        desk = _desks[work.token]
        desk.users += 1
        if work.token in _timers:
            _timers.pop(work.token).cancel()
    try:
        yield desk
    finally:
        with _turn:
            desk.users -= 1
            if desk.users == 0 and _desks.get(work.token) is desk and work.token not in _lent:
                timer = _timers[work.token] = threading.Timer(IDLE, _forget_idle, [work.token])
                timer.daemon = True
                timer.start()


def _forget_idle(token: str) -> None:
    with _turn:
        if token in _desks and _desks[token].users == 0:
            _forget(token)


def _forget(token: str) -> None:
    if token in _timers:
        _timers.pop(token).cancel()
    desk = _desks.pop(token, None)
    if desk is not None:
        desk.close()


def _unpickled(work: Work) -> Any:
    """The network that the coordinator handed over, once for each process; None where the store holds it."""
    if work.network is None:
        return None
    name, expected = work.network
    try:
        files = files_of(work.path)
        content = files.whole(name, files.size(name))
    except OSError as error:
        raise StoreError(
            f"the network that was handed over to workers is not in {work.path} ({error})",
            allowed="a store on a disk that the coordinator and all workers share",
            remedy="see whether the coordinator is still there",
        ) from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise StoreError(f"{work.path / name} is another network than was handed over", remedy="begin again")
    try:
        return pickle.loads(content)
    except Exception as error:  # somebody's own classes may raise anything
        raise ConversionError(
            f"the network cannot be unpickled by a worker ({type(error).__name__}: {error})",
            allowed="a module whose class workers can import",
            remedy="define it in a file on the PYTHONPATH of the workers, and neither in a notebook nor in the script "
            "that is run; or compute with a ThreadPoolExecutor, or without an executor",
        ) from None


def _check_versions(work: Work, own: dict[str, str]) -> None:
    """Tiles of one kernel are computed by engines of one version."""
    if own != work.versions:
        raise BackendError(
            f"a worker with {own}, and a coordinator with {work.versions}",
            allowed="the same versions everywhere",
            remedy="install the same ones on all machines",
        )
