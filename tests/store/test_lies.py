"""Stores that cannot lie: whatever somebody or something did to the files, it is found, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from small_stores import MODEL, X, store_of
from udlbridge import errors
from udlbridge.store import writing
from udlbridge.store.folders import new_folder
from udlbridge.store.manifest import KEY, signed
from udlbridge.store.names import LOCK, RECORDS

pytestmark = pytest.mark.usefixtures("small_tiles")

posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and permissions of POSIX")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole store of six tiles, to copy."""
    from udlbridge.kernels import planning

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LARGEST_TILE", 8)
        return store_of(tmp_path_factory.mktemp("made") / "K.zarr").path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "K.zarr")
    return tmp_path / "K.zarr"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name, with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


FILES = ("zarr.json", "kernel/zarr.json", "x/zarr.json", "model.safetensors", RECORDS, "x/c/0/0", "kernel/c/1/0")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named_as_missing(path: Path, name: str) -> None:
    """Whichever is needed is named, what it is for is said, and nothing else is blamed."""
    (path / name).unlink()

    def use() -> None:
        store = ub.KernelStore(path)
        _ = store[:]
        store.append(X[:1], backend="reference")

    with pytest.raises(errors.StoreError, match=f"{Path(name).name} is missing, ") as raised:
        use()
    assert "Errno" not in str(raised.value)
    assert "damaged" not in str(raised.value)
    assert "copy" in (raised.value.remedy or "")


@pytest.mark.parametrize("name", FILES[3:])
def test_what_is_verified_names_what_is_missing(path: Path, name: str) -> None:
    (path / name).unlink()
    found = ub.KernelStore(path).verify()
    assert not found.ok
    assert name in str(found) if not name.startswith("kernel") else found.missing == ((1, 0),)
    if name == RECORDS:
        assert len(found.damaged) == 6
        assert ub.KernelStore(path).repair(progress=False) == 6
        assert ub.KernelStore(path).verify().ok


def assert_is_of(path: Path, n: int) -> None:
    store = ub.KernelStore(path, model=MODEL, x=X[:n])
    assert store.verify().ok
    assert_within_budget(np.asarray(store), ub.ntk(MODEL, X[:n], backend="reference"))


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def edit_manifest(path: Path, *, sign: bool = False, **changes: object) -> None:
    def change(found: dict[str, Any]) -> None:
        fields = {**found["attributes"][KEY], **changes}
        if sign:
            fields.pop("checksum")
            fields = signed(fields)
        found["attributes"][KEY] = fields

    edit(path / "zarr.json", change)


# --- whose folder it is ---


@posix
@pytest.mark.parametrize("kind", ["link", "folder", "folder with a link for a lock", "file"])
def test_what_is_not_ours_is_never_emptied(tmp_path: Path, kind: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    building = tmp_path / ".K.zarr.building"
    if kind == "link":
        (mine / LOCK).touch()
        building.symlink_to(mine)
    elif kind == "file":
        building.write_text("years")
    else:
        shutil.copytree(mine, building)
        if "lock" in kind:
            (building / LOCK).symlink_to(mine / "thesis.tex")
    before = contents(tmp_path)
    with pytest.raises(errors.StoreError, match="is in its way"):
        store_of(tmp_path / "K.zarr")
    assert contents(tmp_path) == before
    assert not (tmp_path / "K.zarr").exists()


@posix
def test_links_in_what_was_left_are_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    building = tmp_path / ".K.zarr.building"
    building.mkdir()
    (building / LOCK).touch()
    (building / "kernel").symlink_to(mine)
    with new_folder(tmp_path / "K.zarr") as folder:
        assert [file.name for file in folder.iterdir()] == [LOCK]
    assert contents(mine) == {"thesis.tex": b"years"}


@posix
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_that_is_no_file(path: Path, kind: str) -> None:
    lock, mine = path / LOCK, path.parent / "thesis.tex"
    mine.write_text("years")
    lock.unlink(missing_ok=True)
    {"link": lambda: lock.symlink_to(mine), "folder": lock.mkdir, "pipe": lambda: os.mkfifo(lock)}[kind]()
    (path / "kernel/c/1/0").unlink()
    with pytest.raises(errors.StoreError, match="not a regular file"):
        ub.KernelStore(path).repair()
    assert mine.read_text() == "years"


# --- the manifest ---

EDITS: dict[str, object] = {
    "n": 16, "outputs": 0, "params": ["0.weight"], "tile": 4, "dtype": "float32", "storage": "float32", "scale": 2.0,
    "n_outputs": 1, "complete": False, "backend": "torch", "data": "0" * 64, "plan": {}, "format": 3, "id": "x",
}  # fmt: skip


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_manifest(path: Path, field: str) -> None:
    edit_manifest(path, **{field: EDITS[field]})
    before = contents(path)
    with pytest.raises(errors.StoreError, match=r"manifest .* is damaged|has format 3"):
        ub.KernelStore(path)
    with pytest.raises(errors.StoreError):
        store_of(path, resume=True)
    done = udlbridge("store", "verify", path, "--repair")
    assert done.returncode == 2, done.stdout
    assert contents(path) == before


def test_one_bit_of_the_manifest(path: Path) -> None:
    """Any bit of the file: it is refused, or means the same (a space, an escape that another letter has too)."""
    file = path / "zarr.json"
    before, manifest = file.read_bytes(), ub.KernelStore(path).manifest
    for bit in np.random.default_rng(0).choice(len(before) * 8, 150, replace=False):
        content = bytearray(before)
        content[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(content)
        with contextlib.suppress(errors.StoreError):
            assert ub.KernelStore(path).manifest == manifest
    file.write_bytes(before)
    assert_is_of(path, 21)


def test_an_older_format_is_refused_with_a_remedy(path: Path) -> None:
    edit_manifest(path, format=1)
    with pytest.raises(errors.StoreError, match=r"has format 1.*compute the kernel again"):
        ub.KernelStore(path)


def test_the_manifest_of_another_time(path: Path) -> None:
    """Put back after an append, it is true still: of the first samples. Nothing of the others is deleted."""
    before = (path / "zarr.json").read_bytes()
    ub.KernelStore(path).append(X[21:30])
    (path / "zarr.json").write_bytes(before)
    files = contents(path)
    assert_is_of(path, 21)
    assert ub.KernelStore(path).repair() == 0
    assert contents(path).keys() >= files.keys()


METADATA: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "chunks": ("kernel", lambda found: found["chunk_grid"]["configuration"].update(chunk_shape=[4, 4])),
    "dtype": ("kernel", lambda found: found.update(data_type="float32")),
    "gzip": ("kernel", lambda found: found["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}})),
    "no checksum": ("kernel", lambda found: found["codecs"].pop()),
    "big-endian": ("kernel", lambda found: found["codecs"][0]["configuration"].update(endian="big")),
    "fill": ("kernel", lambda found: found.update(fill_value=0.0)),
    "shape": ("kernel", lambda found: found.update(shape=[16, 16])),
    "axes": ("kernel", lambda found: found.update(shape=[21, 21, 3])),
    "samples": ("x", lambda found: found.update(shape=[20, 5])),
    "dtype of samples": ("x", lambda found: found.update(data_type="int64", fill_value=0)),
    "deep": ("x", lambda found: found["attributes"].update(a=json.loads("[" * 900 + "]" * 900))),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_an_array_that_is_not_the_manifest_s(path: Path, case: str) -> None:
    part, change = METADATA[case]
    edit(path / part / "zarr.json", change)
    before = contents(path)
    with pytest.raises(errors.StoreError, match=rf"{part}/zarr.json is not what the manifest"):
        ub.KernelStore(path)
    assert contents(path) == before


# --- which tile is which ---

TILES = [(row, column) for row in range(3) for column in range(row + 1)]


def file_of(path: Path, tile: tuple[int, int]) -> Path:
    return path / "kernel" / "c" / str(tile[0]) / str(tile[1])


@pytest.mark.parametrize("swap", [True, False])
def test_tiles_in_the_place_of_others(path: Path, swap: bool) -> None:
    """15 swapped pairs, and 30 tiles that lie over others: each is found by verifying and by reading, and mended."""
    whole = contents(path / "kernel")
    kernel = np.asarray(ub.KernelStore(path))
    pairs = list(itertools.combinations(TILES, 2) if swap else itertools.permutations(TILES, 2))
    for first, second in pairs:
        one, two = file_of(path, first), file_of(path, second)
        old = two.read_bytes()
        two.write_bytes(one.read_bytes())
        if swap:
            one.write_bytes(old)
        store = ub.KernelStore(path)
        assert set(store.verify().damaged) == ({first, second} if swap else {second})
        with pytest.raises(errors.StoreError, match="another tile has it"):
            np.asarray(store)
        one.write_bytes(whole[str(one.relative_to(path / "kernel"))])
        two.write_bytes(old)
    assert len(pairs) == (15 if swap else 30)
    file_of(path, (1, 0)).write_bytes(file_of(path, (2, 1)).read_bytes())
    assert ub.KernelStore(path).repair() == 1
    assert contents(path / "kernel") == whole
    np.testing.assert_array_equal(np.asarray(ub.KernelStore(path)), kernel)


def test_a_tile_of_another_store(path: Path, tmp_path: Path) -> None:
    """With its record: records belong to a store."""
    other = ub.compute_kernel(MODEL, X[30:51], tmp_path / "L.zarr", backend="reference")
    shutil.copy(file_of(other.path, (1, 0)), file_of(path, (1, 0)))
    with (path / RECORDS).open("ab") as file:
        file.write((other.path / RECORDS).read_bytes())
    assert ub.KernelStore(path).verify().damaged == ((1, 0),)
    assert ub.KernelStore(path).repair() == 1
    assert_is_of(path, 21)


@pytest.mark.parametrize(("remaining", "damaged"), [(5.5, 1), (2, 4), (0, 6), (None, 6)])
def test_records_that_are_lost(path: Path, remaining: float | None, damaged: int) -> None:
    """As when the power fails, or somebody removes the file: tiles are computed again, and the rest is kept."""
    file = path / RECORDS
    content = file.read_bytes()
    size = len(content) // 6
    if remaining is None:
        file.unlink()
    else:
        file.write_bytes(content[: int(remaining * size)])
    assert len(ub.KernelStore(path).verify().damaged) == damaged
    assert ub.KernelStore(path).repair() == damaged
    assert_is_of(path, 21)


def test_records_that_are_changed(path: Path) -> None:
    file = path / RECORDS
    content = bytearray(file.read_bytes())
    for offset in range(0, len(content), len(content) // 6):
        content[offset + 8] ^= 3  # its column
    file.write_bytes(content)
    assert len(ub.KernelStore(path).verify().damaged) == 6


def test_a_handle_that_is_behind_looks_for_new_records(path: Path) -> None:
    behind = ub.KernelStore(path)
    ub.KernelStore(path).append(X[21:30])
    assert_within_budget(np.asarray(behind), ub.ntk(MODEL, X[:21], backend="reference"))
    assert behind.verify().ok


# --- growing ---


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", ["write_samples", "data_hash", "update", "write_tile"])
def test_an_append_that_is_killed(path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Until the manifest is written the store is what it was, though its arrays have grown; then it can be gone on."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writing.WritableStore if hasattr(writing.WritableStore, step) else writing, step, killed)
        with pytest.raises(Killed):
            ub.KernelStore(path).append(X[21:30])
    grown = step == "write_tile"
    store = ub.KernelStore(path)
    assert store.shape == ((30, 30) if grown else (21, 21))
    found = store.verify()
    assert not found.damaged
    assert not found.inputs
    assert found.ok == store.complete == (not grown)
    store.repair()
    assert_is_of(path, 30 if grown else 21)
    store.append(X[30:33] if grown else X[21:24])
    assert_is_of(path, 33 if grown else 24)


# --- what files claim ---


STDS = {"w_std": 1.5, "b_std": 0.1, "parameterization": "ntk", "get": "ntk"}


@pytest.mark.parametrize(
    "change",
    [
        {"module": {"name": "Net", "n_params": "many"}},
        {"module": {"name": "Net", "n_params": None}},
        {"module": {"name": "Net"}},
        {"module": {"name": "Net", "n_params": -1}},
        {"model_bytes": None},
        {"model_bytes": "1"},
        {"infinite": []},
        {"infinite": {}},
        {"infinite": STDS | {"w_std": "1.5"}},
        {"infinite": STDS | {"w_std": 0.0}},
        {"infinite": STDS | {"b_std": None}},
        {"infinite": STDS | {"parameterization": ["ntk"]}},
        {"infinite": STDS | {"get": "both"}},
        {"infinite": STDS | {"memory": "1GB"}},
    ],
    ids=str,
)
def test_a_signed_manifest_with_fields_that_cannot_be(path: Path, change: dict[str, Any]) -> None:
    edit_manifest(path, sign=True, **change)
    for open_store in (ub.KernelStore, ub.infinite.InfiniteStore):
        with pytest.raises(errors.StoreError, match=f"{next(iter(change))} cannot be"):
            open_store(path)


def test_a_store_that_claims_a_billion_samples(path: Path) -> None:
    n = 10**9
    edit_manifest(path, sign=True, n=n)
    edit(path / "kernel/zarr.json", lambda found: found.update(shape=[n, n]))
    edit(path / "x/zarr.json", lambda found: found.update(shape=[n, 5]))
    start = time.process_time()
    store = ub.KernelStore(path)
    for act in (
        store.samples, store.check_samples, store.verify, store.repair, store.diagonal, lambda: np.asarray(store),
        lambda: store.append(X[21:22]), store.unfinished,
    ):  # fmt: skip
        with pytest.raises(errors.StoreError):
            act()
    assert time.process_time() - start < 2


@pytest.mark.parametrize("size", [0, 1, 515, 517, 3_600_000_000])
def test_a_tile_of_another_size_is_not_read(path: Path, size: int) -> None:
    with file_of(path, (1, 0)).open("r+b") as file:
        file.truncate(size)
    assert ub.KernelStore(path).verify().damaged == ((1, 0),)
    assert ub.KernelStore(path).repair() == 1
    assert_is_of(path, 21)


@pytest.mark.parametrize("part", ["zarr.json", "x/zarr.json", "kernel/zarr.json", "model.safetensors", "x/c/0/0"])
def test_a_file_of_the_store_that_is_far_too_large(path: Path, part: str) -> None:
    with (path / part).open("r+b") as file:
        file.truncate(20_000_000_000)  # takes no room on the disk
    with pytest.raises(errors.StoreError):
        ub.KernelStore(path).repair()


@posix
@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
@pytest.mark.parametrize(
    "part", ["zarr.json", "x/zarr.json", "kernel/zarr.json", "model.safetensors", "x/c/0/0", RECORDS]
)
def test_what_is_no_file(path: Path, part: str, kind: str) -> None:
    """A pipe would be waited for without end; a link may lead anywhere."""
    file = path / part
    content = file.read_bytes()
    file.unlink()
    make_something(file, kind, path.parent / "elsewhere", content)
    with pytest.raises(errors.StoreError):
        ub.KernelStore(path).repair()


@posix
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_tile_that_is_no_file_is_computed_again(path: Path, kind: str) -> None:
    file = file_of(path, (1, 0))
    content = file.read_bytes()
    file.unlink()
    make_something(file, kind, path.parent / "elsewhere", b"mine")
    assert ub.KernelStore(path).verify().damaged == ((1, 0),)
    assert ub.KernelStore(path).repair() == 1
    assert file.read_bytes() == content
    assert not file.is_symlink()
    if kind == "link":
        assert (path.parent / "elsewhere").read_bytes() == b"mine"


def make_something(file: Path, kind: str, elsewhere: Path, content: bytes) -> None:
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        elsewhere.write_bytes(content)
        file.symlink_to(elsewhere)


# --- who may read and write ---


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own are for one."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@posix
def test_a_new_store_has_the_permissions_of_the_umask(open_folder: Path) -> None:
    before = os.umask(0o022)
    try:
        path = store_of(open_folder / "K.zarr").path
    finally:
        os.umask(before)
    modes = {str(file.relative_to(path)): file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()}
    assert {name: mode for name, mode in modes.items() if mode != 0o644} == {}


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user(pristine: Path, open_folder: Path) -> None:
    """Reads the store of somebody else, cannot write to it, and is told what is protected."""
    shutil.copytree(pristine, open_folder / "K.zarr")
    for name, part in (("tile", "kernel/c/1/0"), ("model", "model.safetensors"), ("manifest", "zarr.json")):
        shutil.copytree(pristine, open_folder / name)
        (open_folder / name / part).chmod(0o600)
    code = (
        "import os, sys, json, numpy as np, udlbridge as ub\n"
        "from pathlib import Path\nfrom udlbridge.store import kernel_store\n"
        f"folder = Path({str(open_folder)!r})\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "def said(act):\n"
        "    try: act()\n"
        "    except ub.errors.StoreError as error: return str(error)\n"
        "    return 'nothing'\n"
        "store = ub.KernelStore(folder / 'K.zarr')\n"
        "tile = ub.KernelStore(folder / 'tile')\n"
        "model = ub.KernelStore(folder / 'model')\n"
        "print(json.dumps({'read': store.verify().ok, 'sum': float(np.asarray(store).sum()),\n"
        "  'write': said(store.repair), 'append': said(lambda: store.append(store.samples()[:2])),\n"
        "  'damaged': tile.verify().damaged, 'tile': said(lambda: np.asarray(tile)),\n"
        "  'model': said(model.model), 'inputs': model.verify().inputs,\n"
        "  'manifest': said(lambda: ub.KernelStore(folder / 'manifest'))}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read"]
    assert found["sum"] == pytest.approx(float(np.asarray(ub.KernelStore(pristine)).sum()))
    assert found["damaged"] == [[1, 0]]
    assert "permission denied" in found["tile"]
    assert "permission denied" in found["manifest"]
    assert "permission denied" in found["model"]
    assert "change its permissions" in found["model"]
    assert len(found["inputs"]) == 1
    for act in ("write", "append"):
        assert "cannot be written" in found[act]


@pytest.mark.parametrize("part", ["model.safetensors", "x"])
def test_a_network_or_samples_that_may_not_be_read(path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), part)

    store = ub.KernelStore(path)
    if part == "x":
        monkeypatch.setattr("udlbridge.store.folder.check_sample_files", refuse)
    else:
        monkeypatch.setattr("udlbridge.store.folder_files.check_readable", refuse)
    with pytest.raises(ub.errors.StoreError, match=f"{part} cannot be read: permission denied") as caught:
        store.check_samples() if part == "x" else store.model()
    assert "change its permissions" in str(caught.value)
    assert "--resume" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_the_remedy_of_a_store_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("udlbridge.store.creating.write_inputs", refuse)
    with pytest.raises(ub.errors.StoreError, match="could not be made") as caught:
        store_of(tmp_path / "K.zarr")
    full = code == errno.ENOSPC
    assert ("free some space" in str(caught.value)) == full
    assert ("in which this user may write" in str(caught.value)) != full


@pytest.mark.parametrize("gone", ["store", "tiles", "lock"])
def test_a_folder_that_is_removed_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """A failure, and nothing of it comes back, in the place of "wrote ..." and exit code 0."""
    target = tmp_path / "K.zarr"
    write, count = writing.WritableStore.write_tile, 0

    def removing(self: writing.WritableStore, *args: object) -> float:
        nonlocal count
        count += 1
        if count == 4:
            shutil.rmtree({"store": target, "tiles": target / "kernel" / "c" / "0"}.get(gone, target))
            if gone == "lock":
                target.mkdir()
                (target / LOCK).touch()
        return write(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(writing.WritableStore, "write_tile", removing)
    done = udlbridge("kernel", "--n", "21", "--backend", "reference", "--out", target)
    assert done.returncode == 2, done.stdout
    assert "wrote" not in done.stdout
    assert "removed" in done.stderr
    if gone == "store":
        assert not target.exists()
    if gone == "tiles":
        assert len(ub.KernelStore(target).verify().missing) == 1


# --- other readers ---


@pytest.mark.parametrize("storage", [None, "float16", "bfloat16"])
def test_zarr_s_own_reader_sees_what_is_not_there(tmp_path: Path, storage: str | None) -> None:
    path = ub.compute_kernel(
        MODEL.astype("float32"), X[:21].astype(np.float32), tmp_path / "K.zarr", backend="reference", storage=storage
    ).path
    found = zarr.open_group(path, mode="r")["kernel"][...]
    if storage == "bfloat16":
        found = (found.astype(np.uint32) << 16).view(np.float32)
    upper = np.arange(21)[:, None] // 8 < np.arange(21) // 8
    assert np.isnan(found[upper]).all()
    np.testing.assert_array_equal(found[~upper], np.asarray(ub.KernelStore(path))[~upper])
