"""What a user gets for bad input: an error of ours that says what was given, what is allowed and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import errors
from udlbridge.backends.reduction import Outputs

pytestmark = pytest.mark.usefixtures("untyped")

MODEL = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 2)], seed=0)
GOOD = np.ones((5, 3), dtype=np.float32)


def with_entry(value: float) -> np.ndarray:
    x = GOOD.copy()
    x[2, 1] = value
    return x


BATCHES = {
    "nan": (with_entry(np.nan), errors.InputError, r"x is nan at \(2, 1\).*finite"),
    "infinity": (with_entry(np.inf), errors.InputError, r"x is inf at \(2, 1\).*finite"),
    "wrong width": (np.ones((5, 4), dtype=np.float32), errors.ShapeError, r"layer 0.*\(4,\).*last axis of 3"),
    "empty": (np.ones((0, 3), dtype=np.float32), errors.InputError, r"\(0, 3\).*at least one sample"),
    "one axis": (np.ones(3, dtype=np.float32), errors.ShapeError, r"\(3,\).*x\[None\]"),
    "integers": (np.ones((5, 3), dtype=np.int64), errors.DTypeError, r"int64.*float32.*np.asarray"),
    "float64": (
        GOOD.astype(np.float64),
        errors.DTypeError,
        r'float64.*float32.*x\.astype.*or model\.astype\("float64"',
    ),
    "float16": (GOOD.astype(np.float16), errors.DTypeError, r"float16.*float32"),
    "objects": (np.array([[1, 2, 3], [4, 5, None]], dtype=object), errors.DTypeError, r"object.*rectangular"),
    "complex": (GOOD.astype(np.complex64), errors.DTypeError, r"complex64.*real"),
    "strings": (np.full((5, 3), "a"), errors.DTypeError, r"float32"),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("function", [ub.outputs, ub.jacobian, ub.input_jacobian, ub.ntk])
def test_bad_batch(function, name: str) -> None:
    x, error, message = BATCHES[name]
    with pytest.raises(error, match=message) as caught:
        function(MODEL, x, backend="reference")
    assert isinstance(caught.value, ub.UDLBridgeError)
    assert caught.value.remedy


def test_bad_second_batch() -> None:
    with pytest.raises(errors.ShapeError, match=r"\(4,\)"):
        ub.ntk(MODEL, GOOD, np.ones((5, 4), dtype=np.float32), backend="reference")
    with pytest.raises(errors.DTypeError, match="x2"):
        ub.ntk(MODEL, GOOD, GOOD.astype(np.float64), backend="reference")
    sequence = ub.Model([ub.Flatten()], dtype="float64")
    with pytest.raises(errors.ShapeError, match=r"x2.*\(3, 2\).*\(2, 3\)"):
        ub.ntk(sequence, np.ones((1, 2, 3)), np.ones((1, 3, 2)), backend="reference")


@pytest.mark.parametrize(
    "outputs",
    [2, -1, "largest", 1.5, None, True, "²", "--1", "-1", "2", np.True_, np.array(1.5), np.eye(2, dtype=int), "١"],
)
def test_outputs_out_of_range(outputs: object) -> None:
    with pytest.raises(errors.OutputsError, match=r"from 0 to 1, or one of trace, mean, sum, diagonal, full"):
        ub.ntk(MODEL, GOOD, outputs=outputs, backend="reference")  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", ["1", np.int64(1), np.uint8(1), np.array(1)], ids=repr)
def test_numbers_of_an_output(outputs: object) -> None:
    found = ub.ntk(MODEL, GOOD, outputs=outputs, backend="reference")  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, ub.ntk(MODEL, GOOD, outputs=1, backend="reference"))


def test_model_with_matrix_outputs_has_no_kernel() -> None:
    with pytest.raises(errors.ShapeError, match=r"Flatten"):
        ub.ntk(MODEL, np.ones((5, 2, 3), dtype=np.float32), backend="reference")


@pytest.mark.parametrize("name", ["tensorflow", "", "Torch"])
def test_unknown_backend(name: str) -> None:
    with pytest.raises(errors.UnknownBackend, match=r"julia, torch, reference"):
        ub.ntk(MODEL, GOOD, backend=name)


def test_unknown_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_BACKEND", "jax")
    with pytest.raises(errors.UnknownBackend, match=r"jax.*julia, torch, reference"):
        ub.outputs(MODEL, GOOD)


def test_unknown_method_and_device() -> None:
    with pytest.raises(errors.OptionError, match=r"auto, structured, plain"):
        ub.ntk(MODEL, GOOD, method="fast", backend="reference")  # type: ignore[arg-type]
    with pytest.raises(errors.OptionError, match=r"cpu"):
        ub.ntk(MODEL, GOOD, device="tpu", backend="torch")
    with pytest.raises(errors.OptionError, match=r"cpu"):
        ub.ntk(MODEL, GOOD, device="cuda", backend="reference")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gelu", "gelu_tanh.*gelu_erf"), ("sine", "identity, relu.*perhaps 'sin'"), ("sigmod", "perhaps 'sigmoid'")],
)
def test_unknown_activation(name: str, hint: str) -> None:
    with pytest.raises(errors.LayerError, match=hint):
        ub.Dense(2, 2, name)


@pytest.mark.parametrize(("a", "b"), [(0, 2), (2, -1), (2.0, 2), (True, 2), (np.int64(0), 2), (2, np.bool_(True))])
def test_impossible_widths(a: object, b: object) -> None:
    with pytest.raises(errors.LayerError, match=r"at least 1"):
        ub.Dense(a, b)  # type: ignore[arg-type]


def test_layers_that_do_not_chain() -> None:
    with pytest.raises(
        errors.ShapeError, match=r"layer 1 \(dense\) does not fit after layer 0.* 4 features.*5 features"
    ):
        ub.Model([ub.Dense(3, 4), ub.Dense(5, 2)])


def test_not_layers() -> None:
    with pytest.raises(errors.LayerError, match=r"at least one"):
        ub.Model([])
    with pytest.raises(errors.LayerError, match=r"item 1.*str"):
        ub.Model([ub.Dense(3, 4), "relu"])  # type: ignore[list-item]


def parameters(**changes: object) -> dict:
    return {**MODEL.params, **{name.replace("_", "."): value for name, value in changes.items()}}


PARAMETERS = {
    "unknown": (parameters(w=np.ones(1)), r"unknown: 'w'.*0.weight \(4, 3\); 0.bias \(4,\)"),
    "missing": ({k: v for k, v in MODEL.params.items() if k != "1.bias"}, r"missing: 1.bias.*1.bias \(2,\)"),
    "transposed": ({**MODEL.params, "0.weight": np.ones((3, 4), np.float32)}, r"\(3, 4\).*transposed.*\(4, 3\)"),
    "misshapen": ({**MODEL.params, "0.bias": np.ones(5, np.float32)}, r"\(5,\).*0.bias \(4,\)"),
    "integers": ({**MODEL.params, "0.bias": np.ones(4, np.int64)}, r"int64.*float32 or float64"),
    "mixed": ({**MODEL.params, "0.bias": np.ones(4)}, r"several dtypes: float32, float64"),
    "nan": ({**MODEL.params, "0.bias": np.array([0, np.nan, 0, 0], np.float32)}, r"0.bias is nan at \(1,\)"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_bad_parameters(name: str) -> None:
    params, message = PARAMETERS[name]
    with pytest.raises(errors.ParameterError, match=message):
        ub.Model(MODEL.layers, params)


def test_bad_model_dtype() -> None:
    with pytest.raises(errors.DTypeError, match=r"float16.*float32.*float64"):
        ub.Model(MODEL.layers, dtype="float16")
    with pytest.raises(errors.DTypeError, match=r"float32"):
        MODEL.astype("int8")


def test_bad_model_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    whole = tmp_path / "whole.safetensors"
    MODEL.save(whole)
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole.read_bytes()[:-7])
    with pytest.raises(errors.ModelFileError, match=r"truncated.safetensors.*not a readable.*again"):
        ub.Model.load(truncated)
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    with pytest.raises(errors.ModelFileError, match=r"not a readable"):
        ub.Model.load(empty)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": np.ones(2)}, foreign)
    with pytest.raises(errors.ModelFileError, match=r"no udlbridge spec"):
        ub.Model.load(foreign)
    with pytest.raises(errors.ModelFileError, match=r"no model file"):
        ub.Model.load(tmp_path / "absent.safetensors")

    def rewritten(**changes: object) -> Path:
        path = tmp_path / "rewritten.safetensors"
        save_file(dict(MODEL.params), path, metadata={"udlbridge": json.dumps({**MODEL.spec(), **changes})})
        return path

    with pytest.raises(errors.ModelFileError, match=r"format version 99.*version 1.*update udlbridge"):
        ub.Model.load(rewritten(format=99))
    with pytest.raises(errors.ModelFileError, match=r"kind 'hologram'.*dense"):
        ub.Model.load(rewritten(layers=[{"kind": "hologram"}]))
    with pytest.raises(errors.ModelFileError, match=r"settings.*in_features"):
        ub.Model.load(rewritten(layers=[{"kind": "dense", "colour": 3}]))


def test_bad_kernels_for_a_spectrum() -> None:
    eye = np.eye(3)
    for bad, message in (
        (np.ones((2, 3)), r"\(2, 3\).*\(n, n\)"),
        (np.ones((2, 2, 1, 1)), r'outputs="trace"'),
        (np.ones((0, 0)), r"empty"),
        (np.eye(2, dtype=complex), r"complex128"),
        (np.diag([1.0, np.nan]), r"nan at \(1, 1\)"),
        (eye + np.triu(np.ones((3, 3)), 1), r"not symmetric"),
    ):
        with pytest.raises(errors.InputError, match=message):
            ub.spectrum(bad)


def test_check_wants_two_engines() -> None:
    with pytest.raises(errors.OptionError, match=r"at least two"):
        ub.check(MODEL, GOOD, backends=["torch", "torch"])


def test_bad_options_of_a_spectrum() -> None:
    for options, message in (({"k": 0}, "k=0"), ({"dense_limit": -1}, "dense_limit=-1"), ({"k": 2.5}, r"k=2\.5")):
        with pytest.raises(errors.OptionError, match=message):
            ub.spectrum(np.eye(3), **options)
    with pytest.raises(errors.OptionError, match=r"type ndarray.*with a network alone"):
        ub.spectrum(np.eye(3), x=GOOD)
    with pytest.raises(errors.OptionError, match=r"without samples"):
        ub.spectrum(MODEL)
    with pytest.raises(errors.DTypeError, match=r"float64.*float32"):
        ub.spectrum(MODEL, x=GOOD.astype(np.float64), backend="reference")


@pytest.mark.parametrize("outputs", ["full", "diagonal", [1, 0]])
def test_operators_are_matrices(outputs: Outputs) -> None:
    with pytest.raises(errors.OutputsError, match=rf"{re.escape(str(outputs))}.*keeps the outputs apart.*trace"):
        ub.ntk_operator(MODEL, GOOD, outputs=outputs, backend="reference")
    with pytest.raises(errors.OutputsError, match=r"keeps the outputs apart"):
        ub.spectrum(MODEL, x=GOOD, outputs=outputs, backend="reference")


def test_bad_operators() -> None:
    from scipy.sparse.linalg import LinearOperator

    for shape, dtype, message in (((2, 3), float, r"\(2, 3\)"), ((2, 2), complex, "complex128")):
        with pytest.raises(errors.InputError, match=message):
            ub.spectrum(LinearOperator(shape, matvec=lambda v: v, dtype=dtype))
    with pytest.raises(errors.InputError, match="not finite"):
        ub.spectrum(LinearOperator((9, 9), matvec=lambda v: v * np.nan, dtype=float))
    with pytest.raises(errors.OptionError, match="batch=0"):
        ub.ntk_operator(MODEL, GOOD, backend="reference", batch=0)


def test_bad_repairs() -> None:
    with pytest.raises(errors.OptionError, match=r"'nearest'.*threshold, displace, closest"):
        ub.repair(np.eye(2), "nearest")
    with pytest.raises(errors.ShapeError, match=r"\(2, 3\)"):
        ub.repair(np.ones((2, 3)))
    with pytest.raises(errors.NumericalError, match=r"-1 at \(1, 1\).*threshold"):
        ub.repair(np.diag([1.0, -1.0]), "closest")


def test_a_word_in_the_place_of_the_model() -> None:
    for compute in (ub.signal_report, ub.features, ub.ntk, ub.check):
        with pytest.raises(errors.OptionError, match=r"a str in the place of the model.*torch\.nn\.Module"):
            compute("3ls", GOOD)
