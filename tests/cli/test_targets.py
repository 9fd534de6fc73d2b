"""Where results go and what files are read: nothing is computed and lost, no file takes more than it should."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from udlbridge import errors

KERNEL = ("kernel", "--n", "6", "--outputs", "0", "--backend", "reference")
MODEL = ub.Model([ub.Dense(4, 3)])


@pytest.mark.parametrize("name", ["K.csv", "K.npz", "K.txt", "K", "K.zarr.zip"])
def test_a_kernel_is_an_array_or_a_store(tmp_path: Path, name: str) -> None:
    done = udlbridge(*KERNEL, "--out", tmp_path / name)
    assert done.returncode == 2
    assert "a .npy file, or a .zarr store" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["k.npy", "k.csv", "k.npz", "k.txt"])
def test_a_store_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.StoreError, match=r"ends in .*k\.zarr"):
        ub.compute_kernel(MODEL, np.ones((3, 4), np.float32), tmp_path / name, backend="reference")
    assert os.listdir(tmp_path) == []


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where a folder of the name ~ would be seen
    x = np.ones((3, 4), np.float32)
    assert ub.compute_kernel(MODEL, x, "~/K.zarr", backend="reference").complete
    assert ub.KernelStore("~/K.zarr").complete
    assert udlbridge("store", "verify", "~/K.zarr").returncode == 0
    done = udlbridge(*KERNEL, "--out", "~/k.npy", "--json", "~/k.json")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["K.zarr", "k.json", "k.npy"]


LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        (*KERNEL, "--out", f"{LONG}.npy"),
        (*KERNEL, "--out", f"{LONG}.zarr"),
        (*KERNEL, "--out", "K.npy", "--json", LONG),
        (*KERNEL, "--out", "K.npy", "--data", LONG),
        (*KERNEL, "--out", "K.npy", "--model", LONG),
        (*KERNEL, "--out", "K.npy", "--memory", "9" * 400),
        (*KERNEL, "--out", "K.zarr", "--memory", "9" * 400 + "GB"),
        ("kernel", "--n", "6", "--outputs", "9" * 5000, "--backend", "reference", "--out", "K.npy"),
        ("check", "--backend", "reference", "--shape", "²"),
        ("check", "--backend", "reference", "--shape", "9" * 5000),
        ("store", "verify", LONG),
        ("store", "append", "K.zarr", LONG),
        ("spectrum", LONG),
        ("spectrum", "--n", "6", "--plot", LONG),
        ("convert", LONG, "m.npz"),
        ("convert", "m.npz", f"{LONG}.npz"),
    ],
    ids=lambda command: " ".join(part[:12] for part in command),
)
def test_options_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    done = udlbridge(*command)  # another exception than SystemExit fails here
    assert done.returncode == 2
    assert done.stderr
    assert os.listdir(tmp_path) == []


def test_long_paths_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / (LONG + ".zarr")
    with pytest.raises(errors.StoreError, match="cannot be a path"):
        ub.compute_kernel(MODEL, np.ones((3, 4), np.float32), path, backend="reference")
    with pytest.raises(errors.StoreError, match="not a kernel store"):
        ub.KernelStore(path)
    with pytest.raises(errors.ModelFileError):
        MODEL.save(path)
    with pytest.raises(errors.ModelFileError):
        ub.Model.load(path)


def test_a_header_that_claims_what_the_file_does_not_have(tmp_path: Path) -> None:
    """A .npy file of 128 bytes that says it is 8 TB: refused before memory is taken."""
    np.save(tmp_path / "k.npy", np.eye(2))
    content = (tmp_path / "k.npy").read_bytes()
    (tmp_path / "k.npy").write_bytes(content.replace(b"(2, 2), }            ", b"(1000000, 1000000), }"))
    done = udlbridge("spectrum", tmp_path / "k.npy")
    assert done.returncode == 2
    assert "is not a .npy file" in done.stderr
