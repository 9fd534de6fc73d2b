"""Maps of similarity: against definitions, what each measure is blind to and what it sees, engines, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group

import udlbridge as ub
from helpers import random_model, samples
from udlbridge.analysis.similarity import MEASURES
from udlbridge.errors import NumericalError, OptionError, ShapeError, UDLBridgeError

MODEL = random_model([5, 7, 6, 3], ["tanh", "tanh", "identity"])
OTHER = random_model([5, 4, 3], ["tanh", "identity"], seed=3)
X = samples(MODEL, 23)


def cka(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    return float((np.linalg.norm(a.T @ b) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def rotation(a: np.ndarray, b: np.ndarray) -> float:
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (a, b))
    return float(np.sqrt(1 - procrustes(a, b)[2]))


def distances(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(pdist(a), pdist(b))[0, 1])


DEFINITIONS = {"cka": cka, "procrustes": rotation, "rsa": distances}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("tile", [512, 5])
def test_maps_are_what_their_definitions_say(measure: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.analysis.similarity.TILE", tile)
    found = ub.similarity_map(MODEL, OTHER, X, measure, backend="reference")
    assert found.values.shape == (len(MODEL.layers), len(OTHER.layers))
    for i in range(len(MODEL.layers)):
        for j in range(len(OTHER.layers)):
            a, b = (ub.features(m, X, layer=k, backend="reference") for m, k in ((MODEL, i), (OTHER, j)))
            np.testing.assert_allclose(found.values[i, j], DEFINITIONS[measure](a, b), rtol=1e-10)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("d", [6, 40])
def test_what_measures_are_blind_to(measure: str, d: int) -> None:
    # With more features than samples too.
    rng = np.random.default_rng(0)
    phi, other = rng.standard_normal((23, d)), rng.standard_normal((23, 4))
    turn = ortho_group.rvs(d, random_state=1)

    def function(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
        return MEASURES[measure]({"one": first[0]}, {"other": second[0]})

    expected = function([phi], [other])[0, 0]
    for changed in (phi @ turn, phi + rng.standard_normal(d), 1e-3 * phi, -phi, phi * 1e150):
        np.testing.assert_allclose(function([changed], [other])[0, 0], expected, rtol=1e-9)
        np.testing.assert_allclose(function([changed], [phi])[0, 0], 1, rtol=1e-9)
    stretched = function([phi * np.geomspace(1, 30, d)], [phi])[0, 0]
    assert stretched < 0.99
    np.testing.assert_allclose(function([other], [phi])[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_network_is_like_itself_in_every_engine(measure: str, backend: str) -> None:
    found = ub.similarity_map(MODEL, MODEL, X, measure, backend="reference", backend2=backend)
    np.testing.assert_allclose(np.diag(found.values), 1, rtol=1e-12)
    np.testing.assert_allclose(found.values, found.values.T, rtol=1e-10)
    assert found.backends == ("reference", backend)


def test_before_and_after_training_and_its_picture(tmp_path: Path) -> None:
    from udlbridge.plots.similarity import similarity_figure

    run = ub.train(MODEL, X, np.sin(X[:, :3]), epochs=20, loss="mse", optimizer="adam", backend="reference")
    found = ub.similarity_map(MODEL, run.model, X)
    assert found.values[-1, -1] < 1 - 1e-6
    figure = similarity_figure(found, "before and after training")
    figure.savefig(tmp_path / "map.png")
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(np.asarray(image.get_array()), found.values)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(found.first)
    assert "cka" in str(found)
    assert found == ub.similarity_map(MODEL, run.model, X)
    assert found.to_dict()["measure"] == "cka"


def test_bad_input_is_named() -> None:
    with pytest.raises(OptionError, match="cka, procrustes, rsa"):
        ub.similarity_map(MODEL, OTHER, X, "cca")
    with pytest.raises(ShapeError, match="at least 3"):
        ub.similarity_map(MODEL, OTHER, X[:2])
    with pytest.raises(NumericalError, match="layer 0 dense gives the same"):
        ub.similarity_map(MODEL, OTHER, np.repeat(X[:1], 5, axis=0))
    with pytest.raises(UDLBridgeError):
        ub.similarity_map(MODEL, random_model([4, 3], ["tanh"]), X)


def test_a_layer_that_is_not_finite_is_named_with_its_entry() -> None:
    model = random_model([5, 7, 3], ["identity", "identity"])
    # 1e200 is a number, but its square, an entry of the kernel, is none.
    large = model.with_params({**model.params, "0.bias": np.full(7, 1e200)})
    entry = r"kernel of layer 0 \w+\[0\] is inf in float64"
    with pytest.raises(NumericalError, match=entry) as caught:
        ub.layer_alignments(large, X, ub.label_kernel(np.where(X[:, 0] > 0, 1, -1)))
    assert "scale" in caught.value.remedy
    wide = large.with_params({**model.params, "0.weight": 1e200 * model.params["0.weight"]})
    for pair in ((MODEL, wide), (wide, MODEL)):
        with pytest.raises(NumericalError, match=entry):
            ub.similarity_map(*pair, X)
    beyond = model.with_params(
        {
            "0.weight": 1e300 * model.params["0.weight"],
            "0.bias": model.params["0.bias"],
            "1.weight": 1e30 * model.params["1.weight"],
            "1.bias": model.params["1.bias"],
        }
    )
    with pytest.raises(NumericalError, match=r"outputs of layer 1 \w+\[0, 0\] is (nan|-?inf) in float64"):
        ub.similarity_map(MODEL, beyond, X, "rsa")
