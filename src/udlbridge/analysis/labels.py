"""The kernel of labels."""

from __future__ import annotations

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.errors import InputError, ShapeError
from udlbridge.kernels.factored import FactoredKernel


def label_kernel(y: np.ndarray) -> FactoredKernel:
    """The kernel of the labels, Y Y', as a lazy kernel: it takes the memory of Y.

    Args:
        y: (n,) of -1 and +1, or one-hot (n, classes).

    Returns:
        A lazy kernel (n, n) of float64, which reads like an array: +1 and -1 for signs; 1 for equal and 0 for
        different classes otherwise. `np.asarray` of it is all of it.

    Raises:
        InputError, ShapeError, DTypeError: y is neither of the two.

    Source: Cortes, Mohri, Rostamizadeh (2012), section 2.

    Examples:
        >>> np.asarray(ub.label_kernel([1, 1, -1]))
        array([[ 1.,  1., -1.],
               [ 1.,  1., -1.],
               [-1., -1.,  1.]])
    """
    array = as_array(y, "the labels")
    if array.dtype.kind not in "biuf" or array.size == 0 or array.ndim not in (1, 2):
        raise ShapeError(
            f"labels of shape {array.shape} and dtype {array.dtype}",
            allowed="(n,) of -1 and +1, or one-hot (n, classes)",
            remedy="np.where(labels == positive, 1.0, -1.0)",
        )
    wide = array.astype(np.float64)
    if array.ndim == 1:
        if not (np.abs(wide) == 1).all():
            raise InputError(
                f"labels with the values {np.unique(array)[:5].tolist()}",
                allowed="-1 and +1 in an array (n,), or one-hot (n, classes)",
                remedy="np.where(labels == positive, 1.0, -1.0), or np.eye(n_classes)[labels]",
            )
        return FactoredKernel(wide[:, None])
    if not (np.isin(wide, (0.0, 1.0)).all() and (wide.sum(axis=1) == 1).all()):
        raise InputError(
            "labels of two axes that are not one-hot",
            allowed="a single 1 in every row, otherwise 0",
            remedy="np.eye(n_classes)[labels]",
        )
    return FactoredKernel(wide)
