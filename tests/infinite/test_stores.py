"""Kernels at infinite width on disk: the same numbers, interrupted, resumed, repaired, read as other stores are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console

import udlbridge as ub
from udlbridge import infinite
from udlbridge.errors import LayerError, OptionError, StoreError, UDLBridgeError

LAYERS = [ub.Dense(4, 5, "relu"), ub.Dense(5, 3, "erf"), ub.Dense(3, 2)]
X = np.random.default_rng(0).standard_normal((21, 4))
STDS = {"w_std": 1.3, "b_std": 0.2}

pytestmark = pytest.mark.usefixtures("small_tiles")


def contents(store: infinite.InfiniteStore) -> dict[str, bytes]:
    """The tiles of a store, by their paths."""
    folder = store.path / "kernel" / "c"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_store_reads_like_the_kernel(tmp_path: Path, get: str, dtype: str) -> None:
    x = X.astype(dtype)
    whole = getattr(infinite.kernels(LAYERS, x, **STDS), get)
    store = infinite.compute_kernel(LAYERS, x, tmp_path / "K.zarr", get=get, **STDS)
    assert (store.grid.tile, store.grid.count, store.dtype, store.complete) == (8, 6, np.float64, True)
    np.testing.assert_allclose(np.asarray(store), whole, rtol=1e-13)
    vectors = np.random.default_rng(1).standard_normal((21, 3))
    np.testing.assert_allclose(store @ vectors, whole @ vectors, rtol=1e-12)
    np.testing.assert_allclose(store.diagonal(), np.diagonal(whole), rtol=1e-13)
    np.testing.assert_allclose(store.columns(np.array([2, 20])), whole[:, [2, 20]], rtol=1e-13)
    twice = np.array([20, 2, 20])
    np.testing.assert_allclose(store.columns(twice), whole[:, twice], rtol=1e-13)
    again = infinite.InfiniteStore(store.path)
    assert again.manifest["infinite"] == {**STDS, "parameterization": "ntk", "get": get}
    np.testing.assert_array_equal(np.asarray(again), np.asarray(store))


def test_images_and_the_standard_parameterization(tmp_path: Path) -> None:
    layers = [ub.Conv2d(1, 3, 2, "relu"), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(3, 1)]
    x = np.random.default_rng(2).standard_normal((10, 1, 4, 4))
    options: dict[str, Any] = {**STDS, "parameterization": "standard"}
    store = infinite.compute_kernel(layers, x, tmp_path / "K.zarr", memory="1MB", **options)
    np.testing.assert_allclose(np.asarray(store), infinite.kernels(layers, x, **options).ntk, rtol=1e-13)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The tiles that were finished are kept; those that come are the same bytes."""
    whole = infinite.compute_kernel(LAYERS, X, tmp_path / "whole.zarr", **STDS)
    write, count = infinite.InfiniteStore.write_tile, [0]

    def failing(self: infinite.InfiniteStore, *given: Any) -> float:
        if count[0] == after:
            raise KeyboardInterrupt
        count[0] += 1
        return write(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(infinite.InfiniteStore, "write_tile", failing)
        with pytest.raises(KeyboardInterrupt):
            infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", **STDS)
    part = infinite.InfiniteStore(tmp_path / "K.zarr")
    assert not part.complete
    assert len(contents(part)) == after
    with pytest.raises(StoreError, match="exists"):
        infinite.compute_kernel(LAYERS, X, part.path, **STDS)
    done = infinite.compute_kernel(LAYERS, X, part.path, resume=True, **STDS)
    assert (done.complete, done.manifest["actual"][-1]["tiles"]) == (True, 6 - after)
    assert contents(done) == contents(whole)


def test_damaged_tiles_are_found_and_repaired(tmp_path: Path) -> None:
    store = infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", **STDS)
    before = contents(store)
    file = store.path / "kernel" / "c" / "1" / "0"
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    (store.path / "kernel" / "c" / "2" / "1").unlink()
    found = infinite.InfiniteStore(store.path).verify()
    assert (found.damaged, found.missing) == (((1, 0),), ((2, 1),))
    assert infinite.InfiniteStore(store.path).repair() == 2
    assert contents(store) == before
    assert infinite.InfiniteStore(store.path).repair() == 0


def test_what_reads_stores_reads_these(tmp_path: Path) -> None:
    whole = infinite.kernels(LAYERS, X, **STDS).ntk
    assert whole is not None
    store = infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", **STDS)
    spectrum = ub.spectrum(store)
    np.testing.assert_allclose(np.sort(spectrum.eigenvalues), np.linalg.eigvalsh(whole), rtol=0, atol=1e-11)
    assert spectrum.verdict == "PSD"
    assert ub.alignment(store, whole) == pytest.approx(1.0, abs=1e-12)
    y = np.sin(X[:, :2])
    found = ub.predict.solve(store, y, diag_reg=1e-3, rank=10, tolerance=1e-10)
    system = whole + 1e-3 * np.trace(whole) / 21 * np.eye(21)
    np.testing.assert_allclose(system @ found.coefficients, y, rtol=0, atol=1e-8)


def test_the_bar_counts_blocks_and_has_no_rate_of_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = rich.console.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda stderr: terminal)
    infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", progress=True, **STDS)
    infinite.kernels(LAYERS, X, progress=True, **STDS)
    assert "100 %" in screen.getvalue()
    assert "FLOP" not in screen.getvalue()


def test_narrow_storage_states_its_error(tmp_path: Path) -> None:
    store = infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", storage="float32", **STDS)
    assert 0 < store.manifest["storage_error"] < 6e-8
    assert store.eps == np.finfo(np.float32).eps


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"w_std": 1.2}, StoreError, "w_std"),
        ({"parameterization": "standard"}, StoreError, "parameterization"),
        ({"get": "nngp"}, StoreError, "get"),
        ({"storage": "float32"}, StoreError, "storage"),
        ({"x": X + 1}, StoreError, "samples"),
        ({"model": [ub.Dense(4, 1)]}, StoreError, "network"),
    ],
)
def test_what_was_begun_is_gone_on_with_and_nothing_else(
    tmp_path: Path, options: dict[str, Any], error: type[UDLBridgeError], words: str
) -> None:
    path = infinite.compute_kernel(LAYERS, X, tmp_path / "K.zarr", **STDS).path
    given = {"model": LAYERS, "x": X, **STDS, **options}
    with pytest.raises(error, match=words):
        infinite.compute_kernel(path=path, resume=True, **given)


def test_weights_play_no_part(tmp_path: Path) -> None:
    one = ub.Model(LAYERS, dtype="float64")
    other = one.with_params({name: value + 1 for name, value in one.params.items()})
    path = infinite.compute_kernel(one, X, tmp_path / "K.zarr", **STDS).path
    assert infinite.compute_kernel(other, X, path, resume=True, **STDS).complete


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda path: infinite.compute_kernel([ub.Softmax()], X, path, **STDS), LayerError, "Softmax"),
        (lambda path: infinite.compute_kernel(LAYERS, X, path, get="both", **STDS), OptionError, "get"),
        (lambda path: infinite.compute_kernel(LAYERS, X, path, storage="int8", **STDS), OptionError, "storage"),
        (lambda path: infinite.compute_kernel(LAYERS, X, path, memory=1, **STDS), OptionError, "memory"),
        (lambda path: infinite.compute_kernel(LAYERS, X, path, w_std=0.0, b_std=0.0), OptionError, "w_std"),
        (lambda path: infinite.compute_kernel(LAYERS, X, path.with_suffix(".npy"), **STDS), StoreError, "npy"),
    ],
)
def test_what_cannot_be_leaves_nothing(
    tmp_path: Path, untyped: None, call: Callable[[Path], object], error: type[UDLBridgeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(tmp_path / "K.zarr")
    assert not list(tmp_path.iterdir())


def test_finite_and_infinite_stores_are_not_mixed_up(tmp_path: Path) -> None:
    wide = infinite.compute_kernel(LAYERS, X, tmp_path / "wide.zarr", **STDS)
    with pytest.raises(StoreError, match=r"infinite width.*InfiniteStore"):
        ub.KernelStore(wide.path)
    model = ub.Model(LAYERS, dtype="float64")
    finite = ub.compute_kernel(model, X, tmp_path / "finite.zarr", backend="reference")
    with pytest.raises(StoreError, match=r"finite network.*KernelStore"):
        infinite.InfiniteStore(finite.path)
    np.testing.assert_allclose(finite.columns(np.array([0, 9])), np.asarray(finite)[:, [0, 9]], rtol=1e-13)


def test_errors_name_what_mends_these_stores(tmp_path: Path) -> None:
    model, x = ub.Model([ub.Dense(4, 3)], dtype="float64"), np.random.default_rng(0).standard_normal((5, 4))
    store = infinite.compute_kernel(model, x, tmp_path / "K.zarr", **STDS)
    tile = next(file for file in (store.path / "kernel" / "c").rglob("*") if file.is_file())
    tile.write_bytes(tile.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"damaged.*InfiniteStore\(\".*K.zarr\"\).repair\(\)"):
        store.diagonal()
    assert infinite.InfiniteStore(store.path).repair() == 1
    (store.path / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"ub\.infinite\.compute_kernel\(\.\.\., resume=True\)"):
        store.model()
