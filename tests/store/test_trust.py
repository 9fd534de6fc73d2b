"""Stores never give wrong numbers: not through a handle that is behind, a damaged file or mixed options."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, random_model
from small_stores import MODEL, X, store_of
from udlbridge import errors

pytestmark = pytest.mark.usefixtures("small_tiles")


def assert_is_of(path: Path, x: np.ndarray) -> None:
    store = ub.KernelStore(path, model=MODEL, x=x)
    assert store.complete
    assert store.verify().ok
    assert_within_budget(np.asarray(store), ub.ntk(MODEL, x, backend="reference"))


# --- handles that are behind ---


@pytest.mark.parametrize("n", [16, 21])
def test_appending_through_a_handle_that_is_behind(tmp_path: Path, n: int) -> None:
    first = store_of(tmp_path / "K.zarr", n)
    second = ub.KernelStore(first.path)
    first.append(X[n : n + 16])
    second.append(X[40:56])
    assert_is_of(first.path, np.concatenate([X[: n + 16], X[40:56]]))


def test_repairing_through_a_handle_that_is_behind(tmp_path: Path) -> None:
    first = store_of(tmp_path / "K.zarr", 16)
    second = ub.KernelStore(first.path)
    first.append(X[16:37])
    assert second.repair() == 0
    assert second.shape == (37, 37)
    assert_is_of(first.path, X[:37])


@pytest.mark.parametrize("n", [16, 21])
def test_reading_through_a_handle_that_is_behind(tmp_path: Path, n: int) -> None:
    first = store_of(tmp_path / "K.zarr", n)
    second = ub.KernelStore(first.path)
    first.append(X[n:37])
    assert_within_budget(np.asarray(second), ub.ntk(MODEL, X[:n], backend="reference"))
    np.testing.assert_array_equal(second.samples(), X[:n])
    assert second.verify().ok


def test_resuming_a_store_that_grows_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "K.zarr")
    other = ub.KernelStore(store.path)
    writing = ub.KernelStore.writing

    def late(self: ub.KernelStore) -> object:
        monkeypatch.setattr(ub.KernelStore, "writing", writing)
        other.append(X[21:30])
        return writing(self)

    monkeypatch.setattr(ub.KernelStore, "writing", late)
    with pytest.raises(errors.StoreError, match="other samples"):
        store_of(tmp_path / "K.zarr", resume=True)
    assert_is_of(store.path, X[:30])


# --- what the kernel is of ---


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)


def lose(file: Path) -> None:
    file.unlink()


def exchange(file: Path) -> None:
    random_model([5, 7, 3], ["tanh", "identity"], seed=9).save(file)


@pytest.mark.parametrize(
    ("part", "file", "damage"),
    [
        ("x", "x/c/0/0", flip),
        ("x", "x/c/0/0", lose),
        ("model.safetensors", "model.safetensors", exchange),
        ("model.safetensors", "model.safetensors", flip),
        ("model.safetensors", "model.safetensors", lose),
    ],
)
def test_a_damaged_network_or_damaged_samples(tmp_path: Path, part: str, file: str, damage: object) -> None:
    store = store_of(tmp_path / "K.zarr")
    (store.path / "kernel/c/1/0").unlink()
    damage(store.path / file)  # type: ignore[operator]
    found = store.verify()
    assert not found.ok
    assert len(found.inputs) == 1
    assert part in found.inputs[0]
    for act in (store.repair, lambda: store.append(X[21:30]), lambda: store.compare_with_float64(1)):
        with pytest.raises(errors.StoreError, match=rf"{part}.* (does not hold|is missing, which holds) .*--resume"):
            act()
    assert not (store.path / "kernel/c/1/0").exists()
    store_of(store.path, resume=True)
    assert_is_of(store.path, X[:21])


def test_samples_are_asked_for_as_the_network_takes_them(tmp_path: Path) -> None:
    model = ub.models.small_transformer()
    tokens = np.random.default_rng(0).integers(0, 10, (6, 16)).astype(np.int32)
    path = ub.compute_kernel(model, tokens, tmp_path / "K.zarr", backend="reference").path
    assert ub.KernelStore(path, x=tokens).complete
    assert ub.KernelStore(path, x=tokens.tolist()).complete  # type: ignore[arg-type]
    with pytest.raises(errors.StoreError, match="other samples"):
        ub.KernelStore(path, x=tokens[::-1])


# --- zeros ---


def test_tiles_of_zeros_are_written(tmp_path: Path) -> None:
    dead = ub.Model([ub.Dense(5, 3, "relu")])
    dead = dead.with_params({"0.weight": dead.params["0.weight"], "0.bias": np.full(3, -100, dead.dtype)})
    x = X.astype(dead.dtype)
    store = ub.compute_kernel(dead, x[:21], tmp_path / "K.zarr", backend="reference")
    assert store.verify().ok
    assert not np.asarray(store).any()
    store.append(x[21:30])
    again = ub.KernelStore(store.path)
    assert again.verify().ok
    assert again.repair() == 0


@pytest.mark.parametrize(("storage", "factor"), [("float16", 1e-5), ("float32", 1e-30), ("bfloat16", 1e-30)])
def test_storage_in_which_everything_would_be_zero(tmp_path: Path, storage: str, factor: float) -> None:
    linear = ub.Model([ub.Dense(5, 3, bias=False)], dtype="float64")  # its kernel is x x'
    with pytest.raises(errors.StoreError, match=f"does not fit into {storage}.*too small"):
        ub.compute_kernel(linear, X[:9] * factor, tmp_path / "K.zarr", backend="reference", storage=storage)
    whole = ub.compute_kernel(linear, X[:9] * factor, tmp_path / "wide.zarr", backend="reference")
    assert np.asarray(whole).any()


# --- against float64 ---


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_equal(tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when it is written; a store of another origin may have it all the same."""
    store = store_of(tmp_path / "K.zarr")
    block = store.read_tile(next(iter(store.grid.tiles()))).copy()
    block[2, 3] = value
    with pytest.raises(errors.NumericalError, match=rf"K\[2, 3\] is {value}"):
        store.write_tile(next(iter(store.grid.tiles())), block)
    read = ub.KernelStore.read_tile
    first = next(iter(store.grid.tiles()))
    monkeypatch.setattr(ub.KernelStore, "read_tile", lambda self, tile: block if tile == first else read(self, tile))
    with pytest.raises(errors.NumericalError, match=rf"the stored K\[2, 3\] is {value}"):
        store.compare_with_float64(6)


def test_tokens_against_float64(tmp_path: Path) -> None:
    model = ub.models.small_transformer()
    tokens = np.random.default_rng(0).integers(0, 10, (9, 16))
    store = ub.compute_kernel(model, tokens, tmp_path / "K.zarr", outputs=0, backend="reference")
    assert 0 < store.compare_with_float64(3) < 1e-5


@pytest.mark.parametrize("tiles", [0, -1, 1.5, True])
def test_how_many_tiles(tmp_path: Path, untyped: None, tiles: object) -> None:
    with pytest.raises(errors.OptionError, match="at least 1"):
        store_of(tmp_path / "K.zarr").compare_with_float64(tiles)  # type: ignore[arg-type]


# --- options of a store that is gone on with ---


def test_going_on_with_what_a_store_was_begun_with(tmp_path: Path) -> None:
    whole = store_of(tmp_path / "whole.zarr", method="plain", storage="float16")
    shutil.copytree(whole.path, tmp_path / "K.zarr")
    lost = tmp_path / "K.zarr/kernel/c/2/1"
    lost.unlink()
    for option, given in (
        ("backend", "torch"), ("method", "structured"), ("storage", "float32"), ("device", "cuda"),
        ("storage", "int8"), ("outputs", 1),
    ):  # fmt: skip
        with pytest.raises(errors.StoreError, match=rf"was begun with {option}=.*given {option}={given!r}"):
            store_of(tmp_path / "K.zarr", resume=True, **{option: given})
    assert not lost.exists()
    ub.compute_kernel(MODEL, X[:21], tmp_path / "K.zarr", resume=True)  # not the default backend, "auto", float64
    assert lost.read_bytes() == (whole.path / "kernel/c/2/1").read_bytes()


def test_a_store_can_be_pickled_after_writing(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    store.update(note="a")  # through the buffer of direct writes, as large tiles
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(store))
