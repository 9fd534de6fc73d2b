"""Numbers and truth values of NumPy and of Python mean the same, and become Python's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge import options, texts
from udlbridge.errors import OptionError

MODEL = ub.Model([ub.Dense(3, 2)])
WHOLE = (3, np.int64(3), np.uint8(3), np.array(3), np.array(3, dtype=">i4"))
REAL = (0.5, np.float64(0.5), np.float16(0.5), np.array(0.5), np.longdouble(0.5), Fraction(1, 2), np.array(0.5, ">f4"))
TRUE = (True, np.True_, np.array(True))


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_become_ints(value: object) -> None:
    assert json.dumps([options.checked_count("n", value, 1), options.real(value)]) == "[3, 3]"
    assert type(options.checked_positive("lr", value)) is float
    assert options.flag(value) is None


@pytest.mark.parametrize("value", REAL, ids=repr)
def test_real_numbers_become_floats(value: object) -> None:
    found = [options.checked_positive("p", value), options.checked_not_negative("p", value), options.real(value)]
    assert json.dumps(found) == "[0.5, 0.5, 0.5]"
    with pytest.raises(OptionError, match="n="):
        options.checked_count("n", value, 0)


@pytest.mark.parametrize("value", TRUE, ids=repr)
def test_truth_values_become_bools_and_are_no_numbers(value: object) -> None:
    assert options.checked_flag("bias", value) is True
    for check in (lambda: options.checked_count("n", value, 0), lambda: options.checked_positive("n", value)):
        with pytest.raises(OptionError, match="n="):
            check()


@pytest.mark.parametrize("value", [None, "3", [3], np.array([3]), 3j, np.datetime64(3, "s"), ...], ids=repr)
def test_what_is_no_number(value: object) -> None:
    assert options.whole(value) is options.real(value) is options.flag(value) is None


class Broken(str):
    """Somebody's own words, whose text fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (np.float64(0.5), "0.5"), ("a" * 200, repr("a" * 50) + "..."), (np.zeros(200), "an ndarray"),
     (Broken(), "a Broken"), (list(range(200)), "a list")],
)  # fmt: skip
def test_what_was_given_in_a_few_words(value: object, text: str) -> None:
    assert options.brief(value) == text


def test_an_option_whose_text_fails_is_refused_as_others_are() -> None:
    x = np.zeros((1, 3), np.float32)
    for call in (
        lambda: ub.models.lenet5(dtype=Broken()),  # type: ignore[arg-type]
        lambda: ub.practicals.run(Broken()),  # type: ignore[arg-type]
        lambda: ub.Dense(Broken(), 2),  # type: ignore[arg-type]
        lambda: ub.Dense(2, 2, Broken()),  # type: ignore[arg-type]
        lambda: ub.spectrum(Broken()),
        *(lambda word=word: ub.ntk(MODEL, x, **{word: Broken()}) for word in
          ("method", "outputs", "backend", "params", "device")),
        *(lambda word=word: ub.train(MODEL, x, [0], **{word: Broken()}) for word in
          ("loss", "optimizer")),
    ):  # fmt: skip
        with pytest.raises(ub.UDLBridgeError):
            call()


@pytest.mark.parametrize(
    ("word", "said"),
    {
        "int": "an int", "ndarray": "an ndarray", "Model": "a Model", "Estimate": "an Estimate", "uint8": "a uint8",
        "UserDict": "a UserDict", "udlbridge.Graph": "a udlbridge.Graph", "Unit": "a Unit", "Unpicklable":
        "an Unpicklable", "LSTM": "an LSTM", "MLP": "an MLP", "NTKOperator": "an NTKOperator", "GPT2": "a GPT2",
        "UNet": "a UNet", "_Own": "an _Own", "OneHot": "a OneHot", "": "a ",
    }.items(),
)  # fmt: skip
def test_articles(word: str, said: str) -> None:
    assert texts.with_article(word) == said


def test_one_thing_is_not_several() -> None:
    assert [texts.counted(n, "tile") for n in (0, 1, 2, 1000)] == ["0 tiles", "1 tile", "2 tiles", "1,000 tiles"]
    assert [texts.counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_zero_dimensional_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert options.checked_count("n", torch.tensor(3), 1) == 3
    assert options.checked_positive("lr", torch.tensor(0.5, requires_grad=True)) == 0.5
    assert options.checked_flag("bias", torch.tensor(True)) is True
    assert options.whole(torch.tensor([3])) is options.whole(torch.tensor(True)) is None


def test_ranges() -> None:
    with pytest.raises(OptionError, match=r"k=5\. Allowed: a whole number, at least 1, at most 4"):
        options.checked_count("k", 5, 1, 4)
    for value in (math.nan, math.inf, -1, 10**400, Fraction(10**400)):
        with pytest.raises(OptionError, match=r"lr=.*at least 0"):
            options.checked_not_negative("lr", value)
    with pytest.raises(OptionError, match="above 0"):
        options.checked_positive("lr", 0)
    with pytest.raises(OptionError, match=r"True or False"):
        options.checked_flag("bias", "no")


@pytest.mark.parametrize("value", ["c", None, ["a"], {}], ids=repr)
def test_words(value: object) -> None:
    assert type(options.checked_choice("method", np.str_("a"), ("a", "b"))) is str
    with pytest.raises(OptionError, match=r"method=.*a, b"):
        options.checked_choice("method", value, ("a", "b"))


def test_shapes() -> None:
    assert json.dumps(options.checked_shape("sample_shape", [np.int64(1), 28])) == "[1, 28]"
    assert options.checked_shape("sample_shape", ()) == ()
    for bad in (28, (0,), (1.5,), "28", None):
        with pytest.raises(OptionError, match="sample_shape="):
            options.checked_shape("sample_shape", bad)


@given(st.integers(1, 10**18))
def test_amounts_of_memory(amount: int) -> None:
    assert options.parse_bytes(np.int64(amount)) == options.parse_bytes(amount) == amount
    assert options.parse_bytes(float(amount)) == int(float(amount))


@pytest.mark.parametrize(
    "bad",
    ["²GB", "1e9", "", "GB", 0, -1, True, None, math.inf, [1], "9" * 400, 10**400, 2**63],
    ids=lambda bad: repr(bad)[:9],
)
def test_no_amounts_of_memory(bad: object) -> None:
    with pytest.raises(OptionError, match="an amount of memory"):
        options.parse_bytes(bad)  # type: ignore[arg-type]


def test_plans_of_numbers_of_numpy_are_data() -> None:
    shape, n, output = (np.int64(3),), np.int64(8), np.int64(0)
    plan = ub.plan(MODEL, n, sample_shape=shape, outputs=output, calibrate=np.False_, backend="reference")
    assert json.loads(json.dumps(plan.to_dict())) == plan.to_dict()


@pytest.mark.parametrize(
    "call",
    [
        lambda word: ub.plan(MODEL, 8, calibrate=word, backend="reference"),
        lambda word: ub.alignment(np.eye(3), np.eye(3), centred=word),
        lambda word: ub.compute_kernel(MODEL, np.zeros((2, 3), "float32"), "never", resume=word, backend="reference"),
        lambda word: ub.from_torch(ub.to_torch(MODEL), inference=word),
    ],
    ids=["calibrate", "centred", "resume", "inference"],
)
def test_a_word_is_no_truth_value(call: Callable[[object], object], untyped: None) -> None:
    with pytest.raises(OptionError, match="True or False"):
        call("no")


def test_durations_are_shown_in_units_that_people_count_in() -> None:
    shown = {0.0: "0 s", 3.14159: "3.14 s", 119.0: "119 s", 120.0: "2 min", 7200.0: "2 h", 6_894_375.3: "79.8 days"}
    assert {seconds: options.show_seconds(seconds) for seconds in shown} == shown
    assert options.show_seconds(7e17) == "2.22e+10 years"
