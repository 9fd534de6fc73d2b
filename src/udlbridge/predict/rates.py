"""The largest learning rate for which training converges, from the largest eigenvalue of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from udlbridge.arrays import as_kernel
from udlbridge.errors import OptionError, ShapeError
from udlbridge.options import brief, checked_count, checked_not_negative
from udlbridge.predict.systems import as_matrix, check_semidefinite, check_symmetric, checked_kernel

DENSE = 500
"""Up to this order all eigenvalues are computed; beyond, the largest one alone, by products with vectors."""


def max_learning_rate(kernel: Any, size: int | None = None, momentum: float = 0.0) -> float:
    """2 (1 + momentum) size / lambda_max, below which gradient descent on 0.5 / size sum (f - y)^2 converges.

    Args:
        kernel: the kernel of the training samples: an array (n, n) or (n, n, O, O), a store, or an `NTKOperator`.
        size: how many targets there are, n O; None means the order of the kernel's matrix.
        momentum: of heavy-ball gradient descent, from 0 to below 1.

    Raises:
        OptionError: a size below 1, or a momentum outside [0, 1).
        InputError, ShapeError: what is wrong with the kernel.
        NumericalError: it is not positive semidefinite; looked at where all eigenvalues are computed, up to order 500.

    Source: Lee et al. (2019), section 2.2; Goh (2017) for momentum.
    """
    if checked_not_negative("momentum", momentum) >= 1:
        raise OptionError(f"momentum={brief(momentum)}", allowed="a number from 0 to below 1", remedy="correct it")
    largest, order = _largest_eigenvalue(kernel)
    count = order if size is None else checked_count("size", size, 1)
    return 2.0 * (1.0 + float(momentum)) * count / largest if largest > 0 else float("inf")


def _largest_eigenvalue(kernel: Any) -> tuple[float, int]:
    kernel = as_kernel(kernel)
    by_products = hasattr(kernel, "__matmul__") and not isinstance(kernel, np.ndarray) and hasattr(kernel, "shape")
    matrix = kernel if by_products else as_matrix(checked_kernel("the kernel", kernel))
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ShapeError(f"the kernel has shape {shape}", allowed="(n, n)", remedy="give that of the training samples")
    if not by_products:
        check_symmetric("the kernel", matrix)
    n = shape[0]
    if n <= DENSE:
        dense = matrix @ np.eye(n) if by_products else matrix
        values = np.linalg.eigvalsh(np.asarray(dense, dtype=np.float64))
        check_semidefinite(values)
        return float(values[-1]), n
    operator = LinearOperator((n, n), matvec=lambda v: np.asarray(matrix @ v, dtype=np.float64), dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", return_eigenvectors=False, tol=1e-12)[0]), n
