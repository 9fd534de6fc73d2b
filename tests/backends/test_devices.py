"""Where torch has a GPU: kernels, stores and training there are those of the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget, random_model, samples
from modules import Recurrent, ResNet, Tied, UNet, Vision
from udlbridge import errors
from udlbridge.kernels import planning
from udlbridge.predict.classification import predicted_outputs

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


def test_operators(device: str) -> None:
    """Products, spectra, and what is predicted with a kernel, on the GPU as on the CPU."""
    operator = ub.ntk_operator(MODEL, X, backend="torch", device=device)
    kernel = ub.ntk(MODEL, X, backend="reference")
    assert_within_budget(operator @ np.eye(21, dtype="float32"), kernel)
    for dense_limit in (0, 1 << 20):
        found = ub.spectrum(MODEL, x=X, k=2, backend="torch", device=device, dense_limit=dense_limit, progress=False)
        np.testing.assert_allclose(found.eigenvalues[-2:], np.linalg.eigvalsh(kernel)[-2:], rtol=1e-5)
    coefficients = np.ones((21, 1))
    found = predicted_outputs(MODEL, X[:5], X, coefficients, outputs="trace", backend="torch", device=device)
    np.testing.assert_allclose(found, kernel[:5] @ coefficients, rtol=1e-4)


MODULES: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[], torch.Tensor]]] = {
    "ResNet": (lambda: ResNet(4, (1, 1), 3, 3), lambda: torch.randn(7, 3, 8, 8)),
    "Vision": (Vision, lambda: torch.randn(7, 2, 6, 6)),
    "Tied": (Tied, lambda: torch.randint(0, 7, (7, 5))),
    "UNet": (UNet, lambda: torch.randn(7, 1, 6, 6)),
    "Recurrent": (lambda: Recurrent(torch.nn.LSTM), lambda: torch.randn(7, 4, 3)),
}


@pytest.fixture(params=MODULES)
def module_and_samples(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, torch.Tensor]:
    make, draw = MODULES[request.param]
    torch.manual_seed(0)
    return make().eval(), draw()


@pytest.mark.parametrize("method", ["structured", "plain"])
def test_kernels_of_modules(device: str, module_and_samples: tuple[torch.nn.Module, torch.Tensor], method: str) -> None:
    """A module computes where it is, wherever its samples are, and where it is told to; it stays where it is."""
    module, x = module_and_samples
    there = copy.deepcopy(module).to(device)
    expected = ub.ntk(module, x, method="plain")
    scale = np.abs(expected).max()
    for network, given, where in ((module, x, device), (there, x, None), (there, x.to(device), None)):
        found = ub.ntk(network, given, method=method, device=where)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale)
    np.testing.assert_allclose(ub.ntk(there, x, method=method, device="cpu"), expected, rtol=0, atol=2e-5 * scale)
    assert {value.device.type for value in there.parameters()} == {device}
    assert {value.device.type for value in module.parameters()} == {"cpu"}


def test_operators_of_modules(device: str, module_and_samples: tuple[torch.nn.Module, torch.Tensor]) -> None:
    """Where the module is, and where it is told to."""
    module, x = module_and_samples
    there = copy.deepcopy(module).to(device)
    kernel = ub.ntk(module, x, method="plain")
    block = np.eye(len(kernel), dtype="float32")
    for network, where in ((module, device), (there, None), (there, "cpu")):
        found = ub.ntk_operator(network, x, device=where) @ block
        np.testing.assert_allclose(found, kernel, rtol=0, atol=2e-5 * np.abs(kernel).max())


def test_functions_of_modules(device: str, module_and_samples: tuple[torch.nn.Module, torch.Tensor]) -> None:
    module, x = module_and_samples
    there = copy.deepcopy(module).to(device)

    def close(found: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1.0, np.abs(expected).max()))

    close(ub.outputs(there, x), ub.outputs(module, x))
    found, expected = ub.jacobian(there, x), ub.jacobian(module, x)
    for name, block in expected.items():
        close(found[name], block)
    if x.is_floating_point():
        close(ub.input_jacobian(there, x), ub.input_jacobian(module, x))
    parts, others = ub.layer_kernels(there, x), ub.layer_kernels(module, x)
    for name, part in others.items():
        close(parts[name], part)
    close(ub.features(there, x), ub.features(module, x))
    operator, other = ub.ntk_operator(there, x), ub.ntk_operator(module, x)
    vector = np.random.default_rng(0).standard_normal(operator.shape[1]).astype("float32")
    close(operator @ vector, other @ vector)
    assert ub.check(there, x).ok


def test_stores_and_training_of_modules(device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = ResNet(4, (1, 1), 3, 3).eval(), torch.randn(12, 3, 8, 8)
    there = copy.deepcopy(module).to(device)
    store = ub.compute_kernel(there, x, tmp_path / "K.zarr", progress=False)
    assert store.manifest["device"].split(":")[0] == device
    np.testing.assert_allclose(np.asarray(store), ub.ntk(module, x), rtol=0, atol=2e-4 * np.asarray(store).max())
    y = np.random.default_rng(0).standard_normal((12, 3)).astype("float32")
    runs = [ub.train(one, x, y, epochs=3, loss="mse", seed=1, progress=False) for one in (module, there)]
    for name, value in runs[0].model.params.items():
        np.testing.assert_allclose(runs[1].model.params[name], value, rtol=1e-3, atol=1e-4)


def test_convolutions_round_where_products_may(device: str) -> None:
    """Torch rounds convolutions to TF32 by default, which is 1,000 times coarser than float32."""
    if device != "cuda" or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    torch.manual_seed(0)
    module, x = ResNet(16, (1, 1), 3, 3).eval(), torch.randn(8, 3, 16, 16)
    exact = ub.ntk(copy.deepcopy(module).double(), x.double())

    def gap() -> float:
        return float(np.abs(ub.ntk(module, x, device=device) - exact).max() / np.abs(exact).max())

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert gap() < 1e-5
    torch.set_float32_matmul_precision("high")
    try:
        assert 1e-5 < gap() < 1e-2
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_a_device_by_its_number_is_the_device(tmp_path: Path) -> None:
    """On every machine: the path that copies tiles from a device, with the CPU as one."""
    for outputs in (0, "trace", "diagonal", "full"):
        expected = ub.ntk(MODEL, X, outputs=outputs, backend="torch")
        assert_within_budget(ub.ntk(MODEL, X, outputs=outputs, backend="torch", device="cpu:0"), expected)
    store = ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="torch", device="cpu:0")
    assert store.manifest["device"] == "cpu:0"
    operator = ub.ntk_operator(MODEL, X, outputs=0, backend="torch", device="cpu:0")
    assert_within_budget(operator @ np.eye(21, dtype="float32"), ub.ntk(MODEL, X, outputs=0, backend="torch"))


@pytest.mark.parametrize("name", [name for name, there in PRESENT.items() if not there])
def test_a_device_that_is_not_there(name: str, tmp_path: Path) -> None:
    y, digits = np.zeros((21, 3), "float32"), (X, np.arange(21) % 3)
    for act in (
        lambda: ub.ntk(MODEL, X, backend="torch", device=name),
        lambda: ub.plan(MODEL, 9, backend="torch", device=name),
        lambda: ub.ntk_operator(MODEL, X, backend="torch", device=name),
        lambda: ub.spectrum(MODEL, x=X, backend="torch", device=name),
        # Before the engines that know no such device train.
        lambda: ub.study_alignment(digits, digits, backends="reference,torch", device=name, epochs=10**6),
        lambda: ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="torch", device=name),
        lambda: ub.train(MODEL, X, y, epochs=1, loss="mse", backend="torch", device=name),
    ):
        with pytest.raises(errors.OptionError, match=rf"device='{name}'.*cpu"):
            act()
    assert not (tmp_path / "K.zarr").exists()
