"""Estimators: scikit-learn's own checks, closed forms, and its digits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits, make_regression  # noqa: E402
from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: E402
from sklearn.gaussian_process.kernels import WhiteKernel  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split  # noqa: E402
from sklearn.svm import SVC  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

import udlbridge as ub  # noqa: E402
from udlbridge.errors import OptionError  # noqa: E402
from udlbridge.estimators import NTKClassifier, NTKKernel, NTKRidge, network_kernel  # noqa: E402


@pytest.mark.usefixtures("untyped")
@pytest.mark.slow
@pytest.mark.parametrize("estimator", [NTKRidge(), NTKClassifier()], ids=lambda e: type(e).__name__)
def test_the_checks_of_scikit_learn_pass(estimator: object) -> None:
    failed = []
    for checked, check in estimator_checks_generator(estimator):
        try:
            check(checked)
        except Exception as error:
            if type(error).__name__ != "SkipTest":
                failed.append(f"{getattr(check, 'func', check).__name__}: {error}")
    assert not failed, "\n".join(failed)


def test_regression_is_the_posterior_mean() -> None:
    x, y = make_regression(40, 6, random_state=0)
    k = ub.infinite.kernels([ub.Dense(6, 1, "erf"), ub.Dense(1, 1)], x, w_std=1.3, b_std=0.2, get="ntk").ntk
    found = NTKRidge(alpha=0.01, depth=1, activation="erf", w_std=1.3, b_std=0.2).fit(x[:30], y[:30]).predict(x[30:])
    expected = ub.predict.posterior(k[:30, :30], k[30:, :30], None, y[:30], diag_reg=0.01).mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(y).max())


def test_a_network_of_ones_own() -> None:
    x, y = make_regression(30, 5, n_targets=2, random_state=1)
    model = ub.Model([ub.Dense(5, 16, "tanh"), ub.Dense(16, 3)], dtype="float64")
    found = NTKRidge(alpha=0.1, network=model, backend="reference").fit(x, y).predict(x)
    k = ub.ntk(model, x, outputs="mean", backend="reference")
    expected = k @ np.linalg.solve(k + 0.1 * np.trace(k) / 30 * np.eye(30), y)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    fitted = NTKRidge(alpha=0.1, network=lambda d: model, backend="reference").fit(x, y)
    np.testing.assert_allclose(fitted.predict(x), found, rtol=1e-12)


def test_graphs_and_modules_are_networks() -> None:
    nn = pytest.importorskip("torch.nn")
    x, y = make_regression(20, 5, random_state=1)
    module = nn.Linear(5, 2, bias=False).double()
    node = ub.Node("y", "linear", ("x", "weight"))
    graph = ub.Graph([node], "y", params={"weight": module.weight}, sample_shape=(5,))
    found = [
        NTKRidge(alpha=0.1, network=network).fit(x, y).predict(x)
        for network in (ub.from_torch(module), graph, module, lambda _: module)
    ]
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-8)


@pytest.mark.parametrize("alpha", ["1", None, -1.0, float("nan")], ids=repr)
def test_alpha_is_checked_before_the_kernel(alpha: Any) -> None:
    def network(_: int) -> ub.Model:
        raise AssertionError("the kernel is begun")

    x, y = make_regression(10, 3, random_state=2)
    with pytest.raises(OptionError, match="alpha="):
        NTKRidge(network=network).set_params(alpha=alpha).fit(x, y)


def test_a_network_in_the_place_of_alpha_says_so() -> None:
    nn = pytest.importorskip("torch.nn")
    x, y = make_regression(10, 3, random_state=2)
    module = nn.Linear(3, 2)
    graph = ub.Graph([], "x", params={}, sample_shape=(2,))
    for network in (graph, module, lambda d: module):
        with pytest.raises(OptionError, match=r"alpha=.* say network=\."):
            NTKRidge().set_params(alpha=network).fit(x, y)


def test_digits_are_classified_searched_for_and_pickled() -> None:
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x[:600] / 16, y[:600], random_state=0)
    search = GridSearchCV(NTKClassifier(), {"depth": [1, 3], "alpha": [1e-4, 1e-2]}, cv=2)
    search.fit(x_train, y_train)
    assert search.score(x_test, y_test) > 0.93
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(x_test), search.predict(x_test))
    words = np.array(["no", "yes"])[(y_train > 4).astype(int)]
    two = clone(search.best_estimator_).fit(x_train, words)
    assert set(two.predict(x_test)) == {"no", "yes"}
    assert two.decision_function(x_test).shape == (len(x_test),)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["infinite", ub.Model([ub.Dense(64, 8, "tanh"), ub.Dense(8, 2)], dtype="float64")])
def test_processes_of_joblib_say_the_same(network: ub.Model | str) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:90] / 16, y[:90]
    estimator = NTKClassifier(depth=1, network=network, backend=None if network == "infinite" else "reference")
    here, there = (cross_val_score(estimator, x, y, cv=2, n_jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(there, here)
    assert here.mean() > 0.5


def test_a_support_vector_machine_takes_the_kernel() -> None:
    x, y = load_digits(return_X_y=True)
    machine = SVC(kernel=network_kernel).fit(x[:200] / 16, y[:200])
    assert machine.score(x[200:400] / 16, y[200:400]) > 0.85


@pytest.mark.slow
def test_a_gaussian_process_finds_its_scales() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, size=(25, 1))
    process = GaussianProcessRegressor(NTKKernel(depth=1) + WhiteKernel(1e-3, (1e-9, 1.0)), random_state=0)
    before = GaussianProcessRegressor(process.kernel, optimizer=None).fit(x, np.sin(2 * x[:, 0]))
    process.fit(x, np.sin(2 * x[:, 0]))
    assert process.log_marginal_likelihood_value_ > before.log_marginal_likelihood_value_
    kernel = NTKKernel(depth=1, w_std=1.2, b_std=0.4)
    _, gradient = kernel(x, eval_gradient=True)
    step = 1e-4
    for index in range(2):
        theta = kernel.theta.copy()
        theta[index] += step
        difference = (kernel.clone_with_theta(theta)(x) - kernel(x)) / step
        np.testing.assert_allclose(gradient[..., index], difference, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(kernel.diag(x), np.diagonal(kernel(x)), rtol=1e-13)


def test_what_cannot_be_is_refused() -> None:
    x, y = make_regression(10, 3, random_state=2)
    with pytest.raises(OptionError, match="alpha"):
        NTKRidge(alpha=-1.0).fit(x, y)
    with pytest.raises(OptionError, match=r"alpha=a Model\. .* say network=\."):
        NTKRidge().set_params(alpha=ub.Model([ub.Dense(3, 2)])).fit(x, y)
    with pytest.raises(OptionError, match="network"):
        NTKRidge(network="resnet").fit(x, y)
    with pytest.raises(OptionError, match="returned an int"):
        NTKRidge(network=lambda d: d).fit(x, y)
    with pytest.raises(OptionError, match="depth"):
        NTKRidge(depth=-1).fit(x, y)
