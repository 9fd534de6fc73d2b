"""MNIST-1D: sources in order, verified; the course's files where they are at hand, the generator where they are not."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import DataError

mnist1d = importlib.import_module("udlbridge.data.mnist1d")  # the package has a function of this name


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No files: an empty cache, no folder, no download. Returns the place of the cache."""
    monkeypatch.setenv("UDLBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UDLBRIDGE_NO_DOWNLOAD", "1")
    monkeypatch.delenv("UDLBRIDGE_DATA", raising=False)
    mnist1d._fetched.cache_clear()
    return tmp_path / "cache" / "mnist1d"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four small files whose checksums are the expected ones for this test; samples are columns."""
    generator = np.random.default_rng(0)
    for prefix, n in (("train", 6), ("val", 3)):
        for kind, array in (("x", generator.standard_normal((40, n))), ("y", np.arange(n))):
            path = tmp_path / f"{prefix}_data_{kind}.npy"
            np.save(path, array)
            monkeypatch.setitem(mnist1d.SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return tmp_path


@pytest.mark.parametrize("how", ["folder", "environment", "environment/mnist1d", "cache"])
def test_files_in_every_place(how: str, nowhere: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how.startswith("environment"):
        monkeypatch.setenv("UDLBRIDGE_DATA", str(files))
    folder = {"cache": nowhere, "environment/mnist1d": files / "mnist1d"}.get(how, files)
    if folder != files:
        folder.mkdir(parents=True)
        for name in mnist1d.SHA256:
            (files / name).rename(folder / name)
    found = ub.data.mnist1d(folder=files if how == "folder" else None)
    assert found.origin == "files"
    assert (found.x.shape, found.x_validation.shape) == ((6, 40), (3, 40))
    np.testing.assert_array_equal(found.x, np.load(folder / "train_data_x.npy").T.astype(np.float32))
    np.testing.assert_array_equal(found.y_validation, [0, 1, 2])
    wide = ub.data.mnist1d(folder=folder, dtype="float64")
    assert wide.x.dtype == np.float64
    np.testing.assert_array_equal(wide.x, found.x)


def test_files_that_are_missing_or_others(nowhere: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(files / "val_data_y.npy", np.arange(4))
    with pytest.raises(DataError, match=r"val_data_y\.npy has SHA-256"):
        ub.data.mnist1d(folder=files)
    (files / "val_data_y.npy").unlink()
    monkeypatch.setenv("UDLBRIDGE_DATA", str(files))
    with pytest.raises(DataError, match=r"val_data_y\.npy cannot be read"):
        ub.data.mnist1d()


@pytest.mark.slow
def test_the_generator_where_there_is_nothing_else(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mnist1d")
    monkeypatch.setenv("UDLBRIDGE_DATA", str(tmp_path))  # a folder of other data is passed by
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = ub.data.mnist1d()
    assert found.origin == "generator"
    assert (found.x.shape, found.x_validation.shape) == ((4000, 40), (1000, 40))
    assert "not in the cache" in capsys.readouterr().err
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(DataError, match=r"mnist1d is not installed.*\n?.*UDLBRIDGE_DATA"):
        ub.data.mnist1d()


def test_a_download_is_verified(nowhere: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch fetches by its own ways from a folder; what has another hash than expected does not stay."""
    monkeypatch.delenv("UDLBRIDGE_NO_DOWNLOAD")
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)  # no generator either
    pages = files.as_uri() + "/"

    class FromDisk:
        def __init__(self, timeout: int) -> None:
            pass

        def __call__(self, url: str, output_file: str, pooch: object) -> None:
            Path(output_file).write_bytes(Path(url.removeprefix("file://")).read_bytes())

    monkeypatch.setattr("pooch.HTTPDownloader", FromDisk)
    monkeypatch.setattr(mnist1d, "REPOSITORY", pages)
    assert ub.data.mnist1d().origin == "files"
    assert sorted(path.name for path in nowhere.iterdir()) == sorted(mnist1d.SHA256)
    (nowhere / "train_data_x.npy").unlink()
    np.save(files / "train_data_x.npy", np.zeros((40, 6)))
    mnist1d._fetched.cache_clear()
    with pytest.raises(DataError, match="mnist1d is not installed"):
        ub.data.mnist1d()
    assert not (nowhere / "train_data_x.npy").exists()


@pytest.mark.parametrize("kind", ["pipe", "large"])
def test_what_is_none_of_the_files_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / next(iter(mnist1d.SHA256))
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 33)
    with pytest.raises(DataError, match="cannot be read"):
        ub.data.mnist1d(folder=tmp_path)
