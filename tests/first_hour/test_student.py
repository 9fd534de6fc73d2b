"""A student with scikit-learn's digits: a kernel classifier, and what the kernel of a small network knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("sklearn")

if TYPE_CHECKING:
    from conftest import Desk

DIGITS = """
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
import udlbridge as ub
from udlbridge.estimators import NTKClassifier

images, digits = load_digits(return_X_y=True)
x, y = images[:200] / 16, digits[:200]
print("right:", cross_val_score(NTKClassifier(depth=3), x, y, cv=4).mean() > 0.85)

network = ub.init.he(ub.Model([ub.Dense(64, 128, "relu"), ub.Dense(128, 10)], dtype="float64"), seed=0)
target = ub.label_kernel(np.eye(10)[y])
before = ub.alignment(ub.ntk(network, x, params="hidden"), target)
run = ub.train(network, x, np.eye(10)[y], epochs=30, batch_size=20, loss="mse", optimizer=("adam", {"lr": 0.003}))
after = ub.alignment(ub.ntk(run.model, x, params="hidden"), target)
print("learned:", run.losses[-1] < 0.2 * run.losses[0], "aligned:", after > before)
try:
    ub.ntk(network, images)
    ub.ntk(network, images.astype("float32"))
except ub.UDLBridgeError as error:
    print("told:", error)
"""


@pytest.mark.slow
def test_the_hour(desk: Desk) -> None:
    heard = desk.script("digits.py", DIGITS)
    assert "right: True" in heard
    assert "learned: True aligned: True" in heard
    assert "told:" in heard
    assert "float64" in heard.split("told:")[1]
    assert "What to do" in heard.split("told:")[1]
