"""`overwrite=True` and `--force` remove a store, when another can be begun, and never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from udlbridge.errors import OptionError, StoreError, UDLBridgeError
from udlbridge.store.folders import locked

MODEL = ub.Model([ub.Dense(3, 2)])
X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "K.zarr"
    ub.compute_kernel(MODEL, X, folder, backend="reference")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_another_kernel_takes_the_place_of_a_store(path: Path) -> None:
    (path / f".network.{'0' * 32}.partial").touch()  # what a killed process handed to its workers
    again = ub.compute_kernel(MODEL, 2 * X[:3], path, backend="reference", overwrite=True)
    np.testing.assert_array_equal(again[:], ub.ntk(MODEL, 2 * X[:3], backend="reference"))


@pytest.mark.parametrize(
    ("options", "error"),
    [({"outputs": 7}, UDLBridgeError), ({"memory": "1kB"}, UDLBridgeError), ({"storage": "int8"}, OptionError)],
    ids=str,
)
def test_a_store_stays_where_its_successor_cannot_be_begun(
    path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    before = files(path)
    with pytest.raises(error):
        ub.compute_kernel(MODEL, X, path, backend="reference", overwrite=True, **options)
    assert files(path) == before


@pytest.mark.parametrize("kind", ["link", "another's file", "not a store", "written to"])
def test_what_is_not_a_store_alone_is_never_removed(path: Path, kind: str) -> None:
    target, words = path, {"link": "is a link", "another's file": "notes.txt", "not a store": "not a kernel store"}
    if kind == "link":
        target = path.with_name("link.zarr")
        target.symlink_to(path, target_is_directory=True)
    elif kind == "another's file":
        (path / "notes.txt").write_text("mine", encoding="utf-8")
    elif kind == "not a store":
        target = path.with_name("folder.zarr")
        target.mkdir()
        (target / "notes.txt").write_text("mine", encoding="utf-8")
    before = files(target)
    if kind == "written to":
        with locked(path, path), pytest.raises(StoreError, match="another process is writing"):
            ub.compute_kernel(MODEL, X, target, backend="reference", overwrite=True)
    else:
        with pytest.raises(StoreError, match=words[kind]):
            ub.compute_kernel(MODEL, X, target, backend="reference", overwrite=True)
        model = path.parent / "m.safetensors"
        MODEL.save(model)
        command = ("kernel", "--model", model, "--samples", "random", "--n", 4, "--backend", "reference", "--force")
        done = udlbridge(*command, "--out", target)
        assert done.returncode == 2
        assert words[kind] in done.stderr
    assert files(target) == before
