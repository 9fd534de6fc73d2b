"""The kernel of labels, and what is no label."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import DTypeError, InputError, NumericalError, ShapeError


def test_label_kernels() -> None:
    signs = np.array([1, -1, -1, 1])
    np.testing.assert_array_equal(ub.label_kernel(signs), np.outer(signs, signs))
    onehot = np.eye(3)[[0, 2, 2, 1]]
    np.testing.assert_array_equal(ub.label_kernel(onehot), onehot @ onehot.T)
    # Centred, the two forms are the same but for a factor.
    assert ub.alignment(ub.label_kernel(signs), ub.label_kernel(np.eye(2)[(signs > 0).astype(int)])) == pytest.approx(1)


def test_the_notebook_that_sets_every_label_to_one_is_refused() -> None:
    with pytest.raises(NumericalError, match="two classes"):
        ub.alignment(ub.label_kernel(np.ones(200)), np.diag(np.ones(200)))


def test_labels_that_are_no_labels() -> None:
    for bad in (np.array([8, 9, 9]), np.array([0, 1, 1]), np.array([[1, 1], [0, 1]]), np.array([[0.5, 0.5]])):
        with pytest.raises(InputError, match="What to do: np"):
            ub.label_kernel(bad)
    with pytest.raises(DTypeError, match=r"np\.unique"):
        ub.label_kernel(np.array(["8", "9"]))
    for bad in (np.ones((2, 2, 2)), np.zeros(0)):
        with pytest.raises(ShapeError):
            ub.label_kernel(bad)
