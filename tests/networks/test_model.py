"""The model: names, layout, reproducibility, files."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given

import udlbridge as ub
from helpers import dense_models, load_golden
from udlbridge import backends, errors
from udlbridge.backends.engine import Availability
from udlbridge.conversion.formats import read_network, write_network


def test_parameters_are_named_by_the_index_of_their_layer() -> None:
    model = ub.Model([ub.Flatten(), ub.Dense(5, 7, "tanh"), ub.Softmax(), ub.Dense(7, 2, bias=False)])
    assert {name: value.shape for name, value in model.params.items()} == {
        "1.weight": (7, 5),
        "1.bias": (7,),
        "3.weight": (2, 7),
    }
    assert model.n_params == 5 * 7 + 7 + 14


def test_initialisation_is_glorot_and_reproducible() -> None:
    model = ub.models.three_layer_sigmoid(3)
    assert model == ub.models.three_layer_sigmoid(3)
    assert model != ub.models.three_layer_sigmoid(4)
    bound = np.sqrt(6 / (784 + 60))
    weight = model.params["0.weight"]
    assert np.abs(weight).max() <= bound
    np.testing.assert_allclose(weight.std(), bound / np.sqrt(3), rtol=0.01)
    assert not model.params["0.bias"].any()
    assert model.n_params == 51_370


def test_float32_parameters_are_the_rounded_float64_ones() -> None:
    wide, narrow = ub.models.three_layer_sigmoid(1, "float64"), ub.models.three_layer_sigmoid(1)
    assert wide.astype("float32") == narrow


def test_the_seed_gives_the_same_bytes_for_ever() -> None:
    """The first numbers of default_rng(0), scaled by hand: a new NumPy or a new order of drawing would show here."""
    first = np.random.default_rng(0).random(3)
    bound = np.sqrt(6 / 5)
    weight = ub.Model([ub.Dense(2, 3)], dtype="float64").params["0.weight"]
    np.testing.assert_allclose(weight.ravel()[:3], (2 * first - 1) * bound, rtol=1e-15)


def test_parameters_can_not_be_written() -> None:
    model = ub.models.notebook_method1()
    with pytest.raises(ValueError, match="read-only"):
        model.params["0.weight"][0, 0] = 2.0
    with pytest.raises(TypeError):
        model.params["0.weight"] = np.ones((2, 2))  # type: ignore[index]


def test_the_model_does_not_follow_the_callers_array() -> None:
    weight = np.ones((1, 1))
    model = ub.Model([ub.Dense(1, 1, bias=False)], {"0.weight": weight})
    weight[:] = 5
    assert model.params["0.weight"][0, 0] == 1


@given(model=dense_models())
def test_saving_and_loading_gives_the_same_model(model: ub.Model, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    for one in (model, model.astype("float32")):
        one.save(path)
        loaded = ub.Model.load(path)
        assert loaded == one
        assert loaded.layers == one.layers
        assert loaded.dtype == one.dtype
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


def test_a_number_that_float32_does_not_hold_is_named_without_a_warning() -> None:
    model = ub.Model([ub.Dense(1, 1)], {"0.weight": np.array([[1e300]]), "0.bias": np.zeros(1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(errors.ParameterError, match=r"0.weight is inf at \(0, 0\)"):
            model.astype("float32")


def test_a_model_without_parameters_keeps_its_dtype(tmp_path: Path) -> None:
    model = ub.Model([ub.Flatten(), ub.Softmax()], dtype="float64")
    model.save(tmp_path / "m.safetensors")
    assert ub.Model.load(tmp_path / "m.safetensors").dtype == np.float64
    assert model.astype("float32").dtype == np.float32


def test_without_torch_a_model_cannot_become_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Availability(False, "PyTorch is not installed", "pip install torch")
    monkeypatch.setattr(backends, "availability", lambda name: missing)
    model = ub.models.notebook_method1()
    for call in (
        lambda: ub.to_torch(model),
        lambda: ub.from_torch(model),
        lambda: write_network(model, tmp_path / "model.pt"),
        lambda: read_network(tmp_path / "model.pt"),
    ):
        with pytest.raises(errors.TorchUnavailable, match=r"not installed.*pip install torch"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_hash_sees_weights_and_architecture() -> None:
    model = ub.models.notebook_method1()
    changed = {**model.params, "0.bias": model.params["0.bias"] + 1}
    assert model.hash() != model.with_params(changed).hash()
    other = ub.Model([ub.Dense(2, 2, "relu"), ub.Dense(2, 1)], model.params)
    assert model.hash() != other.hash()


def test_notebook_network_is_the_recorded_one() -> None:
    _, params, golden = load_golden("notebook_method1")
    model = ub.models.notebook_method1()
    assert all((model.params[name] == value).all() for name, value in params.items())
    np.testing.assert_array_equal(ub.models.NOTEBOOK_POINTS, golden["x"])


def test_a_model_is_no_function_and_says_what_is() -> None:
    model = ub.Model([ub.Dense(2, 3)])
    with pytest.raises(errors.OptionError, match=r"ub\.outputs\(model, x"):
        model(np.ones((1, 2)))
    with pytest.raises(errors.LayerError, match="layers in one list"):
        ub.Model(ub.Dense(2, 3), ub.Dense(3, 1))  # type: ignore[arg-type]


def test_flatten_is_advised_where_it_helps() -> None:
    model = ub.Model([ub.Dense(12, 3)])
    with pytest.raises(errors.ShapeError, match=r"Flatten\(\)"):
        model.output_shape((3, 4))
    with pytest.raises(errors.ShapeError, match=r"samples of 12 numbers, or make it Dense\(10, 3\)") as caught:
        model.output_shape((10,))
    assert "Flatten" not in str(caught.value)
    # Here Flatten alone would not do.
    with pytest.raises(errors.ShapeError, match=r"put Flatten\(\) before it, and make it Dense\(15, 3\)"):
        model.output_shape((3, 5))


def test_samples_in_the_place_of_their_number() -> None:
    with pytest.raises(errors.OptionError, match=r"plan\(model, 5, sample_shape=\(2,\)\)"):
        ub.plan(ub.Model([ub.Dense(2, 3)]), np.zeros((5, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in dir(ub) if isinstance(getattr(ub, name), ModuleType)])
def test_public_modules_show_their_own_names_alone(name: str) -> None:
    module = getattr(ub, name)
    shown = dir(module)
    assert shown == sorted(module.__all__)
    for one in shown:
        value = getattr(module, one)  # which is there
        assert not one.startswith("_")
        assert not isinstance(value, ModuleType)
        assert getattr(value, "__module__", "udlbridge").partition(".")[0] == "udlbridge", one


def test_completion_shows_networks_alone() -> None:
    assert {"lenet5", "three_layer_sigmoid"} <= set(dir(ub.models))
    assert {"np", "Dense", "Model"}.isdisjoint(dir(ub.models))
    assert all(name in dir(ub.models) or name == "3ls" for name in ub.models.BY_NAME)
