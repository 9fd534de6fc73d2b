"""What the manifest says of a computation is what happened, and options do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import udlbridge as ub
from helpers import assert_within_budget, numbers_of_a_fresh_process
from small_stores import MODEL, X, store_of
from udlbridge import backends, errors
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import checked_reduction
from udlbridge.backends.reference import engine as reference
from udlbridge.kernels import calibration
from udlbridge.store import computing, products
from udlbridge.store import samples as stored_samples
from udlbridge.store.peak_memory import PeakMemory

pytestmark = pytest.mark.usefixtures("small_tiles")


# --- figures ---


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "float64"])
def test_the_stated_error_of_storage_is_the_largest(tmp_path: Path, storage: str) -> None:
    """Of a float64 kernel: float32 is narrower too."""
    store = store_of(tmp_path / "K.zarr", storage=storage)
    whole = store_of(tmp_path / "whole.zarr")
    error = 0.0
    for (_, narrow), (_, exact) in zip(store.tiles(), whole.tiles(), strict=True):
        error = max(error, float(np.abs(narrow - exact).max() / np.abs(exact).max()))
    assert store.manifest["storage_error"] == error
    assert (error > 0) == (storage != "float64")


@pytest.mark.parametrize("storage", [None, "float16"])
def test_bytes_written_are_those_on_disk(tmp_path: Path, storage: str | None) -> None:
    store = store_of(tmp_path / "K.zarr", storage=storage)
    assert store.manifest["actual"][0]["bytes_written"] == store.stored_bytes()


def test_peak_memory_is_that_of_the_run(tmp_path: Path) -> None:
    np.ones(50_000_000).sum()  # 400 MB, gone before
    assert store_of(tmp_path / "K.zarr").manifest["actual"][0]["peak_rss_over_baseline"] < 200e6
    with PeakMemory() as memory:
        for _ in range(20):
            np.ones(10_000_000).sum()
    assert 60e6 < memory.over_baseline < 200e6


def test_the_prediction_is_kept(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr", calibrate=True)
    begun = store.manifest["plan"]
    first = store.manifest["actual"][0]
    assert begun["seconds"] > 0
    assert first["predicted_seconds"] == pytest.approx(begun["seconds"])
    assert (first["backend"], first["device"], first["threads"]) == ("reference", "cpu", None)
    (store.path / "kernel/c/2/1").unlink()
    store.repair(backend="torch", threads=1)
    run = store.manifest["actual"][1]
    assert store.manifest["plan"] == begun
    assert 0 < run["predicted_seconds"] < first["predicted_seconds"]
    assert (run["backend"], run["threads"], run["tiles"]) == ("torch", 1, 1)
    assert store.repair() == 0
    assert len(store.manifest["actual"]) == 2  # nothing was done
    store.append(X[21:30])
    grown = store.manifest["plan"]
    assert grown["n"] == 30
    assert grown["gflops"] == begun["gflops"]
    assert grown["seconds"] == pytest.approx(grown["flops"] / grown["gflops"] / 1e9)
    assert 0 < store.manifest["actual"][2]["predicted_seconds"] < grown["seconds"]


def test_long_work_is_predicted_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_of(tmp_path / "short.zarr").manifest["plan"]["seconds"] is None
    monkeypatch.setattr(computing, "CALIBRATED_FROM", 1.0)
    monkeypatch.setattr(calibration, "CALIBRATION_SECONDS", 0.05)
    assert store_of(tmp_path / "long.zarr").manifest["plan"]["seconds"] > 0
    assert store_of(tmp_path / "never.zarr", calibrate=False).manifest["plan"]["seconds"] is None


# --- threads ---


def test_products_take_the_threads_and_the_memory_that_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store_of(tmp_path / "K.zarr", 40).path
    expected = np.asarray(ub.KernelStore(path)) @ np.ones(40)
    taken: list[int] = []
    pool = products.ThreadPoolExecutor

    def noted(workers: int) -> object:
        taken.append(workers)
        return pool(workers)

    monkeypatch.setattr(products, "ThreadPoolExecutor", noted)
    tile = 2 * 8 * 8 * 8  # as it is read, and as it is multiplied
    for threads, memory, allowed in ((3, "2GB", 3), (1, "2GB", 1), (3, 2 * tile, 2), (3, 1, 1), (9, "2GB", 5)):
        with threadpool_limits(threads, user_api="blas"):
            if threads > max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"):
                continue  # a BLAS that has fewer
            np.testing.assert_allclose(ub.KernelStore(path, memory=memory) @ np.ones(40), expected, rtol=1e-12)
        assert taken.pop() == allowed
    ub.spectrum(ub.KernelStore(path), 3, dense_limit=0, threads=1)
    assert set(taken) == {1}


def test_the_reference_engine_keeps_to_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = reference.forward

    def noted(*args: object) -> object:
        seen.append(max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
        return forward(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "forward", noted)
    with threadpool_limits(2, user_api="blas"):
        ub.ntk(MODEL, X, backend="reference", threads=1)
    assert set(seen) == {1}


# --- memory ---


@pytest.mark.parametrize("outputs", [0, "trace", "full"])
@pytest.mark.parametrize("method", ["structured", "plain"])
def test_nothing_depends_on_how_many_samples_go_through_together(
    monkeypatch: pytest.MonkeyPatch, outputs: int | str, method: str
) -> None:
    whole = ub.ntk(MODEL, X, outputs=outputs, backend="reference", method=method)
    monkeypatch.setattr(reference, "STRETCH_NUMBERS", 100)
    job = KernelJob(MODEL, checked_reduction(outputs, 3))
    assert 1 < reference.stretch(job, X) < 20
    assert_within_budget(ub.ntk(MODEL, X, outputs=outputs, backend="reference", method=method), whole)


@pytest.mark.slow
def test_making_a_store_takes_little_besides_the_samples(tmp_path: Path) -> None:
    """In a fresh process, up to the first tile; the samples are 63 MB."""
    code = (
        "import numpy as np, udlbridge as ub\n"
        "from udlbridge.store import computing\nfrom udlbridge.store.peak_memory import PeakMemory\n"
        "model = ub.Model([ub.Dense(784, 3)])\n"
        "x = np.random.default_rng(0).random((20_000, 784), dtype=np.float32)\n"
        f"path, options = {str(tmp_path)!r}, {{'backend': 'reference', 'threads': 1, 'memory': '150MB'}}\n"
        "store = ub.compute_kernel(model, x[:9], path + '/small.zarr', **options)\n"
        "computing.fill = lambda *_: None\n"
        "with PeakMemory() as memory: store = ub.compute_kernel(model, x, path + '/K.zarr', **options)\n"
        "print(memory.over_baseline)\n"
        "with PeakMemory() as memory: ub.compute_kernel(model, x, path + '/K.zarr', resume=True, **options)\n"
        "print(memory.over_baseline)"
    )
    for peak in numbers_of_a_fresh_process(code):
        assert peak < 40e6  # of these, 16 for the check that all are finite


def test_samples_are_written_one_chunk_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_samples, "SAMPLES_BYTES", 4 * X[0].nbytes)
    store = store_of(tmp_path / "K.zarr", 22)
    assert len(list((store.path / "x/c").glob("*/*"))) == 6
    store.append(X[22:35])
    np.testing.assert_array_equal(ub.KernelStore(store.path, x=X[:35]).samples(), X[:35])
    assert len(list((store.path / "x/c").glob("*/*"))) == 9


# --- options ---


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr", threads=np.int64(1), outputs=np.int64(0))
    found = ub.spectrum(store, np.int64(3), dense_limit=np.int64(0), max_products=np.int64(20), threads=np.int64(1))
    assert len(found.largest) == 3
    ub.ntk_operator(MODEL, X, outputs=0, backend="reference", threads=np.int64(1)) @ X[:, 0]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_numbers_of_threads_that_cannot_be(threads: object, backend: str) -> None:
    for act in (
        lambda: ub.ntk(MODEL, X, backend=backend, threads=threads),
        lambda: ub.plan(MODEL, 10, backend=backend, threads=threads),
        lambda: ub.ntk_operator(MODEL, X, backend=backend, threads=threads),
        lambda: ub.spectrum(np.eye(3), threads=threads),
    ):
        with pytest.raises(errors.OptionError, match=rf"threads={threads!r}.*at least 1"):
            act()


@pytest.mark.parametrize(("n", "m"), [(0, None), (-3, None), (3.5, None), ("60000", None), (3, 0)])
def test_plans_of_no_samples(n: object, m: object) -> None:
    with pytest.raises(errors.OptionError, match=r"[nm]=.*at least 1"):
        ub.plan(MODEL, n, m, backend="reference", calibrate=False)  # type: ignore[arg-type]


# --- reading ---


def test_indices_that_a_store_does_not_have(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    for key in (..., [1, 2], np.array([1, 2]), None, 1.5, (slice(None), ...)):
        with pytest.raises(errors.StoreError, match="integers and slices"):
            store[key]
    with pytest.raises(IndexError):
        store[100]
    np.testing.assert_array_equal(store[np.int64(3), 2], np.asarray(store)[3, 2])


def test_what_a_store_is_not_multiplied_with(tmp_path: Path) -> None:
    store = store_of(tmp_path / "K.zarr")
    for other in (2.0, np.ones(3), np.ones((21, 2, 2)), 1j * np.ones(21), np.ones(0)):
        with pytest.raises(errors.StoreError, match="real numbers"):
            store @ other  # type: ignore[operator]
    with pytest.raises(errors.DTypeError, match="array of numbers"):
        store @ "a"  # type: ignore[operator]
    with pytest.raises(errors.StoreError, match="imaginary"):
        store @ (1j * np.ones(21))
    with pytest.raises(errors.InputError, match="imaginary"):
        ub.ntk_operator(MODEL, X, backend=backends.usable()[-1]) @ (1j * np.ones(60))
