"""Posteriors, ensembles of infinite networks, and the largest learning rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg, stats

import udlbridge as ub
from helpers import GOLDENS
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError, UDLBridgeError

RECORDED = GOLDENS / "neural_tangents"


def relu_kernels(x1: np.ndarray, x2: np.ndarray, w: float = 1.5, b: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """NNGP and NTK of Dense, relu, Dense at infinite width: arc-cosine kernels, with small angles exact."""
    one, two = (np.hstack([w * x / math.sqrt(x.shape[1]), np.full((len(x), 1), b)]) for x in (x1, x2))
    k = one @ two.T
    norms = np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1))
    u, v = (side / np.linalg.norm(side, axis=1)[:, None] for side in (one, two))
    angle = 2 * np.arctan2(np.linalg.norm(u[:, None] - v, axis=2), np.linalg.norm(u[:, None] + v, axis=2))
    nngp = w**2 * norms / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) + b**2
    return nngp, nngp + w**2 * (np.pi - angle) / (2 * np.pi) * k


@pytest.mark.parametrize("t", [0.5, 20.0, None])
@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_ensembles_as_neural_tangents_has_them(t: float | None, get: str) -> None:
    with np.load(RECORDED / "predict_ensemble.npz") as z:
        (a, a_ntk), (b, b_ntk) = relu_kernels(z["x_train"], z["x_train"]), relu_kernels(z["x_test"], z["x_train"])
        c, _ = relu_kernels(z["x_test"], z["x_test"])
        trained = {"ntk_train": a_ntk, "ntk_test": b_ntk} if get == "ntk" else {}
        time = math.inf if t is None else t
        found = ub.predict.infinite_ensemble(a, b, c, z["y_train"], t=time, diag_reg=1e-3, **trained)
        # That library takes the angle of a sample with itself from sqrt(1 - cos^2), which rounds to 1e-8: the diagonal
        # of its NTK is off by some 1e-9. The NNGP kernel does not feel it.
        limit = 1e-10 if get == "nngp" else 1e-8
        np.testing.assert_allclose(found.mean, z[f"mean_{get}_{t}"], rtol=0, atol=limit)
        np.testing.assert_allclose(found.covariance, z[f"cov_{get}_{t}"], rtol=0, atol=limit)


def test_an_ensemble_by_the_exponential_of_the_matrix() -> None:
    """Lee et al. (2019), equations 14 and 15, as they are printed."""
    generator = np.random.default_rng(6)
    x, x_test = generator.standard_normal((6, 3)), generator.standard_normal((2, 3))
    y = generator.standard_normal((6, 2))
    (a, a_ntk), (b, b_ntk), (c, _) = relu_kernels(x, x), relu_kernels(x_test, x), relu_kernels(x_test, x_test)
    step = b_ntk @ np.linalg.inv(a_ntk) @ (np.eye(6) - linalg.expm(-a_ntk * 3.0 / 12))
    found = ub.predict.infinite_ensemble(a, b, c, y, ntk_train=a_ntk, ntk_test=b_ntk, t=3.0)
    np.testing.assert_allclose(found.mean, step @ y, rtol=0, atol=1e-12)
    covariance = c + step @ a @ step.T - step @ b.T - b @ step.T
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-12)


def test_at_the_start_the_ensemble_is_the_prior() -> None:
    generator = np.random.default_rng(0)
    x, x_test = generator.standard_normal((5, 3)), generator.standard_normal((2, 3))
    (a, a_ntk), (b, b_ntk), (c, _) = relu_kernels(x, x), relu_kernels(x_test, x), relu_kernels(x_test, x_test)
    found = ub.predict.infinite_ensemble(a, b, c, np.ones(5), ntk_train=a_ntk, ntk_test=b_ntk, t=0)
    np.testing.assert_array_equal(found.mean, np.zeros(2))
    np.testing.assert_allclose(found.covariance, c, rtol=1e-14)


def test_exact_inference_is_the_last_layer_trained_for_ever() -> None:
    generator = np.random.default_rng(1)
    x, x_test, y = (
        generator.standard_normal((6, 4)),
        generator.standard_normal((3, 4)),
        generator.standard_normal((6, 2)),
    )
    a, b, c = relu_kernels(x, x)[0], relu_kernels(x_test, x)[0], relu_kernels(x_test, x_test)[0]
    exact = ub.predict.posterior(a, b, c, y)
    trained = ub.predict.infinite_ensemble(a, b, c, y)
    np.testing.assert_allclose(trained.mean, exact.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trained.covariance, exact.covariance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_posterior_is_a_conditional_normal_distribution(outputs: int) -> None:
    """Against the joint distribution of training and test outputs, and SciPy's density."""
    generator = np.random.default_rng(2)
    features = generator.standard_normal((8, 9))
    k = features @ features.T
    y = generator.standard_normal((5, outputs))
    noisy = k[:5, :5] + 0.1 * np.trace(k[:5, :5]) / 5 * np.eye(5)
    found = ub.predict.posterior(k[:5, :5], k[5:, :5], k[5:, 5:], y, diag_reg=0.1)
    inverse = np.linalg.inv(noisy)
    np.testing.assert_allclose(found.mean, k[5:, :5] @ inverse @ y, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.covariance, k[5:, 5:] - k[5:, :5] @ inverse @ k[:5, 5:], rtol=0, atol=1e-11)
    density = stats.multivariate_normal(np.zeros(5), noisy)
    likelihood = sum(density.logpdf(y[:, a]) for a in range(outputs))
    assert found.log_marginal_likelihood == pytest.approx(likelihood, rel=1e-12)


def test_a_posterior_of_coupled_outputs() -> None:
    generator = np.random.default_rng(3)
    jacobian = generator.standard_normal((6, 2, 30))
    theta = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    y = generator.standard_normal((4, 2))
    found = ub.predict.posterior(theta[:4, :4], theta[4:, :4], theta[4:, 4:], y)
    flat = jacobian.reshape(12, 30) @ jacobian.reshape(12, 30).T
    mean = flat[8:, :8] @ np.linalg.solve(flat[:8, :8], y.reshape(-1))
    np.testing.assert_allclose(found.mean.reshape(-1), mean, rtol=0, atol=1e-11)
    covariance = flat[8:, 8:] - flat[8:, :8] @ np.linalg.solve(flat[:8, :8], flat[:8, 8:])
    np.testing.assert_allclose(found.covariance.reshape(4, 4), covariance, rtol=0, atol=1e-11)


def test_the_largest_rate_as_neural_tangents_has_it() -> None:
    with np.load(RECORDED / "predict_max_learning_rate.npz") as z:
        size = int(z["size"])
        # It adds 1e-12 to the eigenvalue.
        assert ub.predict.max_learning_rate(z["k_train"], size) == pytest.approx(float(z["plain"]), rel=1e-11)
        found = ub.predict.max_learning_rate(z["k_train"], size, momentum=0.9)
        assert found == pytest.approx(float(z["with_momentum"]), rel=1e-11)


def test_the_largest_rate_of_coupled_outputs() -> None:
    jacobian = np.random.default_rng(7).standard_normal((5, 2, 30))
    theta = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    largest = np.linalg.norm(jacobian.reshape(10, 30), 2) ** 2
    assert ub.predict.max_learning_rate(theta) == pytest.approx(20 / largest, rel=1e-12)


def test_the_largest_rate_of_an_operator_a_store_and_a_large_kernel(tmp_path: Path) -> None:
    model = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 1)], dtype="float64")
    x = np.random.default_rng(4).standard_normal((600, 3))
    k = ub.ntk(model, x, backend="reference")
    exact = 2 * 600 / np.linalg.eigvalsh(k)[-1]
    assert ub.predict.max_learning_rate(k) == pytest.approx(exact, rel=1e-9)
    operator = ub.ntk_operator(model, x, backend="reference")
    assert ub.predict.max_learning_rate(operator) == pytest.approx(exact, rel=1e-9)
    store = ub.compute_kernel(model, x, tmp_path / "k.zarr", backend="reference")
    assert ub.predict.max_learning_rate(store) == pytest.approx(exact, rel=1e-9)
    small = ub.ntk_operator(model, x[:20], backend="reference")
    assert ub.predict.max_learning_rate(small) == pytest.approx(40 / np.linalg.eigvalsh(k[:20, :20])[-1], rel=1e-9)


def test_what_cannot_be_is_refused(untyped: None) -> None:
    eye = np.eye(3)
    with pytest.raises(OptionError, match="both or neither"):
        ub.predict.infinite_ensemble(eye, eye, eye, np.ones(3), ntk_train=eye)
    with pytest.raises(OptionError, match="one time after the other"):
        ub.predict.infinite_ensemble(eye, eye, eye, np.ones(3), t=[1.0])
    with pytest.raises(ShapeError, match="same m test samples"):
        ub.predict.infinite_ensemble(eye, eye[:2], eye, np.ones(3))
    with pytest.raises(ShapeError, match="test samples with themselves"):
        ub.predict.posterior(eye, eye[:2], eye, np.ones(3))
    with pytest.raises(NumericalError, match="singular"):
        ub.predict.posterior(np.ones((3, 3)), eye[:2], None, np.ones(3))
    with pytest.raises(OptionError, match="momentum"):
        ub.predict.max_learning_rate(eye, momentum=1.5)
    with pytest.raises(OptionError, match="size"):
        ub.predict.max_learning_rate(eye, 0)
    with pytest.raises(ShapeError, match="training samples"):
        ub.predict.max_learning_rate(np.ones((2, 3)))
    skewed, hole = eye + np.triu(np.ones((3, 3)), 1), np.diag([1.0, np.nan, 1.0])
    with pytest.raises(InputError, match="not symmetric"):
        ub.predict.max_learning_rate(skewed)
    with pytest.raises(InputError, match="nan at"):
        ub.predict.max_learning_rate(hole)
    with pytest.raises(InputError, match="numbers"):
        ub.predict.max_learning_rate([["1", "0"], ["0", "1"]])
    for call in (ub.predict.posterior, ub.predict.infinite_ensemble):
        with pytest.raises(ShapeError, match="target for each"):
            call(eye, eye, None if call is ub.predict.posterior else eye, np.ones(4))
        with pytest.raises(ShapeError, match="k_test"):
            call(eye, np.ones((2, 4)), None if call is ub.predict.posterior else eye, np.ones(3))
        with pytest.raises(NumericalError, match="diag_reg"):
            call(np.ones((3, 3)), eye, None if call is ub.predict.posterior else eye, np.ones(3))
    for wrong, words in ((skewed, "not symmetric"), (hole, "nan at")):
        with pytest.raises(InputError, match=words):
            ub.predict.posterior(wrong, eye, None, np.ones(3))
        with pytest.raises(InputError, match=words):
            ub.predict.infinite_ensemble(wrong, eye, eye, np.ones(3))
    indefinite = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(NumericalError, match="not positive semidefinite: its smallest eigenvalue is -1"):
        ub.predict.posterior(indefinite, eye, None, np.ones(3))
    for y in (["cat", "dog", "cat"], np.array(["1", "2", "3"])):
        with pytest.raises(UDLBridgeError, match=r"number|dtype"):
            ub.predict.posterior(eye, eye, None, y)
    for t in (-1.0, math.nan):
        with pytest.raises(OptionError, match="at least 0"):
            ub.predict.infinite_ensemble(eye, eye, eye, np.ones(3), t=t)
