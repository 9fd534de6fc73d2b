"""Stores at URLs: copied to a real S3 server and read from there, also where it fails, is slow, or hangs up."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from s3 import FaultyProxy, objects_of, storage
from small_stores import MODEL, X, files_of, processes, store_of, tile_path
from udlbridge import errors
from udlbridge.store import leases, requesting
from udlbridge.store.files import Url

obstore = pytest.importorskip("obstore")
pytest.importorskip("moto")

pytestmark = pytest.mark.usefixtures("small_tiles", "small_tasks", "soon")

N = 21
"""Six tiles of 8."""

VECTORS = np.random.default_rng(3).standard_normal((N, 2))


@pytest.fixture
def alone(tmp_path: Path) -> ub.KernelStore:
    return store_of(tmp_path / "K.zarr", n=N)


def assert_same_store(there: ub.KernelStore, alone: ub.KernelStore) -> None:
    np.testing.assert_array_equal(there[:], alone[:])
    np.testing.assert_array_equal(there @ VECTORS, alone @ VECTORS)
    np.testing.assert_array_equal(there.samples(), alone.samples())
    assert there.model() == MODEL
    assert there.verify().ok
    assert there.manifest == alone.manifest


def test_a_store_on_s3_is_that_of_the_folder(alone: ub.KernelStore, url: str) -> None:
    there = alone.upload(url)
    assert str(there.path) == url
    assert_same_store(there, alone)
    assert objects_of(url) == files_of(alone.path)
    labels = ub.label_kernel(np.eye(3)[np.arange(N) % 3])
    again = ub.KernelStore(url, model=MODEL, x=X[:N])
    assert ub.alignment(again, labels) == ub.alignment(alone, labels)
    options: dict[str, Any] = {"dense_limit": 0, "seed": 5, "progress": False}
    values = [ub.spectrum(store, 4, **options).eigenvalues for store in (again, alone)]
    np.testing.assert_array_equal(values[0], values[1])
    solved = [ub.predict.solve(one, VECTORS, diag_reg=0.1, progress=False).coefficients for one in (again, alone)]
    np.testing.assert_array_equal(solved[0], solved[1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again))[:], alone[:])
    assert url in repr(again)


@pytest.mark.slow
def test_workers_read_it(alone: ub.KernelStore, url: str) -> None:
    alone.upload(url)
    with processes() as pool:
        np.testing.assert_array_equal(ub.KernelStore(url, executor=pool) @ VECTORS, alone @ VECTORS)


@pytest.mark.parametrize("options", [{"outputs": "full"}, {"storage": "bfloat16"}], ids=["full", "bfloat16"])
def test_other_kernels(tmp_path: Path, url: str, options: dict[str, Any]) -> None:
    alone = store_of(tmp_path / "K.zarr", n=N, **options)
    np.testing.assert_array_equal(alone.upload(url)[:], alone[:])


def test_of_a_module(tmp_path: Path, url: str) -> None:
    from torch import nn

    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    alone = ub.compute_kernel(module, X[:N], tmp_path / "K.zarr", threads=1)
    there = alone.upload(url)
    np.testing.assert_array_equal(there[:], alone[:])
    assert there.model().hash() == alone.manifest["model"]
    with pytest.raises(errors.StoreError, match="does not hold"):
        ub.KernelStore(url).model()


# --- servers that fail ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_server_that_fails(alone: ub.KernelStore, address: str, connect: Callable[[str], str], seed: int) -> None:
    """A third of all requests fails, waits, or is cut off, before and after it was done: nothing is lost."""
    proxy = FaultyProxy(address, share=0.33, seed=seed)
    with proxy.serving() as faulty:
        url = connect(faulty)
        there = alone.upload(url)
        for _ in range(2):
            assert_same_store(ub.KernelStore(url), alone)
        kinds = {kind: count for kind, count in proxy.faults.items() if kind}
    connect(address)
    assert objects_of(url) == files_of(alone.path)
    assert str(there.path) == url
    assert len(kinds) == 6
    assert sum(kinds.values()) >= 20


def test_a_server_that_is_gone(
    alone: ub.KernelStore, address: str, connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said so, and after the attempts that there are."""
    monkeypatch.setattr(requesting, "RETRIES", {**requesting.RETRIES, "max_retries": 2})
    proxy = FaultyProxy(address)
    with proxy.serving() as faulty:
        url = connect(faulty)
        there = alone.upload(url)
        proxy.share = 1.0
        proxy.fault = lambda: "500"  # type: ignore[method-assign]
        with pytest.raises(errors.StoreError, match=r"tile \(\d, \d\) of s3://.* cannot be read .*500"):
            there @ VECTORS
        with pytest.raises(errors.StoreError, match=f"{url} cannot be read .*500"):
            ub.KernelStore(url)
        with pytest.raises(errors.StoreError, match=r"cannot be written|does not answer"):
            alone.upload(f"{url}2")
    with pytest.raises(errors.StoreError, match=f"{url} cannot be read .*storage that answers"):
        ub.KernelStore(url)


def test_a_server_that_was_never_there(
    connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A first contact waits for seconds, not for the minutes of a computation, and says for what."""
    monkeypatch.setattr(requesting, "FIRST_CONTACT", timedelta(seconds=0.5))
    monkeypatch.setattr(requesting, "NOTICE", timedelta(0))
    url = connect("http://127.0.0.1:9")
    begun = time.monotonic()
    for act in (lambda: ub.KernelStore(url), lambda: store_of(url, n=3)):
        with pytest.raises(errors.StoreError, match=f"{url} does not answer at http://127.0.0.1:9, where AWS_ENDP"):
            act()
    assert time.monotonic() - begun < 10
    assert f"waiting for {url}, for up to 0 s" in caplog.text


# --- what counts, and when ---


def test_the_manifest_comes_last(alone: ub.KernelStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted at any object, it is no store, and nothing is left of it."""
    put, count = obstore.put, len(files_of(alone.path))
    for at in range(count):
        left = at

        def interrupted(store: Any, name: str, *args: Any, **options: Any) -> Any:
            nonlocal left
            if not name.startswith("writer.lock"):
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
            return put(store, name, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(obstore, "put", interrupted)
            with pytest.raises(KeyboardInterrupt):
                alone.upload(url)
        assert objects_of(url) == {}
        with pytest.raises(errors.StoreError, match="is not a kernel store"):
            ub.KernelStore(url)
    assert_same_store(alone.upload(url), alone)
    assert objects_of(url) == files_of(alone.path)


def test_what_is_there_stays(alone: ub.KernelStore, url: str) -> None:
    alone.upload(url)
    with pytest.raises(errors.StoreError, match="something at s3://"):
        alone.upload(url)
    assert_same_store(ub.KernelStore(url), alone)
    other = f"{url}-other"
    obstore.put(storage(other), "diary.txt", b"mine")
    with pytest.raises(errors.StoreError, match=r"something at .*diary\.txt"):
        alone.upload(other)
    assert objects_of(other) == {"diary.txt": b"mine"}


def test_only_whole_stores_are_copied(alone: ub.KernelStore, url: str) -> None:
    tile = tile_path(alone, next(iter(alone.grid.tiles())))
    content = tile.read_bytes()
    tile.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(errors.StoreError, match=r"tile \(0, 0\) .*is damaged"):
        alone.upload(url)
    assert "zarr.json" not in objects_of(url)
    tile.unlink()
    with alone.writing():
        alone.update(complete=False)
    with pytest.raises(errors.StoreError, match="is not complete"):
        alone.upload(url)


@pytest.mark.parametrize(
    "harm", ["flipped", "shorter", "swapped", "gone", "samples", "network", "manifest", "metadata"]
)
def test_damage_is_found(alone: ub.KernelStore, url: str, harm: str) -> None:
    alone.upload(url)
    store = storage(url)
    names = ["kernel/c/1/0", "kernel/c/2/1"]
    contents = [bytes(obstore.get(store, name).bytes()) for name in names]
    if harm == "flipped":
        obstore.put(store, names[0], contents[0][:9] + bytes([contents[0][9] ^ 1]) + contents[0][10:])
    elif harm == "shorter":
        obstore.put(store, names[0], contents[0][:-1])
    elif harm == "swapped":
        obstore.put(store, names[0], contents[1])
    elif harm == "gone":
        obstore.delete(store, names[0])
    else:
        name = {"samples": "x/c/0/0", "network": "model.safetensors", "manifest": "zarr.json"}.get(harm, "x/zarr.json")
        content = bytes(obstore.get(store, name).bytes())
        obstore.put(store, name, content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    if harm in ("manifest", "metadata"):
        with pytest.raises(errors.StoreError):
            ub.KernelStore(url)
        return
    there = ub.KernelStore(url)
    found = there.verify()
    if harm in ("samples", "network"):
        assert len(found.inputs) == 1
        return
    assert (found.missing if harm == "gone" else found.damaged) == ((1, 0),)
    with pytest.raises(errors.StoreError, match=r"tile \(1, 0\)"):
        there @ VECTORS


# --- one writer ---


def test_one_writer(alone: ub.KernelStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with leases.leased(Url(url), storage(url)) as lease:
        with pytest.raises(errors.StoreError, match=r"another process is writing to s3://.*host"):
            alone.upload(url)
        lease.check()
    assert objects_of(url) == {}
    alone.upload(url)
    assert "writer.lock" not in objects_of(url)


def held_by(url: str, writers: int) -> list[leases.Lease]:
    """The leases of those that got one, of so many writers who ask for it at the same moment."""
    store, together = storage(url), threading.Barrier(writers)

    def write(_: int) -> leases.Lease | None:
        lease = leases.Lease(Url(url), store)
        together.wait()
        try:
            lease.take()
        except errors.StoreError:
            return None
        return lease

    with ThreadPoolExecutor(writers) as pool:
        return [lease for lease in pool.map(write, range(writers)) if lease is not None]


def test_of_many_writers_one(url: str) -> None:
    assert len(held_by(url, 6)) == 1


def test_a_writer_that_was_killed(alone: ub.KernelStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease counts until it is too old; then another has it, and it finds that out should it be alive after all."""
    killed = leases.Lease(Url(url), storage(url))
    killed.take()
    with pytest.raises(errors.StoreError, match="another process is writing"):
        alone.upload(url)
    monkeypatch.setattr(leases, "LEASE", -1.0)
    heir = leases.Lease(Url(url), storage(url))
    heir.take()
    monkeypatch.setattr(leases, "LEASE", 60.0)
    monkeypatch.setattr(leases, "RENEW", 0.0)
    killed.keep()  # ends, since it is another's
    with pytest.raises(errors.StoreError, match=r"the right to write to s3://.* was lost"):
        killed.check()
    killed.end()
    heir.check()
    assert list(objects_of(url)) == ["writer.lock"]
    heir.end()
    assert objects_of(url) == {}


def test_a_lease_is_renewed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW", 0.01)
    with leases.leased(Url(url), storage(url)) as lease:
        mark, begun = lease._mark, lease._renewed
        for _ in range(500):
            if lease._renewed > begun:
                break
            threading.Event().wait(0.01)
        assert lease._renewed > begun
        assert lease._mark is not mark
        lease.check()
        monkeypatch.setattr(leases, "LEASE", -1.0)
        with pytest.raises(errors.StoreError, match="was lost"):
            lease.check()


def test_a_server_without_conditions(
    alone: ub.KernelStore, address: str, connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out, and of two writers at the same moment one stays."""
    monkeypatch.setattr(leases, "SETTLE", 0.3)
    monkeypatch.setattr(leases, "RENEW", 0.01)
    with FaultyProxy(address, unconditional=True).serving() as blind:
        url = connect(blind)
        held = held_by(url, 3)
        assert len(held) == 1
        assert not held[0]._conditional
        with pytest.raises(errors.StoreError, match="another process is writing"):
            alone.upload(url)
        held[0].end()
        assert_same_store(alone.upload(url), alone)


# --- other URLs ---


def test_in_memory(alone: ub.KernelStore) -> None:
    there = alone.upload("memory://somewhere/K.zarr")
    assert_same_store(there, alone)
    assert_same_store(ub.KernelStore("memory://somewhere/K.zarr"), alone)


def test_a_file_url_is_the_folder(alone: ub.KernelStore) -> None:
    there = ub.KernelStore(alone.path.absolute().as_uri())
    assert there.path == alone.path
    assert there.repair(progress=False) == 0
    with pytest.raises(errors.StoreError, match="is a folder"):
        alone.upload(alone.path.absolute().as_uri())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/K.zarr", r"begins with ftp://\. Allowed: s3://"),
        ("s3://", "not the URL of a store"),
        ("s3://bucket/K.zarr?versionId=3", "not the URL of a store"),
        ("file://host/K.zarr", "files of host"),
    ],
)
def test_urls_that_are_none(url: str, words: str) -> None:
    with pytest.raises(errors.StoreError, match=words):
        ub.KernelStore(url)


def test_nothing_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.StoreError, match=f"{url} is not a kernel store"):
        ub.KernelStore(url)
    with pytest.raises(errors.StoreError, match="is not a kernel store"):
        ub.KernelStore("s3://no-such-bucket/K.zarr")


def test_without_obstore(alone: ub.KernelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(errors.StoreError, match=r"obstore is not installed.*udlbridge\[objects\]"):
        ub.KernelStore("s3://bucket/K.zarr")
    assert_same_store(ub.KernelStore(alone.path), alone)


@pytest.mark.parametrize("text", ["s3:/bucket/k.zarr", "gs:bucket/k.zarr", "file:/k.zarr"])
def test_a_url_that_lacks_a_slash_is_no_folder(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.StoreError, match="neither a path nor a URL"):
        ub.compute_kernel(MODEL, X, text, backend="reference")
    assert not list(tmp_path.iterdir())
