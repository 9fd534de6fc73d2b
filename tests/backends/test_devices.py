"""Where torch has a GPU: kernels, stores and training there are those of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, random_model, samples
from udlbridge import errors
from udlbridge.kernels import planning

torch = pytest.importorskip("torch")
MODEL = random_model([5, 7, 3], ["tanh", "identity"]).astype("float32")  # MPS has no float64
X = samples(MODEL, 21)
PRESENT = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.fixture(params=PRESENT)
def device(request: pytest.FixtureRequest) -> str:
    """Each kind of GPU that torch knows; skipped where there is none."""
    name: str = request.param
    if not PRESENT[name]:
        pytest.skip(f"torch has no {name} on this machine")
    return name


@pytest.mark.parametrize("method", ["structured", "plain"])
@pytest.mark.parametrize("outputs", [0, "trace", "sum", "diagonal", "full"])
def test_kernels(device: str, outputs: int | str, method: str) -> None:
    for x2 in (None, samples(MODEL, 13, 2)):
        expected = ub.ntk(MODEL, X, x2, outputs=outputs, backend="reference")
        assert_within_budget(
            ub.ntk(MODEL, X, x2, outputs=outputs, backend="torch", method=method, device=device), expected
        )


def test_stores(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGEST_TILE", 8)
    store = ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="torch", device=device, calibrate=True)
    assert store.manifest["device"] == device
    before = np.asarray(store)
    assert_within_budget(before, ub.ntk(MODEL, X, backend="reference"))
    (store.path / "kernel/c/2/1").unlink()
    store.repair()  # on the same device
    np.testing.assert_array_equal(np.asarray(store), before)
    store.append(samples(MODEL, 9, 3), device="cpu")
    assert [run["device"] for run in store.manifest["actual"]] == [device, device, "cpu"]
    assert store.compare_with_float64(3) < 1e-5


def test_training(device: str) -> None:
    y = np.random.default_rng(0).standard_normal((21, 3)).astype("float32")
    runs = [ub.train(MODEL, X, y, epochs=3, loss="mse", backend="torch", device=one, seed=1) for one in ("cpu", device)]
    for name, value in runs[0].model.params.items():
        np.testing.assert_allclose(runs[1].model.params[name], value, rtol=1e-4, atol=1e-5)


def test_a_device_by_its_number_is_the_device(tmp_path: Path) -> None:
    """On every machine: the path that copies tiles from a device, with the CPU as one."""
    for outputs in (0, "trace", "diagonal", "full"):
        expected = ub.ntk(MODEL, X, outputs=outputs, backend="torch")
        assert_within_budget(ub.ntk(MODEL, X, outputs=outputs, backend="torch", device="cpu:0"), expected)
    store = ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="torch", device="cpu:0")
    assert store.manifest["device"] == "cpu:0"


@pytest.mark.parametrize("name", [name for name, there in PRESENT.items() if not there])
def test_a_device_that_is_not_there(name: str, tmp_path: Path) -> None:
    y = np.zeros((21, 3), "float32")
    for act in (
        lambda: ub.ntk(MODEL, X, backend="torch", device=name),
        lambda: ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="torch", device=name),
        lambda: ub.train(MODEL, X, y, epochs=1, loss="mse", backend="torch", device=name),
    ):
        with pytest.raises(errors.OptionError, match=rf"device='{name}'.*cpu"):
            act()
    assert not (tmp_path / "K.zarr").exists()
