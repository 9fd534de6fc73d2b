"""Pictures of results by their `plot`: as wide as all others, with zeros and ranks where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot

import udlbridge as ub

X = np.linspace(-1, 1, 12).reshape(4, 3)
NETWORK = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 2)], seed=0).astype("float64")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def test_a_new_figure_is_as_wide_as_other_pictures() -> None:
    figure = ub.spectrum(ub.ntk(NETWORK, X)).plot().get_figure()
    assert figure.get_figwidth() * figure.dpi >= 1200


def test_layers_that_are_equal_stand_at_zero_and_the_budget_is_in_sight() -> None:
    ax = ub.compare_models(NETWORK, NETWORK, X).plot()
    assert (ax.lines[0].get_xdata() == 0).all()
    low, high = ax.get_xlim()
    assert low < 0
    assert high > 1e-12


def test_layers_that_differ_stand_at_their_difference() -> None:
    other = ub.to_torch(NETWORK)
    with torch.no_grad():
        other[-1].weight += 1e-3
    report = ub.compare_models(NETWORK, ub.from_torch(other), X)
    drawn = report.plot().lines[0].get_xdata()
    assert drawn[0] == 0
    assert drawn[-1] == report.steps[-1].difference > 0


def test_eigenvalues_of_the_lower_end_stand_at_their_own_ranks() -> None:
    found = ub.spectrum(np.diag(np.arange(1.0, 41.0)), k=3, dense_limit=10)
    assert not found.complete
    assert list(found.ranks[:3]) == [1, 2, 3]
    assert found.ranks[-1] == 40
    assert list(np.asarray(found.plot().lines[0].get_xdata())) == list(found.ranks)
