"""Recorded results of real Flux runs: every engine has to give them."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from helpers import GOLDENS, assert_within_budget, load_golden
from udlbridge.studies.recorded import flux

MLPS = sorted(path.stem for path in GOLDENS.glob("mlp_*.npz"))


def golden_model(spec: dict, params: dict[str, np.ndarray]) -> ub.Model:
    widths = spec["widths"]
    activations = [spec["activation"]] * (len(widths) - 2) + [spec["final"].split()[0]]
    layers: list = [ub.Dense(a, b, act) for a, b, act in zip(widths[:-1], widths[1:], activations, strict=True)]
    if spec["final"].endswith("softmax"):
        layers.append(ub.Softmax())
    return ub.Model(layers, params)


def test_every_activation_has_a_golden() -> None:
    assert len(MLPS) == 12


@pytest.mark.parametrize("name", [*MLPS, "notebook_method1", "mnist_3ls_float32", "mnist_3ls_float64"])
def test_golden(name: str, backend: str) -> None:
    spec, params, golden = load_golden(name)
    model = golden_model(spec, params)
    # The recordings of the MNIST networks have the bytes of the images divided by 255 in their own precision.
    x = golden["x"] if "x" in golden else ub.data.mnist("train", n=10, dtype=model.dtype.name)[0]
    assert_within_budget(ub.outputs(model, x, backend=backend), golden["outputs"])
    for method in ("structured", "plain"):
        kernel = ub.ntk(model, x, outputs="full", backend=backend, method=method)
        assert_within_budget(kernel, golden["ntk"])
    if "input_jacobian" in golden:
        assert_within_budget(ub.input_jacobian(model, x, backend=backend), golden["input_jacobian"])
    if "eigenvalues" in golden:
        values = np.array(ub.spectrum(ub.ntk(model, x, outputs=0, backend=backend)).eigenvalues)
        tolerance = (1e-12 if model.dtype == np.float64 else 1e-5) * golden["eigenvalues"][-1]
        np.testing.assert_allclose(values, golden["eigenvalues"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("recorded", "golden"), [("notebook_method1",) * 2, ("mnist_3ls", "mnist_3ls_float32")])
def test_the_recording_in_the_package_is_the_golden(recorded: str, golden: str) -> None:
    _, params, arrays = load_golden(golden)
    recording = flux(recorded)
    np.testing.assert_array_equal(recording.kernel, arrays["ntk"][:, :, 0, 0])
    np.testing.assert_array_equal(recording.outputs, arrays["outputs"])
    for name, value in params.items():
        np.testing.assert_array_equal(recording.model.params[name], value)
