"""Tiles, plans and kernel stores: nothing depends on the tile size, and nothing that was finished is ever lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import udlbridge as ub
from helpers import assert_within_budget, random_model, samples, udlbridge
from small_stores import MODEL, store_of, tile_path
from udlbridge import backends, errors
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.kernels import planning, tiling
from udlbridge.store import products
from udlbridge.store import writing as storing
from udlbridge.store.tile_files import DirectWriter

REDUCTIONS = (0, "trace", "mean", "sum", "diagonal", (2, 0), "full")


# --- tiles ---


@given(n=st.integers(1, 40), m=st.integers(1, 40), tile=st.integers(1, 50), symmetric=st.booleans())
def test_tiles_cover_every_entry_once(n: int, m: int, tile: int, symmetric: bool) -> None:
    m = n if symmetric else m
    grid = tiling.Grid(n, m, tile, symmetric)
    count = np.zeros((n, m), dtype=int)
    for one in grid.tiles():
        count[one.rows, one.columns] += 1
        assert one.shape == count[one.rows, one.columns].shape
    assert count.max() <= 1
    covered = count + count.T > 0 if symmetric else count == 1
    assert covered.all()
    assert grid.pairs == count.sum()


@pytest.mark.sampled
@settings(max_examples=20)
@given(n=st.integers(1, 30), tile=st.integers(1, 33), cached=st.integers(2, 6), outputs=st.sampled_from(REDUCTIONS))
@pytest.mark.parametrize(("engine", "strip"), [("torch", None), ("torch", 3), ("reference", None)])
def test_nothing_depends_on_the_tile_size(
    engine: str, strip: int | None, n: int, tile: int, cached: int, outputs: Outputs
) -> None:
    x = samples(MODEL, n)
    reduction = checked_reduction(outputs, 3)
    job = KernelJob(MODEL, reduction)
    with pytest.MonkeyPatch.context() as patch:
        if strip is not None:  # diagonal tiles are done in strips of rows
            patch.setattr("udlbridge.backends.pytorch.products.STRIP", strip)
        result = in_tiles(engine, job, x, tile, cached)
    whole = ub.ntk(MODEL, x, outputs=outputs, backend=engine)
    assert_within_budget(result, whole)
    np.testing.assert_array_equal(result, tiling.transposed(result))


def in_tiles(engine: str, job: KernelJob, x: np.ndarray, tile: int, cached: int) -> np.ndarray:
    """The kernel of `x`, put together from tiles."""
    n, trailing = len(x), job.reduction.trailing
    grid = tiling.Grid(n, n, tile, True)
    computer = tiling.TileComputer(backends.get(engine), job, x, None, grid, cached)
    result = np.full((n, n, *trailing), np.nan)
    for one in grid.tiles():
        computer.compute(one, result[one.rows, one.columns])
        if one.row != one.column:
            tiling.mirror(result, one)
    return result


@pytest.mark.usefixtures("small_tiles")
def test_tiles_in_every_engine(backend: str) -> None:
    x, x2 = samples(MODEL, 21, 1), samples(MODEL, 13, 2)
    for outputs in REDUCTIONS:
        expected = ub.ntk(MODEL, x, x2, outputs=outputs, backend="reference")
        assert_within_budget(ub.ntk(MODEL, x, x2, outputs=outputs, backend=backend), expected)
        plain = ub.ntk(MODEL, x, x2, outputs=outputs, backend=backend, method="plain")
        assert_within_budget(plain, expected)


# --- plans ---


def test_structured_never_costs_more_than_plain() -> None:
    for model, shape in (
        (MODEL, (5,)),
        (ub.Model([ub.Dense(1, 1)]), (1,)),
        (ub.Model([ub.Dense(3, 2), ub.Flatten(), ub.Dense(4, 1)]), (2, 3)),
        (ub.Model([ub.Conv2d(1, 4, 3), ub.Flatten(), ub.Dense(4 * 36, 2)]), (1, 8, 8)),
    ):
        costs = {}
        for method in ("auto", "structured", "plain"):
            plan = ub.plan(model, 100, sample_shape=shape, backend="reference", method=method, calibrate=False)
            costs[method] = plan.flops
        assert costs["auto"] == costs["structured"] <= costs["plain"]


def test_plan_of_the_notebook() -> None:
    """The design's own numbers: 60,000 images, 1.8e9 pairs of about 1,034 multiply-adds."""
    plan = ub.plan(ub.models.three_layer_sigmoid(), 60_000, outputs=0, backend="torch", calibrate=False)
    assert plan.method == "structured"
    np.testing.assert_allclose(plan.flops, 60_000**2 / 2 * 2 * 1037, rtol=0.05)
    assert plan.ram_bytes <= plan.memory
    assert 7.2e9 < plan.disk_bytes < 7.9e9
    for word in ("structured", "GFLOP", "2 GB allowed", "disk"):
        assert word in str(plan)


@given(memory=st.integers(80, 4000), n=st.integers(1, 100_000), outputs=st.sampled_from(REDUCTIONS))
def test_plans_stay_within_the_memory(memory: int, n: int, outputs: Outputs) -> None:
    model = ub.models.three_layer_sigmoid()
    try:
        plan = ub.plan(model, n, outputs=outputs, backend="torch", memory=f"{memory}MB", calibrate=False)
    except errors.OptionError:
        return  # too little for the smallest tile; the message is tested below
    assert plan.ram_bytes <= plan.memory
    assert plan.cached_blocks >= 2


def test_calibration_predicts_a_time() -> None:
    plan = ub.plan(MODEL, 300, backend="reference")
    assert plan.seconds is not None
    assert plan.gflops is not None
    np.testing.assert_allclose(plan.flops / plan.seconds / 1e9, plan.gflops)
    assert "calibrated" in str(plan)


def test_bad_amounts_of_memory() -> None:
    for bad in ("much", "-1GB", "0", "3 parsecs"):
        with pytest.raises(errors.OptionError, match='as "2GB"'):
            ub.plan(MODEL, 10, backend="reference", memory=bad)
    with pytest.raises(errors.OptionError, match=r"at least .*MB for this network"):
        ub.plan(MODEL, 10, backend="reference", memory="1MB")


@pytest.mark.slow
def test_memory_bound_holds(tmp_path: Path) -> None:
    """The peak resident size of a fresh process over its baseline, for a bound far below what the kernel would take."""
    code = (
        "import sys, resource, numpy as np, udlbridge as ub\n"
        "model = ub.models.three_layer_sigmoid()\n"
        "x = np.random.default_rng(0).random((12000, 784)).astype(np.float32)\n"
        "ub.ntk(model, x[:100], outputs=0, backend='torch', threads=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"path = {str(tmp_path / 'K.zarr')!r}\n"
        "ub.compute_kernel(model, x, path, outputs=0, backend='torch', threads=1, memory='150MB')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150e6  # the kernel alone is 576 MB, the factors 50 MB
    assert ub.KernelStore(tmp_path / "K.zarr").complete


# --- stores ---


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("outputs", REDUCTIONS)
def test_a_store_reads_like_the_kernel(tmp_path: Path, outputs: Outputs) -> None:
    store = store_of(tmp_path / "K.zarr", outputs=outputs)
    kernel = ub.ntk(MODEL, samples(MODEL, 21), outputs=outputs, backend="reference")
    assert store.shape == kernel.shape
    assert store.dtype == kernel.dtype
    assert_within_budget(np.asarray(store), kernel)
    whole = np.asarray(store)
    for key in (np.s_[3:17, 5:9], np.s_[0:21, 20:21], np.s_[9:2, 0:3], np.s_[4], np.s_[-1], np.s_[2, 7:], np.s_[:8]):
        np.testing.assert_array_equal(store[key], whole[key])
    np.testing.assert_array_equal(store[3, 4], whole[3, 4])
    index = np.arange(21)
    np.testing.assert_array_equal(store.diagonal(), whole[index, index])


@pytest.mark.usefixtures("small_tiles")
def test_a_store_times_vectors(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    vectors = np.random.default_rng(0).standard_normal((21, 2))
    np.testing.assert_allclose(store @ vectors, np.asarray(store) @ vectors, rtol=1e-12)
    np.testing.assert_allclose(store @ vectors[:, 0], np.asarray(store) @ vectors[:, 0], rtol=1e-12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "bfloat16"])
def test_strips_of_a_tile_are_the_tile(tmp_path: Path, storage: str) -> None:
    """Whatever their height; also of tiles at the edge, whose files are filled up."""
    store = store_of(tmp_path / "K.zarr", storage=storage)
    for tile in store.grid.tiles():
        whole = store.read_tile(tile)
        for height in (1, 3, store.grid.tile, 100):
            strips = [strip.copy() for strip in store.read_strips(tile, height)]
            assert max(len(strip) for strip in strips) == min(height, len(whole))
            np.testing.assert_array_equal(np.concatenate(strips), whole)


@pytest.mark.usefixtures("small_tiles")
def test_products_read_what_is_proved(tmp_path: Path) -> None:
    """A damaged byte, a tile in the place of another, a short file, and one that is not there."""
    store = store_of(tmp_path / "K.zarr")
    tiles = list(store.grid.tiles())
    file, other = tile_path(store, tiles[1]), tile_path(store, tiles[3])
    whole = file.read_bytes()
    for content, words in (
        (bytes([whole[0] ^ 1]) + whole[1:], "its checksum is"),
        (other.read_bytes(), "another tile has it"),
        (whole[:-1], "bytes in the place of"),
        (None, "is missing, the file of tile"),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(errors.StoreError, match=words):
            ub.KernelStore(store.path) @ np.ones(21)
    file.write_bytes(whole)
    np.testing.assert_array_equal(ub.KernelStore(store.path) @ np.ones(21), store @ np.ones(21))


@pytest.mark.usefixtures("small_tiles")
def test_products_hold_a_strip_and_not_a_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, heights = store_of(tmp_path / "K.zarr"), []
    vector = np.random.default_rng(0).standard_normal(21)
    read = ub.KernelStore.read_strips

    def noted(self: ub.KernelStore, tile: tiling.Tile, height: int) -> Iterator[np.ndarray]:
        heights.append(height)
        return read(self, tile, height)

    monkeypatch.setattr(products, "STRIP", 2 * store.grid.tile)
    monkeypatch.setattr(ub.KernelStore, "read_strips", noted)
    np.testing.assert_allclose(store @ vector, np.asarray(store) @ vector, rtol=1e-12)
    assert set(heights) == {2}


@pytest.mark.usefixtures("small_tiles")
def test_the_upper_triangle_is_not_stored(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    chunks = {tuple(map(int, p.parts[-2:])) for p in (tmp_path / "K.zarr/kernel/c").glob("*/*")}
    assert chunks == {(i, j) for i in range(3) for j in range(i + 1)}
    assert store.stored_bytes() == 6 * (8 * 8 * 8 + 4)  # float64 entries and a CRC of four bytes


@pytest.mark.usefixtures("small_tiles")
def test_manifest(tmp_path: Path) -> None:
    manifest = store_of(tmp_path / "K.zarr", outputs=1).manifest
    assert manifest["model"] == MODEL.hash()
    assert manifest["data"] == storing.data_hash(samples(MODEL, 21))
    assert (manifest["outputs"], manifest["dtype"], manifest["tile"], manifest["format"]) == (1, "float64", 8, 2)
    assert (manifest["backend"], manifest["complete"]) == ("reference", True)
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["plan"]["flops"] > 0
    run = manifest["actual"][0]
    assert run["tiles"] == 6
    assert run["seconds"] > 0


@pytest.mark.usefixtures("small_tiles")
def test_opening_with_another_model_or_other_data(tmp_path: Path) -> None:
    store_of(tmp_path / "K.zarr")
    other = random_model([5, 7, 3], ["tanh", "identity"], seed=9)
    with pytest.raises(errors.StoreError, match="other network"):
        ub.KernelStore(tmp_path / "K.zarr", model=other)
    with pytest.raises(errors.StoreError, match="other samples"):
        ub.KernelStore(tmp_path / "K.zarr", model=MODEL, x=samples(MODEL, 21, seed=5))
    with pytest.raises(errors.StoreError, match="other network"):
        ub.compute_kernel(other, samples(MODEL, 21), tmp_path / "K.zarr", backend="reference", resume=True)
    with pytest.raises(errors.StoreError, match=r"outputs='trace'"):
        store_of(tmp_path / "K.zarr", outputs=0, resume=True)
    with pytest.raises(errors.StoreError, match=r"exists.*--resume"):
        store_of(tmp_path / "K.zarr")
    with pytest.raises(errors.StoreError, match="not a kernel store"):
        ub.KernelStore(tmp_path / "absent.zarr")


@pytest.mark.parametrize(("storage", "eps"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7), (None, 2.0**-23)])
def test_the_spectrum_of_a_narrow_store_is_judged_by_its_rounding(
    tmp_path: Path, storage: str | None, eps: float
) -> None:
    """Stored narrowly, eigenvalues are negative by far more than by float32's rounding: no verdict on the kernel."""
    x = samples(MODEL, 60).astype(np.float32)
    store = ub.compute_kernel(
        MODEL.astype("float32"), x, tmp_path / "K.zarr", outputs=0, backend="reference", storage=storage
    )
    for found in (ub.spectrum(store), ub.spectrum(store, 5, dense_limit=0)):
        assert (found.eps, found.dtype) == (eps, "float32")
        assert found.tolerance == pytest.approx(10 * 60**0.5 * eps * found.eigenvalues[-1])
        assert found.verdict in ("PSD", "rounding")
        assert (f"stored to eps = {eps:.2g}" in str(found)) == (storage is not None)
    assert (ub.spectrum(np.asarray(store)).verdict == "not PSD") == (storage is not None)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("storage", "bound"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8), ("float32", 2.0**-24)])
def test_narrow_storage_states_its_error(tmp_path: Path, storage: str, bound: float) -> None:
    narrow = MODEL.astype("float32")
    x = samples(MODEL, 21).astype(np.float32)
    store = ub.compute_kernel(narrow, x, tmp_path / "K.zarr", backend="reference", storage=storage)
    kernel = ub.ntk(narrow, x, backend="reference")
    error = float(np.abs(np.asarray(store) - kernel).max() / np.abs(kernel).max())
    assert error <= max(store.manifest["storage_error"], 1e-6)
    assert store.manifest["storage_error"] <= bound
    assert np.asarray(store).dtype == np.float32
    itemsize = 2 if "16" in storage else 4
    assert store.stored_bytes() == 6 * (64 * itemsize + 4)


def test_storage_that_makes_no_sense(tmp_path: Path) -> None:
    narrow, x = MODEL.astype("float32"), samples(MODEL, 5).astype(np.float32)
    for storage in ("int8", "float64"):
        with pytest.raises(errors.OptionError, match="bfloat16"):
            ub.compute_kernel(narrow, x, tmp_path / "K.zarr", backend="reference", storage=storage)
    linear = ub.Model([ub.Dense(5, 3)])  # its kernel is |x|^2 + 1, beyond the 65,504 of float16
    with pytest.raises(errors.StoreError, match="does not fit into float16"):
        ub.compute_kernel(linear, x * 1000, tmp_path / "L.zarr", backend="reference", storage="float16")


@pytest.mark.usefixtures("small_tiles")
def test_large_arrays_are_refused(tmp_path: Path) -> None:
    store_of(tmp_path / "K.zarr")
    store = ub.KernelStore(tmp_path / "K.zarr", memory="1KB")
    with pytest.raises(errors.StoreError, match=r"3.53 kB.*read slices"):
        np.asarray(store)
    assert store[0:5, 0:5].shape == (5, 5)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("after", [0, 1, 4])
def test_interrupted_anywhere_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    whole = store_of(tmp_path / "whole.zarr")
    compute, count = tiling.TileComputer.compute, 0

    def failing(self: tiling.TileComputer, tile: tiling.Tile, out: np.ndarray) -> None:
        nonlocal count
        if count == after:
            raise Killed
        count += 1
        compute(self, tile, out)

    with monkeypatch.context() as patch:
        patch.setattr(tiling.TileComputer, "compute", failing)
        with pytest.raises(Killed):
            store_of(tmp_path / "K.zarr")
    opened = ub.KernelStore(tmp_path / "K.zarr")
    assert not opened.complete
    assert opened.verify().good == after
    if after < 6:
        with pytest.raises(errors.StoreError, match=r"is not there.*--repair"):
            np.asarray(opened)
    resumed = store_of(tmp_path / "K.zarr", resume=True)
    assert resumed.manifest["actual"][-1]["tiles"] == 6 - after
    for path in (whole.path / "kernel" / "c").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (resumed.path / path.relative_to(whole.path)).read_bytes()


@pytest.mark.slow
def test_killed_by_sigkill_and_resumed(tmp_path: Path) -> None:
    """A real process, killed as soon as its first tiles are on disk; the lock that it held is free afterwards."""
    code = (
        "import numpy as np, udlbridge as ub\n"
        "from udlbridge.kernels import planning; planning.LARGEST_TILE = 64\n"
        "x = np.random.default_rng(0).random((3000, 784)).astype(np.float32)\n"
        f"ub.compute_kernel(ub.models.three_layer_sigmoid(), x, {str(tmp_path / 'K.zarr')!r}, outputs=0,\n"
        "                  backend='reference', threads=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    chunks = tmp_path / "K.zarr" / "kernel" / "c"
    while process.poll() is None and not list(chunks.glob("3/*")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = ub.KernelStore(tmp_path / "K.zarr")
    found = store.verify()
    assert found.good >= 4
    assert not found.damaged
    if found.missing:
        assert not store.complete
    repaired = store.repair(threads=1)
    assert repaired == len(found.missing)
    x = store.samples()
    expected = ub.ntk(store.model(), x[:100], x[-100:], outputs=0, backend="torch")
    assert_within_budget(store[:100, -100:].copy(), expected)


@pytest.mark.usefixtures("small_tiles")
def test_damaged_tiles_are_found_and_repaired(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    before = np.asarray(store)
    flipped = tmp_path / "K.zarr/kernel/c/2/1"
    content = bytearray(flipped.read_bytes())
    content[100] ^= 1
    flipped.write_bytes(content)
    truncated = tmp_path / "K.zarr/kernel/c/1/1"
    truncated.write_bytes(truncated.read_bytes()[:50])
    (tmp_path / "K.zarr/kernel/c/0/0").unlink()
    found = store.verify()
    assert (found.good, set(found.damaged), found.missing) == (3, {(2, 1), (1, 1)}, ((0, 0),))
    with pytest.raises(errors.StoreError, match=r"tile \(2, 1\).*damaged.*--repair"):
        store[16:, 8:16]
    assert store.repair() == 3
    assert store.verify().ok
    np.testing.assert_array_equal(np.asarray(store), before)


@pytest.mark.usefixtures("small_tiles")
def test_the_second_writer_is_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    code = (
        "import sys, udlbridge as ub\n"
        f"store = ub.KernelStore({str(store.path)!r})\n"
        "try: store.repair()\n"
        "except ub.UDLBridgeError as error: sys.exit(str(error))\n"
    )
    with store.writing():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "another process is writing" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("small_tiles")
def test_full_disk_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(errors.StoreError, match=r"needs .* on disk, .* has 1 kB.*float16"):
        store_of(tmp_path / "K.zarr")
    assert not (tmp_path / "K.zarr").exists()


@pytest.mark.usefixtures("small_tiles")
def test_full_disk_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = storing.WritableStore.write_tile, 0

    def full(self: storing.WritableStore, tile: tiling.Tile, block: np.ndarray) -> float:
        nonlocal count
        count += 1
        if count == 3:
            monkeypatch.setattr(DirectWriter, "write", no_space)
        return write(self, tile, block)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storing.WritableStore, "write_tile", full)
        with pytest.raises(errors.StoreError, match=r"No space left.*--repair"):
            store_of(tmp_path / "K.zarr")
    monkeypatch.undo()
    monkeypatch.setattr(planning, "LARGEST_TILE", 8)
    assert store_of(tmp_path / "K.zarr", resume=True).manifest["actual"][-1]["tiles"] == 4


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("n", [16, 21])
def test_append_computes_the_new_rows_alone(tmp_path: Path, n: int) -> None:
    x = samples(MODEL, n + 9)
    store = ub.compute_kernel(MODEL, x[:n], tmp_path / "K.zarr", backend="reference")
    store.append(x[n:])
    assert store.shape == (n + 9, n + 9)
    assert store.complete
    old_full_rows = n // 8
    computed = store.manifest["actual"][-1]["tiles"]
    assert computed == len(list(store.grid.tiles(old_full_rows)))
    assert_within_budget(np.asarray(store), ub.ntk(MODEL, x, backend="reference"))
    assert ub.KernelStore(store.path, model=MODEL, x=x).verify().ok


@pytest.mark.usefixtures("small_tiles")
def test_verify_against_float64(tmp_path: Path) -> None:
    narrow, x = MODEL.astype("float32"), samples(MODEL, 21).astype(np.float32)
    store = ub.compute_kernel(narrow, x, tmp_path / "K.zarr", backend="torch")
    worst = store.compare_with_float64(6)
    assert 0 < worst < 1e-5
    for tile in store.grid.tiles(2):
        store.write_tile(tile, np.ones(tile.shape, np.float32))
    assert store.compare_with_float64(6) > 1e-3


@pytest.mark.julia
@pytest.mark.usefixtures("small_tiles")
def test_julia_writes_the_same_store(tmp_path: Path) -> None:
    x = samples(MODEL, 21)
    store = ub.compute_kernel(MODEL, x, tmp_path / "K.zarr", backend="julia", threads=2)
    assert_within_budget(np.asarray(store), ub.ntk(MODEL, x, backend="reference"))
    assert "Flux" in store.manifest["versions"]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("outputs", [0, "trace"])
def test_spectrum_of_a_store_by_products(tmp_path: Path, outputs: Outputs) -> None:
    """Both ends of the spectrum from the store's own products, against LAPACK on the whole matrix."""
    store = store_of(tmp_path / "K.zarr", n=60, outputs=outputs)
    assert store.rank_bound == MODEL.n_params * (1 if outputs == 0 else 3)
    whole = ub.spectrum(np.asarray(store))
    partial = ub.spectrum(store, 5, dense_limit=1)
    assert partial.rank_bound == min(60, store.rank_bound)
    assert whole.complete
    assert not partial.complete
    np.testing.assert_allclose(partial.eigenvalues[-5:], whole.eigenvalues[-5:], rtol=1e-9)
    assert partial.verdict in ("PSD", "rounding")
    np.testing.assert_array_equal(ub.spectrum(store).eigenvalues, whole.eigenvalues)


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    target = tmp_path / "K.zarr"
    kernel = ("kernel", "--n", 50, "--outputs", 0, "--backend", "reference")
    planned = udlbridge(*kernel, "--plan")
    assert "structured" in planned.stdout, planned.stderr
    done = udlbridge(*kernel, "--out", target, "--verify", 1)
    assert done.returncode == 0, done.stderr
    assert "1 random tile against float64" in done.stdout
    assert udlbridge(*kernel, "--out", target).returncode == 2
    assert udlbridge(*kernel, "--out", target, "--resume").returncode == 0
    assert udlbridge("store", "verify", target).stdout.startswith("1 tile is whole, 0 damaged, 0 missing")
    (target / "kernel/c/0/0").unlink()
    assert udlbridge("store", "verify", target).returncode == 1
    assert udlbridge("store", "verify", target, "--repair").returncode == 0
    np.save(tmp_path / "new.npy", ub.data.mnist("train", n=60)[0][50:])
    assert "(60, 60)" in udlbridge("store", "append", target, tmp_path / "new.npy").stdout
    assert udlbridge("store", "info", target).returncode == 0
    assert udlbridge("spectrum", target).stdout.startswith("PSD: 60 eigenvalues")
    x = ub.data.mnist("train", n=60)[0]
    expected = ub.ntk(ub.models.three_layer_sigmoid(), x, outputs=0, backend="torch")
    ub.testing.assert_kernels_close(np.asarray(ub.KernelStore(target)), expected)


def test_ctrl_c_is_exit_code_130_and_resumable(tmp_path: Path) -> None:
    target = tmp_path / "K.zarr"
    code = (
        # Started in the background, a process ignores Ctrl-C; here it is meant, wherever the tests run.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys\nfrom udlbridge.kernels import planning\nplanning.LARGEST_TILE = 64\n"
        f"sys.argv = ['udlbridge', 'kernel', '--n', '1000', '--outputs', '0', '--backend', 'reference', "
        f"'--threads', '1', '--out', {str(target)!r}]\n"
        "from udlbridge.kernels import tiling\ncompute, count = tiling.TileComputer.compute, []\n"
        "def slow(self, tile, out):\n"
        "    count.append(1)\n"
        "    if len(count) == 10: import signal, os; os.kill(os.getpid(), signal.SIGINT)\n"
        "    compute(self, tile, out)\n"
        "tiling.TileComputer.compute = slow\n"
        "from udlbridge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    store = ub.KernelStore(target)
    found = store.verify()
    assert not found.damaged
    assert found.good >= 8
    assert found.missing
    store.repair(threads=1)
    assert store.verify().ok


def test_columns_of_a_store_whose_device_is_not_here(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr", backend="torch")
    store.manifest["device"] = "mps:9" if sys.platform != "darwin" else "cuda"
    assert_within_budget(store.columns(np.array([3, 0])), store[:][:, [3, 0]])
