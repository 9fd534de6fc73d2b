"""Pictures of predictions."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from udlbridge.plots.predictions import draw_confusion
from udlbridge.plots.style import figure


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        (["setosa", "versicolor"], ["setosa", "versicolor"]),
        ([str(number) for number in range(10)], [str(number) for number in range(10)]),
    ],
)
def test_classes_have_their_names(classes: list[str], shown: list[str]) -> None:
    mpl.use("Agg")
    numbers = np.arange(len(classes))
    with figure(6.0, 5.0) as (_, ax):
        draw_confusion(ax, numbers, numbers, classes)
        assert [label.get_text() for label in ax.get_xticklabels()] == shown
        assert [label.get_text() for label in ax.get_yticklabels()] == shown


def test_of_many_classes_numbers_are_shown() -> None:
    numbers = np.arange(30)
    with figure(6.0, 5.0) as (_, ax):
        draw_confusion(ax, numbers, numbers, [f"class {number}" for number in numbers])
        assert "class 0" not in [label.get_text() for label in ax.get_xticklabels()]
