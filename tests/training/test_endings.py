"""Networks that end in softmax or a sigmoid: no loss applies it twice without a word, and "nll" is of probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special

import udlbridge as ub
from helpers import random_model
from udlbridge.errors import OptionError, UDLBridgeWarning
from udlbridge.networks.layers import Layer
from udlbridge.tolerances import relative_difference
from udlbridge.training.endings import ending

RNG = np.random.default_rng(5)
X, CLASSES = RNG.standard_normal((30, 4)), np.arange(30) % 3
YES = np.stack([CLASSES == 1, CLASSES > 0], axis=1).astype(np.float64)
LOGITS = random_model([4, 5, 3], ["tanh", "identity"])
PAIR = random_model([4, 5, 2], ["tanh", "identity"])


def after(model: ub.Model, *layers: Layer) -> ub.Model:
    return ub.Model([*model.layers, *layers], model.arrays)


def sigmoid_inside(model: ub.Model) -> ub.Model:
    *layers, last = model.layers
    return ub.Model([*layers, ub.Dense(last.in_features, last.out_features, "sigmoid")], model.arrays)


NLL = {
    "softmax": (after(LOGITS, ub.Softmax()), LOGITS, "cross_entropy", CLASSES),
    "log-softmax": (after(LOGITS, ub.LogSoftmax()), LOGITS, "cross_entropy", CLASSES),
    "softmax, then nothing": (
        after(LOGITS, ub.Softmax(), ub.Dropout(), ub.Flatten()),
        LOGITS,
        "cross_entropy",
        CLASSES,
    ),
    "sigmoid layer": (after(PAIR, ub.Activation("sigmoid")), PAIR, "binary_cross_entropy", YES),
    "sigmoid inside": (sigmoid_inside(PAIR), PAIR, "binary_cross_entropy", YES),
}


@pytest.mark.parametrize("name", NLL)
def test_nll_is_the_likelihood_of_the_probabilities(name: str, backend: str) -> None:
    model, _, _, y = NLL[name]
    value, gradient = ub.loss_gradient(model, X, y, loss="nll", backend=backend)

    def by_definition(network: ub.Model) -> float:
        p = ub.outputs(network, X, backend="reference")
        if "sigmoid" in name:
            return -float(np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
        own = p[np.arange(len(p)), y]
        return -float(np.mean(own if name == "log-softmax" else np.log(own)))

    assert value == pytest.approx(by_definition(model), rel=1e-12)
    assert list(gradient) == list(model.params)
    for key, slope in gradient.items():
        direction = RNG.standard_normal(slope.shape)
        there, back = (
            by_definition(model.with_params({**model.params, key: model.params[key] + step * direction}))
            for step in (1e-5, -1e-5)
        )
        assert np.sum(slope * direction) == pytest.approx((there - back) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NLL)
def test_training_by_nll_takes_the_steps_of_the_logits(name: str, backend: str, tmp_path: Path) -> None:
    model, logits, loss, y = NLL[name]
    options = {"epochs": 3, "batch_size": 8, "optimizer": ("adam", {"lr": 0.05}), "backend": backend, "progress": False}
    run = ub.train(model, X, y, loss="nll", validation=(X[:9], y[:9]), **options)
    peer = ub.train(logits, X, y, loss=loss, validation=(X[:9], y[:9]), **options)
    np.testing.assert_array_equal(run.losses, peer.losses)
    assert run.errors == peer.errors
    assert run.model.layers == model.layers
    for key, value in peer.model.params.items():
        np.testing.assert_array_equal(run.model.params[key], value)
    run.save(tmp_path / "run")
    longer = ub.train(
        model, X, y, loss="nll", validation=(X[:9], y[:9]), resume=tmp_path / "run", **options | {"epochs": 4}
    )
    assert longer.epochs == 4


def test_a_single_output_is_classified_by_its_probability(backend: str) -> None:
    model = ub.Model([ub.Dense(4, 1, "sigmoid")], seed=1, dtype="float64")
    y = (X[:, 0] > 0).astype(int)
    run = ub.train(model, X, y, epochs=60, loss="nll", optimizer=("adam", {"lr": 0.1}), backend=backend, progress=False)
    given = ub.outputs(run.model, X, backend="reference")[:, 0] > 0.5
    assert run.errors[-1].train == np.mean(given != y) < 0.1


def test_nll_of_probabilities_that_no_float_holds(backend: str) -> None:
    model = ub.Model([ub.Dense(1, 2), ub.Softmax()], {"0.weight": np.array([[400.0], [-400.0]]), "0.bias": np.zeros(2)})
    value, gradient = ub.loss_gradient(model, np.array([[3.0], [-3.0]]), np.ones(2), loss="nll", backend=backend)
    assert value == pytest.approx(1200.0, rel=1e-12)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_cross_entropy_of_log_softmax_is_right(backend: str) -> None:
    expected = ub.loss_gradient(LOGITS, X, CLASSES, backend=backend)
    found = ub.loss_gradient(after(LOGITS, ub.LogSoftmax()), X, CLASSES, backend=backend)
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    for key, value in expected[1].items():
        assert relative_difference(found[1][key], value) <= 1e-12


REFUSED = {
    "softmax": ("cross_entropy", after(LOGITS, ub.Softmax()), CLASSES, r"applies softmax.*layer 2 ends in Softmax"),
    "default loss": (
        None,
        after(LOGITS, ub.Softmax(), ub.Dropout()),
        CLASSES,
        r"'cross_entropy'.*leave the Softmax out",
    ),
    "sigmoid": ("binary_cross_entropy", sigmoid_inside(PAIR), YES, r"applies sigmoid.*layer 1 ends in sigmoid"),
    "softmax and sigmoid": ("binary_cross_entropy", after(PAIR, ub.Softmax()), YES, r"ends in Softmax"),
    "log-softmax and sigmoid": (
        "binary_cross_entropy",
        after(PAIR, ub.LogSoftmax()),
        YES,
        r"log-probabilities already",
    ),
    "logits": ("nll", LOGITS, CLASSES, r'"nll" of a network whose outputs are not prob.*"cross_entropy" \(classes\)'),
    "softmax before": (
        "nll",
        ub.Model([ub.Dense(4, 3), ub.Softmax(), ub.Dense(3, 3)], dtype="float64"),
        CLASSES,
        r"not probabilities",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    loss, model, y, words = REFUSED[name]
    if loss != "nll":
        words += r'.*use loss="nll"'
    given = {} if loss is None else {"loss": loss}
    for compute in (
        lambda: ub.train(model, X, y, epochs=1, backend="reference", **given),
        lambda: ub.loss_gradient(model, X, y, backend="reference", **given),
        lambda: ub.optimize.LossFunction(model, X, y, backend="reference", **given).value(
            ub.optimize.ParameterVector(model).start()
        ),
    ):
        with pytest.raises(OptionError, match=words):
            compute()


def test_several_distributions_for_a_sample_have_no_nll() -> None:
    model = ub.Model([ub.Dense(4, 3), ub.Softmax(), ub.Flatten()], dtype="float64")
    x = np.ones((6, 2, 4))
    with pytest.raises(OptionError, match=r"6 outputs, in several distributions over 3 classes"):
        ub.loss_gradient(model, x, np.arange(6), loss="nll", backend="reference")
    taken = ub.Model([ub.Dense(4, 3), ub.Softmax(), ub.Take(0)], dtype="float64")
    assert np.isfinite(ub.loss_gradient(taken, x, np.arange(6) % 3, loss="nll", backend="reference")[0])


def test_sigmoid_outputs_may_be_the_logits_of_a_softmax() -> None:
    """As in the notebook's network without its last layer; and squares may be taken of any outputs."""
    assert np.isfinite(ub.loss_gradient(sigmoid_inside(PAIR), X, CLASSES % 2, backend="reference")[0])
    assert np.isfinite(ub.loss_gradient(after(LOGITS, ub.Softmax()), X, CLASSES, loss="mse", backend="reference")[0])


def test_endings() -> None:
    assert ending(ub.models.three_layer_sigmoid()) == ("Softmax", 3)
    assert ending(ub.models.hidden_relu(3)) is None
    assert ending(ub.Model([ub.Conv2d(1, 2, 3, "sigmoid"), ub.Activation("identity"), ub.Flatten()])) == ("sigmoid", 0)
    assert ending(ub.Model([ub.Softmax(), ub.Activation("relu")])) is None
    assert ending(ub.Model([ub.Flatten()])) is None


def test_likelihoods_of_probabilities_come_with_a_warning() -> None:
    y, categorical, bernoulli = CLASSES.astype(float), ub.losses.Categorical(), ub.losses.Bernoulli()
    logits, softmax = ub.outputs(LOGITS, X), ub.outputs(after(LOGITS, ub.Softmax()), X)
    for f in (logits, ub.outputs(after(LOGITS, ub.LogSoftmax()), X), softmax[:1], np.eye(3)):
        value = ub.losses.negative_log_likelihood(categorical, f, y[: len(f)], backend="reference")
        expected = scipy.special.logsumexp(f, axis=1) - f[np.arange(len(f)), y[: len(f)].astype(int)]
        np.testing.assert_allclose(value, expected.sum(), rtol=1e-5)  # and no warning, which would be an error here
    with pytest.warns(UDLBridgeWarning, match=r"sums to 1.*Leave the Softmax out"):
        ub.losses.negative_log_likelihood(categorical, softmax, y, backend="reference")

    def of_classes(f: ub.expressions.Expression) -> ub.expressions.Expression:
        return categorical.negative_log(f, np.eye(3)[CLASSES])

    def of_yes(f: ub.expressions.Expression) -> ub.expressions.Expression:
        return bernoulli.negative_log(f, YES)

    for model, formula in ((LOGITS, of_classes), (after(LOGITS, ub.LogSoftmax()), of_classes), (PAIR, of_yes)):
        ub.optimize.ModelFunction(model, X, formula, backend="reference")
    with pytest.warns(UDLBridgeWarning, match=r"the logsumexp of the outputs.*layer 2 of the network ends in Soft"):
        ub.optimize.ModelFunction(after(LOGITS, ub.Softmax()), X, of_classes, backend="reference")
    with pytest.warns(UDLBridgeWarning, match=r"the softplus of the outputs.*layer 1 of the network ends in sigm"):
        ub.optimize.ModelFunction(sigmoid_inside(PAIR), X, of_yes, backend="reference")
