"""Centring a kernel in feature space."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.inputs import check_real, check_square, first_not_finite
from udlbridge.analysis.scaling import scale_exponent
from udlbridge.arrays import as_array, as_kernel
from udlbridge.errors import NumericalError


def centre(k: np.ndarray) -> Float[np.ndarray, "n n"]:
    """Centre a kernel in feature space: (I - 11'/n) K (I - 11'/n).

    Computed from the means of rows and columns in O(n^2), never by forming the centring matrix.

    Args:
        k: (n, n), symmetric or not.

    Returns:
        (n, n) float64; rows and columns sum to zero.

    Raises:
        ShapeError, DTypeError: k is not a square matrix of real numbers.
        NumericalError: it has NaN or infinity in it, or centred entries are too large for float64.

    Source: Cortes, Mohri, Rostamizadeh (2012), Lemma 1.

    Examples:
        >>> ub.centre(np.eye(2))
        array([[ 0.5, -0.5],
               [-0.5,  0.5]])
    """
    kernel = as_kernel(k)
    check_square([kernel])
    wide = check_real(as_array(kernel, "the kernel")).astype(np.float64)
    exponent = scale_exponent(float(np.abs(wide).max()))
    with np.errstate(invalid="ignore", over="ignore"):
        np.ldexp(wide, -exponent, out=wide)
        wide -= wide.mean(axis=1, keepdims=True)
        wide -= wide.mean(axis=0, keepdims=True)
        np.ldexp(wide, exponent, out=wide)
    if not np.isfinite(wide).all():
        raise NumericalError(
            first_not_finite(kernel, "the kernel"), allowed="finite numbers", remedy="find the origin of that entry"
        )
    return wide
