"""Conjugate gradients against Cholesky, of arrays, stores and operators; interrupted, resumed, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import udlbridge as ub
from udlbridge.cli.predict import command
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError, UDLBridgeError
from udlbridge.predict.classification import centred_targets, predicted_outputs
from udlbridge.predict.columns import UnitKernel

MODEL = ub.Model([ub.Dense(6, 16, "tanh"), ub.Dense(16, 3)], dtype="float64")
X = np.random.default_rng(0).standard_normal((120, 6))
Y = np.random.default_rng(1).standard_normal((120, 4))


def by_cholesky(k: np.ndarray, y: np.ndarray, diag_reg: float) -> np.ndarray:
    return np.linalg.solve(k + diag_reg * np.trace(k) / len(k) * np.eye(len(k)), y)


@pytest.mark.parametrize("rank", [0, 40, None])
def test_an_array(rank: int | None) -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    found = ub.predict.solve(k, Y, diag_reg=1e-3, rank=rank, tolerance=1e-10)
    expected = by_cholesky(k, Y, 1e-3)
    np.testing.assert_allclose(found.coefficients, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert found.rank == {0: 0, 40: 40, None: 120}[rank]
    assert (found.residuals < 1e-9).all()


def test_the_preconditioner_saves_iterations() -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    counts = [ub.predict.solve(k, Y, diag_reg=1e-4, rank=rank).iterations for rank in (0, 60, 120)]
    assert counts[0] > 2 * counts[1] > 2 * counts[2]


def test_a_store_and_an_operator(tmp_path: Path) -> None:
    store = ub.compute_kernel(MODEL, X, tmp_path / "k.zarr", outputs=0, backend="reference")
    operator = ub.ntk_operator(MODEL, X, outputs=0, backend="reference")
    expected = by_cholesky(ub.ntk(MODEL, X, outputs=0, backend="reference"), Y[:, 0], 1e-2)
    for kernel in (store, operator):
        found = ub.predict.solve(kernel, Y[:, 0], diag_reg=1e-2, rank=30, tolerance=1e-10)
        assert found.coefficients.shape == (120,)
        np.testing.assert_allclose(found.coefficients, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_an_operator_in_float32_reaches_the_tolerance() -> None:
    """Its products are taken in float64: rounded to float32, they leave a residual of 4e-4 here."""
    x, labels = ub.data.mnist("train", n=100)
    y = centred_targets(labels, 10)[:, :1]
    model = ub.models.three_layer_sigmoid()
    found = ub.predict.solve(
        ub.ntk_operator(model, x, outputs=0, backend="torch"), y, diag_reg=1e-3, rank=25, progress=False
    )
    k = ub.ntk(model.astype("float64"), x.astype(np.float64), outputs=0, backend="reference")
    expected = by_cholesky(k, y, 1e-3)
    limit = 2e-6 * float(np.linalg.norm(y))
    np.testing.assert_allclose(k @ found.coefficients, k @ expected, rtol=0, atol=limit)
    assert found.residuals.max() < 2e-6


def test_the_regularisation_is_the_same_from_wherever_the_kernel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udlbridge.predict.columns.BLOCK", 50)
    k = ub.ntk(MODEL, X, outputs=0, backend="reference")
    store = ub.compute_kernel(MODEL, X, tmp_path / "k.zarr", outputs=0, backend="reference")
    operator = ub.ntk_operator(MODEL, X, outputs=0, backend="reference")
    for kernel in (k, store, operator):
        assert ub.predict.solve(kernel, Y, diag_reg=1e-2).reg == pytest.approx(1e-2 * np.trace(k) / 120, rel=1e-13)


def test_the_mean_of_a_float32_diagonal_is_taken_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sliced:
        """What has neither a diagonal nor a product: blocks alone are read of it."""

        values = np.random.default_rng(3).uniform(1, 2, 60).astype(np.float32)
        shape, dtype, ndim = (60, 60), np.dtype(np.float32), 2

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            return np.diag(self.values)[key]

    monkeypatch.setattr("udlbridge.predict.columns.BLOCK", 16)
    expected = Sliced.values.astype(np.float64).mean()
    assert UnitKernel(Sliced()).diagonal_mean == pytest.approx(expected, rel=1e-14)


def test_an_interrupted_solution_goes_on(tmp_path: Path) -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    state = tmp_path / "state.safetensors"
    options = {"diag_reg": 1e-4, "rank": 0, "tolerance": 1e-9}
    with pytest.raises(NumericalError, match="after 20 iterations"):
        ub.predict.solve(k, Y, max_iterations=20, state=state, **options)
    resumed = ub.predict.solve(k, Y, state=state, **options)
    whole = ub.predict.solve(k, Y, **options)
    assert resumed.iterations == whole.iterations
    np.testing.assert_array_equal(resumed.coefficients, whole.coefficients)
    with pytest.raises(OptionError, match="another system"):
        ub.predict.solve(k, Y + 1, state=state, **options)
    with pytest.raises(OptionError, match="another system"):
        ub.predict.solve(k, Y, state=state, **{**options, "diag_reg": 1e-2})


@pytest.mark.parametrize("words", [b"[", b"{}", b"[1]", b"null", b"[" * 100_000, b'{"step": 1e999}'], ids=len)
def test_a_state_that_is_none_is_refused(tmp_path: Path, words: bytes) -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    state = tmp_path / "state.safetensors"
    save_file({"solution": np.zeros((120, 2))}, state, metadata={"udlbridge_solver": words.decode()})
    with pytest.raises(OptionError, match="not the whole state"):
        ub.predict.solve(k, Y, diag_reg=1e-2, state=state)


def test_numbers_that_changed_in_a_state_are_found(tmp_path: Path) -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    state = tmp_path / "state.safetensors"
    ub.predict.solve(k, Y, diag_reg=1e-2, state=state)
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    state.write_bytes(content)
    with pytest.raises(OptionError, match="not the whole state"):
        ub.predict.solve(k, Y, diag_reg=1e-2, state=state)


def test_a_state_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    class Kernel:
        """It may not be read."""

        shape, dtype, ndim = (120, 120), np.dtype(float), 2

        def __getitem__(self, key: object) -> np.ndarray:
            raise AssertionError("it was read")

    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "state.safetensors"):
        with pytest.raises(OptionError, match="cannot be written"):
            ub.predict.solve(Kernel(), Y, diag_reg=1e-2, state=path)


def test_targets_of_zero_and_columns_that_are_solved_stand_still() -> None:
    k = ub.ntk(MODEL, X, backend="reference")
    y = np.column_stack([Y[:, 0], np.zeros(120)])
    found = ub.predict.solve(k, y, diag_reg=1e-2, rank=0)
    np.testing.assert_array_equal(found.coefficients[:, 1], np.zeros(120))


def test_predictions_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.predict.classification.ROWS", 7)
    c = np.random.default_rng(2).standard_normal((100, 2))
    found = predicted_outputs(MODEL, X[100:], X[:100], c, outputs="mean", backend="reference")
    expected = ub.ntk(MODEL, X[100:], X[:100], outputs="mean", backend="reference") @ c
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By products and by a store: the same test error, much below chance."""
    x, labels = ub.data.mnist("train", n=340)
    # The test images of MNIST do not come with the package; the last training images stand for them.
    parts = {"train": slice(0, 300), "test": slice(300, 340)}

    def images(part: str, n: int, folder: Path | None, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
        return x[parts[part]][:n].astype(dtype), labels[parts[part]][:n]

    monkeypatch.setattr(ub.data, "mnist", images)
    common = ["--train", "300", "--test", "40", "--outputs", "0", "--backend", "reference", "--dtype", "float64"]
    errors = []
    for extra in ([], ["--store", str(tmp_path / "k.zarr")]):
        path = tmp_path / f"{len(errors)}.json"
        done = CliRunner().invoke(command, [*common, "--quiet", *extra, "--json", str(path)], standalone_mode=False)
        assert done.exit_code == 0, done.output
        errors.append(json.loads(path.read_text())["test_error"])
    assert errors[0] == errors[1] < 0.4


def test_what_cannot_be_is_refused(untyped: None) -> None:
    k = np.eye(4)
    with pytest.raises(OptionError, match="diag_reg"):
        ub.predict.solve(k, np.ones(4), diag_reg=0.0)
    with pytest.raises(ShapeError, match="a target for each"):
        ub.predict.solve(k, np.ones(3), diag_reg=1.0)
    with pytest.raises(OptionError, match="rank"):
        ub.predict.solve(k, np.ones(4), diag_reg=1.0, rank=9)
    with pytest.raises(NumericalError, match="not positive semidefinite"):
        ub.predict.solve(np.diag([1.0, 1.0, 1.0, -2.0]), np.ones(4), diag_reg=1e-3, rank=0)
    with pytest.raises(NumericalError, match="diagonal"):
        ub.predict.solve(np.zeros((4, 4)), np.ones(4), diag_reg=1e-3)
    with pytest.raises(InputError, match="not symmetric"):
        ub.predict.solve(k + np.triu(np.ones((4, 4)), 1), np.ones(4), diag_reg=1.0)
    for wrong in (np.nan, np.inf):
        with pytest.raises(InputError, match="at "):
            ub.predict.solve(np.diag([1.0, 1.0, 1.0, wrong]), np.ones(4), diag_reg=1.0)
        with pytest.raises(InputError, match="y is"):
            ub.predict.solve(k, np.array([1.0, wrong, 1.0, 1.0]), diag_reg=1.0)
    with pytest.raises(UDLBridgeError, match=r"number|dtype"):
        ub.predict.solve(k, ["cat", "dog", "cat", "dog"], diag_reg=1.0)
    with pytest.raises(InputError, match="whole numbers"):
        centred_targets(np.array([0.5]), 10)
    with pytest.raises(InputError, match="whole numbers"):
        centred_targets(np.array([10]), 10)
    with pytest.raises(InputError, match="numbers"):
        centred_targets(["cat", "dog"], 2)


@pytest.mark.parametrize("rank", [0, None])
@pytest.mark.parametrize("kernel_exponent", [1015, -1015, 0])
@pytest.mark.parametrize("target_exponent", [1000, 0])
def test_sizes_whose_squares_leave_the_range_of_float64_are_taken(
    kernel_exponent: int, target_exponent: int, rank: int | None
) -> None:
    k = ub.ntk(MODEL, X, outputs=0, backend="reference")
    k, y = np.ldexp(k, -np.frexp(k.diagonal().max())[1]), Y[:, 0]
    options = {"diag_reg": 1e-2, "rank": rank, "tolerance": 1e-12}
    expected = ub.predict.solve(k, y, **options)
    if target_exponent - kernel_exponent > 1020:
        with pytest.raises(NumericalError, match=r"coefficients\[0\] is -?inf in float64"):
            ub.predict.solve(np.ldexp(k, kernel_exponent), np.ldexp(y, target_exponent), **options)
        return
    found = ub.predict.solve(np.ldexp(k, kernel_exponent), np.ldexp(y, target_exponent), **options)
    scaled = np.ldexp(found.coefficients, kernel_exponent - target_exponent)
    np.testing.assert_allclose(scaled, expected.coefficients, rtol=0, atol=1e-8 * np.abs(scaled).max())
    assert np.ldexp(found.reg, -kernel_exponent) == pytest.approx(expected.reg, rel=1e-15)
