"""Reports as JSON that any reader of JSON takes, and when two of them are equal."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.reports import frozen_array, json_ready, same_fields


@dataclass(frozen=True, eq=False)
class Report:
    name: str
    values: np.ndarray


def test_everything_becomes_a_word_of_json() -> None:
    given = {
        1: (np.float32(0.5), np.int64(3), np.bool_(True), None, "x"),
        "array": np.array([[1.0, np.nan], [np.inf, -np.inf]]),
        "report": Report("r", np.arange(2)),
        "bad": [math.nan, -math.inf],
    }
    expected = {
        "1": [0.5, 3, True, None, "x"],
        "array": [[1.0, None], [None, None]],
        "report": {"name": "r", "values": [0, 1]},
        "bad": [None, None],
    }
    assert json.loads(json.dumps(json_ready(given), allow_nan=False)) == expected


def test_arrays_of_reports_are_read_only_and_compared_by_their_entries() -> None:
    values = frozen_array((1, 2))
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 3.0
    assert same_fields(Report("a", values), Report("a", np.array([1.0, 2.0])))
    assert not same_fields(Report("a", values), Report("a", np.array([1.0, 3.0])))
    assert not same_fields(Report("a", values), Report("b", values))
    assert not same_fields(Report("a", values), "a")


def test_reports_of_numbers_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """`worst` of nothing is NaN, differences of NaN are infinite, and exploded signals are: none is a word of JSON."""
    model = ub.Model([ub.Dense(3, 2)])
    x = np.ones((4, 3), dtype=np.float32)
    monkeypatch.setattr(
        "udlbridge.analysis.checking._engines", lambda asked, graph: (["reference"], {"julia": "not here"})
    )
    alone = ub.check(model, x).to_dict()
    assert (alone["worst"], alone["ok"]) == (None, False)
    broken = model.with_params({**model.params, "0.bias": np.full(2, 3e38, np.float32)})
    with np.errstate(over="ignore", invalid="ignore"):
        signals = ub.signal_report(broken, x, backend="reference").to_dict()
        port = ub.compare_models(
            broken, broken.with_params({**broken.params, "0.weight": np.full((2, 3), 3e38, np.float32)}),
            x, backend="reference",
        ).to_dict()  # fmt: skip
    assert signals["rows"][0]["gradient_std"] is None
    assert port["outputs"] is None
    for report in (alone, signals, port, ub.spectrum(np.eye(2)).to_dict()):
        json.dumps(report, allow_nan=False)
