"""Kernels computed straight to URLs: resumed, grown, repaired and written over there, as in folders."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from s3 import FaultyProxy, objects_of, storage
from small_stores import MODEL, Losing, X, files_of, processes, store_of, tile_files
from udlbridge import errors
from udlbridge.store import leases, objects
from udlbridge.store.files import Url
from udlbridge.store.names import LOCK, METADATA, RECORDS
from udlbridge.store.processes import this_process

obstore = pytest.importorskip("obstore")
pytest.importorskip("moto")

pytestmark = pytest.mark.usefixtures("small_tiles", "small_tasks", "soon")

N = 21
"""Six tiles of 8."""


@pytest.fixture
def alone(tmp_path: Path) -> ub.KernelStore:
    return store_of(tmp_path / "K.zarr", n=N)


def recorded(content: bytes) -> list[tuple[int, ...]]:
    """What a file of records says of tiles, without the checksums that the store's random name is part of."""
    return [fields[:5] for fields in struct.iter_unpack("<QQIIII", content)]


def assert_same_objects(url: str, alone: ub.KernelStore, *, in_order: bool = True) -> None:
    """Every object is the file of the store that was computed into a folder, but for its random name and its times."""
    there, here = objects_of(url), files_of(alone.path)
    assert there.keys() == here.keys()
    assert {name for name in here if there[name] != here[name]} <= {METADATA, RECORDS}
    tiles = [recorded(content[RECORDS]) for content in (there, here)]
    assert tiles[0] == tiles[1] if in_order else sorted(tiles[0]) == sorted(tiles[1])
    manifests = [dict(ub.KernelStore(path).manifest) for path in (url, alone.path)]
    for manifest in manifests:
        for name in ("id", "actual", "plan"):
            del manifest[name]
    assert manifests[0] == manifests[1]


def another(url: str) -> str:
    return url.replace(".zarr", "-another.zarr")


# --- the same as in a folder ---


@pytest.mark.parametrize(
    "options", [{}, {"outputs": "full"}, {"storage": "bfloat16"}, {"backend": "torch"}], ids=["", "full", "b", "torch"]
)
def test_the_objects_are_the_files(tmp_path: Path, url: str, options: dict[str, Any]) -> None:
    alone = store_of(tmp_path / "K.zarr", n=N, **options)
    there = store_of(url, n=N, **options)
    assert_same_objects(url, alone)
    np.testing.assert_array_equal(there[:], alone[:])
    assert there.verify().ok
    assert there.complete
    assert there.stored_bytes() == alone.stored_bytes()
    for one in (there, alone):
        one.append(X[N:40])
    assert_same_objects(url, alone)


def test_in_memory_and_as_a_file_url(tmp_path: Path, alone: ub.KernelStore) -> None:
    there = store_of("memory://computed/K.zarr", n=N)
    np.testing.assert_array_equal(there[:], alone[:])
    there.append(X[N:30])
    np.testing.assert_array_equal(ub.KernelStore("memory://computed/K.zarr")[:N, :N], alone[:])
    with pytest.raises(errors.StoreError, match=r"memory:// holds what this process has put there"):
        ub.KernelStore("memory://nothing/K.zarr")
    file = store_of((tmp_path / "L.zarr").as_uri(), n=N)
    assert file.path == tmp_path / "L.zarr"
    assert tile_files(file.path) == tile_files(alone.path)


def test_of_a_module(tmp_path: Path, url: str) -> None:
    from torch import nn

    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    alone = ub.compute_kernel(module, X[:N], tmp_path / "K.zarr", threads=1)
    ub.compute_kernel(module, X[:N], url, threads=1)
    assert_same_objects(url, alone)


def test_at_infinite_width(tmp_path: Path, url: str) -> None:
    asked: dict[str, Any] = {"w_std": 1.4, "b_std": 0.1, "progress": False, "threads": 1}
    layers = [ub.Dense(5, 7, "relu"), ub.Dense(7, 3)]
    alone = ub.infinite.compute_kernel(layers, X[:N], tmp_path / "K.zarr", **asked)
    there = ub.infinite.compute_kernel(layers, X[:N], url, **asked)
    assert {name: content for name, content in objects_of(url).items() if name.startswith("kernel")} == tile_files(
        alone.path
    )
    obstore.delete(storage(url), "kernel/c/1/0")
    with pytest.raises(errors.StoreError, match=r"exists.*resume=True"):
        ub.infinite.compute_kernel(layers, X[:N], url, **asked)
    assert ub.infinite.compute_kernel(layers, X[:N], url, resume=True, **asked).verify().ok
    assert there.repair(progress=False) == 0


# --- by workers ---


def test_threads_write_there(tmp_path: Path, alone: ub.KernelStore, url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        store_of(url, n=N, executor=pool)
        assert_same_objects(url, alone, in_order=False)
        ub.KernelStore(url, executor=pool).append(X[N:40])
        alone.append(X[N:40])
        assert_same_objects(url, alone, in_order=False)
        obstore.delete(storage(url), "kernel/c/2/1")
        assert ub.KernelStore(url, executor=pool).repair(progress=False) == 1
    assert_same_objects(url, alone, in_order=False)


def test_tasks_that_are_lost(alone: ub.KernelStore, url: str) -> None:
    there = store_of(url, n=N, executor=Losing({1, 3}))
    assert there.manifest["actual"][0]["lost"] == 2
    assert_same_objects(url, alone, in_order=False)


@pytest.mark.slow
def test_processes_write_there(tmp_path: Path, url: str) -> None:
    from torch import nn

    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with processes() as pool:
        store_of(url, n=N, executor=pool)
        assert_same_objects(url, store_of(tmp_path / "K.zarr", n=N), in_order=False)
        handed = another(url)  # the network goes to workers as an object
        ub.compute_kernel(module, X[:N], handed, threads=1, executor=pool)
        assert_same_objects(handed, ub.compute_kernel(module, X[:N], tmp_path / "L.zarr", threads=1), in_order=False)
        with pytest.raises(errors.StoreError, match="memory:// holds what this process has put there"):
            store_of("memory://of-one-process/K.zarr", n=N, executor=pool)


@pytest.mark.slow
def test_dask_writes_there(alone: ub.KernelStore, url: str) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        store_of(url, n=N, executor=client)
    assert_same_objects(url, alone, in_order=False)


def test_a_draft_that_comes_late_counts_no_more(alone: ub.KernelStore, url: str) -> None:
    """A worker that was thought dead writes after its task was given to another: no reader sees it."""
    there = store_of(url, n=N)
    tile = next(iter(there.grid.tiles()))
    draft = there.draft_tile(tile, np.zeros(tile.shape))
    assert draft.name in objects_of(url)
    assert ub.KernelStore(url).verify().ok
    assert there.repair(progress=False) == 0
    assert_same_objects(url, alone)
    there.place_tiles([there.draft_tile(tile, there.read_tile(tile))])
    assert_same_objects(url, alone)
    obstore.delete(storage(url), METADATA)
    with pytest.raises(errors.StoreError, match="the store is gone"):
        there.draft_tile(tile, np.zeros(tile.shape))


# --- interruptions ---


class Interruption(Exception):  # noqa: N818 - as KeyboardInterrupt
    """As Ctrl-C, which comes in the main thread alone: Zarr writes samples in one of its own."""


def interrupted(patch: pytest.MonkeyPatch, at: int) -> None:
    """Let the put of the object number `at`, leases aside, and all later ones, be interrupted."""
    put, left = objects.put, at

    def putting(store: Any, name: str, *args: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Interruption
        left -= 1
        return put(store, name, *args)

    patch.setattr(objects, "put", putting)


def test_interrupted_anywhere_and_resumed(alone: ub.KernelStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of objects: nothing is there, or a store whose tiles are whole, and that is gone on with."""
    skeleton, whole = 5, 5 + 2 * 6 + 1  # metadata, samples, network and manifest; records and tiles; the manifest
    for at in range(whole):
        there = url.replace(".zarr", f"-{at}.zarr")
        with monkeypatch.context() as patch:
            interrupted(patch, at)
            with pytest.raises(Interruption):
                store_of(there, n=N)
        if at < skeleton:
            assert objects_of(there) == {}
        else:
            found = ub.KernelStore(there).verify()
            assert (found.good, found.damaged, found.inputs) == ((at - skeleton) // 2, (), ())
            with pytest.raises(errors.StoreError, match=r"exists.*--resume"):
                store_of(there, n=N)
        store_of(there, n=N, resume=True)
        assert_same_objects(there, alone)


def test_growth_that_is_interrupted(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the manifest says otherwise the store is what it was; then it is repaired."""
    alone = store_of(tmp_path / "K.zarr", n=N)
    before = alone[:]
    alone.append(X[N:30])
    for at in range(7):
        there = url.replace(".zarr", f"-{at}.zarr")
        store = store_of(there, n=N)
        with monkeypatch.context() as patch:
            interrupted(patch, at)
            with pytest.raises(Interruption):
                store.append(X[N:30])
        found = ub.KernelStore(there)
        assert found.verify().damaged == ()
        if found.shape[0] == N:
            np.testing.assert_array_equal(found[:], before)
            found.append(X[N:30])
        else:
            found.repair(progress=False)
        assert_same_objects(there, alone)


def killed(code: str) -> None:
    """Run code in a process that kills itself."""
    start = "import os, signal\nimport udlbridge as ub\nfrom small_stores import MODEL, X, store_of\n"
    start += "from udlbridge.kernels import planning\nplanning.LARGEST_TILE = 8\n"
    start += "die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode < 0


@pytest.mark.slow
def test_killed_and_gone_on_with_at_once(alone: ub.KernelStore, url: str) -> None:
    """The lease of a process of this machine that is gone does not count; what it began is cleared, or gone on with."""
    for place in ("creating.write_samples", "objects.copy", "writing.WritableStore.flush_tiles"):
        there = url.replace(".zarr", f"-{place}.zarr")
        killed(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from udlbridge.store import creating, objects, writing\n"
            f"{place} = die\nstore_of({there!r}, n={N}, executor=ThreadPoolExecutor(1))\n"
        )
        assert LOCK in objects_of(there)
        store_of(there, n=N, resume=True)
        assert_same_objects(there, alone, in_order=False)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_fails(
    tmp_path: Path, alone: ub.KernelStore, address: str, connect: Callable[[str], str], seed: int
) -> None:
    """A third of all requests fails, waits, or is cut off, before and after it was done: nothing is lost or doubled."""
    proxy = FaultyProxy(address, share=0.33, seed=seed)
    with proxy.serving() as faulty:
        url = connect(faulty)
        store_of(url, n=N).append(X[N:30])
        with ThreadPoolExecutor(2) as pool:
            store_of(another(url), n=30, executor=pool)
        assert sum(count for kind, count in proxy.faults.items() if kind) >= 20
    connect(address)
    alone.append(X[N:30])
    assert_same_objects(url, alone)
    assert_same_objects(another(url), store_of(tmp_path / "L.zarr", n=30), in_order=False)


def test_a_server_that_is_gone(address: str, connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    from udlbridge.store import requesting

    monkeypatch.setattr(requesting, "RETRIES", {**requesting.RETRIES, "max_retries": 1})
    proxy = FaultyProxy(address)
    with proxy.serving() as there:
        url = connect(there)
        store = store_of(url, n=N)
        proxy.fault = lambda: "500"  # type: ignore[method-assign]
        for act, words in (
            (lambda: store_of(url, n=N), "cannot be looked at"),
            (store.repair, "cannot be written"),
            (lambda: store_of(url, n=N, resume=True), "cannot be looked at"),
        ):
            with pytest.raises(errors.StoreError, match=rf"s3://.* {words} .*500.*see what it says"):
                act()


# --- whose it is ---


def test_what_is_overwritten(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store, once another can be begun, and nothing else."""
    store_of(url, n=N)
    before = objects_of(url)
    with pytest.raises(errors.OptionError):
        store_of(url, n=N, overwrite=True, storage="int8")
    with leases.leased(Url(url), storage(url)), pytest.raises(errors.StoreError, match="another process is writing"):
        store_of(url, n=N, overwrite=True)
    obstore.put(storage(url), "notes/diary.txt", b"mine")
    with pytest.raises(errors.StoreError, match="holds what is not the store's: notes"):
        store_of(url, n=N, overwrite=True)
    obstore.delete(storage(url), "notes/diary.txt")
    assert objects_of(url) == before
    obstore.put(storage(url), f".network.{'0' * 32}.partial", b"what a killed process handed to its workers")
    again = store_of(url, n=9, overwrite=True)
    assert again.shape == (9, 9)
    assert again.verify().ok
    assert {"kernel/c/0/0", "kernel/c/1/1"} < set(objects_of(url))
    assert not [name for name in objects_of(url) if name == "kernel/c/2/2" or name.endswith(".partial")]


@pytest.mark.parametrize("name", ["diary.txt", "x/c/0/0"])
def test_what_somebody_put_there_stays(url: str, name: str) -> None:
    """Also under names that a store has, since no lease says that it is one's."""
    obstore.put(storage(url), name, b"mine")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(errors.StoreError, match=rf"something at s3://.* already: {name}"):
            store_of(url, n=N, **options)
    assert objects_of(url) == {name: b"mine"}


def test_what_comes_while_a_store_is_made_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put there by other tools, which know nothing of leases."""
    put = objects.put
    theirs = {METADATA: b"theirs", "diary.txt": b"mine"}

    def putting(store: Any, name: str, *args: Any) -> Any:
        if name == "model.safetensors":
            for one, content in theirs.items():
                obstore.put(storage(url), one, content)
        return put(store, name, *args)

    monkeypatch.setattr(objects, "put", putting)
    with pytest.raises(errors.StoreError, match=r"could not be made"):
        store_of(url, n=N)
    assert objects_of(url) == theirs


def test_one_writer(url: str) -> None:
    store = store_of(url, n=N)
    with leases.leased(Url(url), storage(url)):
        for act in (lambda: store.append(X[N:30]), store.repair, lambda: store_of(url, n=N, resume=True)):
            with pytest.raises(errors.StoreError, match="another process is writing"):
                act()
    assert store.verify().ok


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_writer_that_was_overtaken(url: str, monkeypatch: pytest.MonkeyPatch, noticed: bool) -> None:
    """It was asleep for too long: it stops, and what it says last does not count."""
    store = store_of(url, n=N)
    monkeypatch.setattr(leases, "RENEW", 1000.0)

    def write() -> None:
        with store.writing():
            if noticed:
                monkeypatch.setattr(leases, "LEASE", -1.0)
            else:  # between the last look and the last word
                monkeypatch.setattr(leases.Lease, "check", lambda self: None)
                obstore.delete(storage(url), LOCK)
                store_of(url, n=N, resume=True).update(note="the heir's")
            store.update(note="mine")

    with pytest.raises(errors.StoreError, match=r"was lost|could not be written"):
        write()
    assert ub.KernelStore(url).manifest.get("note") == (None if noticed else "the heir's")
    assert ub.KernelStore(url).verify().ok


def test_whose_lease_is_void(url: str) -> None:
    """That of a process of this machine that is gone; of another machine's, or one that lives, nobody can tell."""
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    own = this_process()
    if own["machine"] is None:
        pytest.skip("this system does not say which machine it is")
    for words, void in (
        (own, False),
        ({**own, "process": gone.pid}, True),
        ({**own, "began": "1"}, True),
        ({**own, "process": gone.pid, "machine": "another"}, False),
        ({"process": gone.pid}, False),
    ):
        obstore.put(storage(url), LOCK, json.dumps({"writer": "somebody", **words}).encode())
        if void:
            store_of(url, n=N, overwrite=True)
            assert LOCK not in objects_of(url)
        else:
            with pytest.raises(errors.StoreError, match="another process is writing"):
                store_of(url, n=N, resume=True)


# --- damage, and mending it ---


def test_damage_is_repaired(alone: ub.KernelStore, url: str) -> None:
    there = store_of(url, n=N)
    content = objects_of(url)
    obstore.put(storage(url), "kernel/c/1/0", content["kernel/c/1/1"])
    obstore.put(storage(url), "kernel/c/2/1", content["kernel/c/2/1"][:-1])
    obstore.delete(storage(url), "kernel/c/2/0")
    found = there.verify()
    assert set(found.damaged) == {(1, 0), (2, 1)}
    assert found.missing == ((2, 0),)
    assert there.repair(progress=False) == 3
    assert_same_objects(url, alone)
    obstore.delete(storage(url), "x/c/0/0")
    with pytest.raises(errors.StoreError, match="--resume"):
        there.repair(progress=False)
    store_of(url, n=N, resume=True)
    assert_same_objects(url, alone)


def test_options_that_are_others(url: str) -> None:
    store_of(url, n=N)
    for change, words in (
        ({"n": 9}, "other samples"),
        ({"outputs": 0}, "was begun with outputs"),
        ({"storage": "float16"}, "was begun with storage"),
    ):
        with pytest.raises(errors.StoreError, match=words):
            store_of(url, resume=True, **{"n": N, **change})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://kernels/K.npy", r"ends in '\.npy'.*name it K\.zarr"),
        ("s3://no-such-bucket/K.zarr", r"cannot be written .*404 Not Found: The specified bucket does not exist"),
        ("ftp://host/K.zarr", r"begins with ftp://"),
        ("s3://", "not the URL of a store"),
    ],
)
def test_urls_that_cannot_be_written(url: str, path: str, words: str) -> None:
    with pytest.raises(errors.StoreError, match=words):
        store_of(path, n=N)


# --- the command line ---


@pytest.mark.slow
def test_at_the_command_line(tmp_path: Path, url: str) -> None:
    kernel = ("kernel", "--model", tmp_path / "m.safetensors", "--samples", tmp_path / "x.npy", "--outputs", 0)
    MODEL.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", X[:N])
    np.save(tmp_path / "more.npy", X[N:30])
    for args, words in (
        ((*kernel, "--out", url), f"wrote {url}: (21, 21) float64, 6 tiles"),
        ((*kernel, "--out", url, "--resume"), "0 tiles"),
        ((*kernel, "--out", url, "--force"), "6 tiles"),
        (("store", "append", url, tmp_path / "more.npy"), "is now (30, 30)"),
        (("store", "verify", url, "--repair"), "computed 0 tiles again"),
    ):
        done = udlbridge(*args)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    done = udlbridge(*kernel, "--out", url)
    assert done.returncode == 2
    assert "--resume" in done.stderr
