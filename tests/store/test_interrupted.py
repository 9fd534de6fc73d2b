"""Whatever happens while a store is made, written or grown: it is whole, or not there, or can be gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from small_stores import MODEL, X, store_of
from udlbridge import errors
from udlbridge.store import folders as new_folders
from udlbridge.store import writing
from udlbridge.store.folders import new_folder
from udlbridge.store.names import METADATA
from udlbridge.store.tile_files import DirectWriter

pytestmark = pytest.mark.usefixtures("small_tiles")


# --- making a store ---


@pytest.mark.parametrize("step", ["zarr.create_group", "creating.write_samples", "Model.write", "Path.rename"])
def test_killed_while_a_store_is_made(tmp_path: Path, step: str) -> None:
    """A real process that kills itself: the next one finds nothing that is in its way."""
    target = tmp_path / "K.zarr"
    code = (
        "import os, signal, zarr, numpy as np, udlbridge as ub\n"
        "from pathlib import Path\nfrom udlbridge.store import creating\nfrom udlbridge.networks.model import Model\n"
        f"{step} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"x = np.ones((9, 5), 'float32')\n"
        f"ub.compute_kernel(ub.Model([ub.Dense(5, 3)]), x, {str(target)!r}, backend='reference')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    for resume in (False, True):
        assert store_of(target, resume=resume).verify().ok
    assert os.listdir(tmp_path) == ["K.zarr"]


def test_ctrl_c_while_a_store_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ub.Model, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            store_of(tmp_path / "K.zarr")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("width", "n"), [(5, 20_000), (400, 3)], ids=["samples", "network"])
def test_full_disk_while_a_store_is_made(tmp_path: Path, width: int, n: int) -> None:
    """The limit on the size of files is the system's own."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = ub.Model([ub.Dense(width, width), ub.Dense(width, 3)], dtype="float64")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(errors.StoreError, match=r"could not be made .*too large"):
            ub.compute_kernel(model, np.ones((n, width)), tmp_path / "K.zarr", backend="reference")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_two_processes_make_the_same_store(tmp_path: Path) -> None:
    target = tmp_path / "K.zarr"
    with new_folder(target) as building:
        (building / "file").touch()
        with pytest.raises(errors.StoreError, match="another process is writing"):
            store_of(target)
    with pytest.raises(errors.StoreError, match=r"exists.*--resume"):
        store_of(target)
    with pytest.raises(errors.StoreError, match="exists"), new_folder(target) as building:  # finished in between
        (building / "other").touch()
    assert (target / "file").exists()
    assert os.listdir(tmp_path) == ["K.zarr"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backend": "torch", "device": "abacus"}, errors.OptionError),
        ({"device": "cuda"}, errors.OptionError),
        ({"threads": 0}, errors.OptionError),
        ({"threads": 1.5}, errors.OptionError),
        ({"memory": "1MB"}, errors.OptionError),
        ({"storage": "int8"}, errors.OptionError),
        ({"method": "fast"}, errors.OptionError),
        ({"backend": "fortran"}, errors.UnknownBackend),
    ],
)
def test_a_bad_option_leaves_no_store(
    tmp_path: Path, untyped: None, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        store_of(tmp_path / "K.zarr", **options)
    assert os.listdir(tmp_path) == []
    store = store_of(tmp_path / "K.zarr", threads=np.int64(1))
    before = store.manifest
    for act in (lambda **given: store.append(X[21:30], **given), store.repair):
        if not {"storage", "method"} & set(options):
            with pytest.raises(error):
                act(**options)
    assert ub.KernelStore(store.path).manifest == before


@pytest.mark.parametrize("target", ["file", "file/K.zarr"])
def test_a_file_in_the_way(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.StoreError, match=r"exists|could not be made|is a file"):
        store_of(tmp_path / target)
    with pytest.raises(errors.StoreError, match="not a kernel store"):
        ub.KernelStore(tmp_path / target)
    assert (tmp_path / "file").read_text() == "mine"


def test_opening_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError, match="not a kernel store"):
        ub.KernelStore(tmp_path / "absent.zarr")
    assert os.listdir(tmp_path) == []


# --- what is on the disk when ---


def test_what_tiles_mean_is_on_the_disk_before_them_and_they_before_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush, write, update = new_folders.flush_file, writing.WritableStore.write_tile, writing.WritableStore.update

    def noted(path: Path) -> None:
        flushed.append(str(path))
        flush(path)

    def write_tile(self: writing.WritableStore, *args: object) -> float:
        for part in ("zarr.json", "kernel/zarr.json", "x/zarr.json", "x/c/0/0", "model.safetensors"):
            assert str(tmp_path / ".K.zarr.building" / part) in flushed
        assert str(tmp_path) in flushed
        return write(self, *args)  # type: ignore[arg-type]

    def updated(self: writing.WritableStore, **changes: object) -> None:
        if changes.get("complete"):
            assert sum("kernel/c/" in one for one in flushed) == 6 + 3  # tiles and the folders of their rows
        update(self, **changes)

    monkeypatch.setattr(new_folders, "flush_file", noted)
    monkeypatch.setattr(writing.WritableStore, "write_tile", write_tile)
    monkeypatch.setattr(writing.WritableStore, "update", updated)
    assert store_of(tmp_path / "K.zarr").complete


# --- after the last tile ---


def test_killed_before_the_manifest_says_complete(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    store.update(complete=False)
    done = udlbridge("store", "verify", store.path)
    assert done.returncode == 1
    assert "interrupted" in done.stdout
    assert udlbridge("store", "verify", store.path, "--repair").returncode == 0
    assert ub.KernelStore(store.path).complete


def test_the_error_of_storage_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store_of(tmp_path / "whole.zarr", storage="float16")
    write, count = writing.WritableStore.write_tile, 0

    def failing(self: writing.WritableStore, *args: object) -> float:
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return write(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(writing.WritableStore, "write_tile", failing)
        with pytest.raises(KeyboardInterrupt):
            store_of(tmp_path / "K.zarr", storage="float16")
    resumed = store_of(tmp_path / "K.zarr", resume=True)
    assert resumed.manifest["storage_error"] == whole.manifest["storage_error"] > 0


# --- growing ---


def test_no_room_to_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "K.zarr")
    needed = store.growth_bytes(X[21:])
    before = store.stored_bytes()
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
        with pytest.raises(errors.StoreError, match=r"needs .* on disk"):
            store.append(X[21:])
    assert store.verify().ok
    assert store.complete
    store.append(X[21:])
    checksums = (store.stored_bytes() - before) // (8 * 8 * 8 + 4) * 4
    assert store.stored_bytes() - before == needed - X[21:].nbytes + checksums


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_running_full_while_appending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """Tiles or samples that do not fit: the advice is one that works, since n has changed."""
    store = store_of(tmp_path / "K.zarr")
    count = 0
    write = DirectWriter.write

    def full(self: DirectWriter, path: Path, *pieces: memoryview) -> None:
        nonlocal count
        count += path.name != METADATA
        if count > allowed:
            raise OSError(28, "No space left on device")
        write(self, path, *pieces)

    with monkeypatch.context() as patch:
        patch.setattr(DirectWriter, "write", full)
        with pytest.raises(errors.StoreError, match=r"No space left.*store verify .*K.zarr --repair"):
            store.append(X[21:30])
    n = 21 if allowed == 0 else 30
    again = ub.KernelStore(store.path)
    assert again.complete == (allowed == 0)
    again.repair()
    assert again.complete
    assert_within_budget(np.asarray(again), ub.ntk(MODEL, X[:n], backend="reference"))


def test_samples_of_another_shape_are_not_appended(tmp_path: Path) -> None:
    model = ub.Model(
        [ub.Conv1d(2, 3, 3), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(3, 2)]
    )  # takes series of any length
    x = np.random.default_rng(0).standard_normal((9, 2, 8)).astype("float32")
    store = ub.compute_kernel(model, x, tmp_path / "K.zarr", backend="reference")
    with pytest.raises(errors.ShapeError, match=r"x_new are float32 \(2, 7\), those of .*K\.zarr float32 \(2, 8\)"):
        store.append(x[:, :, 1:])
    assert store.verify().ok
