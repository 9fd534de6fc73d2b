"""The study of linearisation: departures fall with the width, in every engine, and the closed form is met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import OptionError

MODEL = ub.Model([ub.Dense(3, 8, "tanh"), ub.Dense(8, 1)], dtype="float64")
X = np.random.default_rng(0).standard_normal((8, 3))
Y = np.sin(2 * X[:, 0])


@pytest.mark.slow
def test_departures_fall_with_the_width(tmp_path: Path) -> None:
    from udlbridge.plots.linearization import linearization_figure

    study = ub.study_linearization(MODEL, X, Y, widths=(32, 512), steps=20, draws=3, engines=["reference", "torch"])
    for name in ("reference", "torch"):
        assert study.closed_form[name].max() < 1e-8
        assert -0.9 < study.slope(name) < -0.25
    np.testing.assert_allclose(study.network["torch"], study.network["reference"], rtol=1e-6)
    assert "slope" in str(study)
    assert study.to_dict()["widths"] == [32, 512]
    figure = linearization_figure(study)
    figure.savefig(tmp_path / "study.png")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), study.network["reference"][0])


def test_every_engine_can_be_studied(backend: str) -> None:
    study = ub.study_linearization(MODEL, X, Y, widths=(16,), steps=4, draws=1, engines=[backend])
    assert study.closed_form[backend].max() < 1e-8


def test_bad_options_are_named(untyped: None) -> None:
    for options in ({"widths": ()}, {"widths": (0,)}, {"steps": 0}, {"draws": 0}, {"rate": 1.0}, {"rate": -1}):
        with pytest.raises(OptionError):
            ub.study_linearization(MODEL, X, Y, **options)  # type: ignore[arg-type]
