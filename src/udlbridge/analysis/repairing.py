"""Making a symmetric matrix positive semidefinite, in three ways that change different things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.analysis.spectra import LAPACK_ORDER
from udlbridge.arrays import as_kernel
from udlbridge.displays import Displayed, scalars
from udlbridge.errors import NumericalError, OptionError
from udlbridge.options import checked_choice
from udlbridge.reports import same_fields
from udlbridge.tolerances import relative_difference

CLOSE_ENOUGH = 1e-6
"""How far "closest" may leave the diagonal, relative to its largest entry, before it is put right by scaling."""


@dataclass(frozen=True, eq=False, repr=False)
class Repair(Displayed):
    """A repaired kernel (n, n), of the dtype of the original, and what was changed.

    `smallest` is lambda_min before. `change` is the Frobenius norm of the difference relative to that of the original,
    `diagonal_change` the largest difference on the diagonal relative to its largest entry.

    Examples:
        >>> found = ub.repair(np.array([[1.0, 2.0], [2.0, 1.0]]))
        >>> found.method, round(found.smallest, 6)
        ('threshold', -1.0)
    """

    kernel: np.ndarray
    method: str
    smallest: float
    change: float
    diagonal_change: float

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.method, self.smallest, self.change))

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows: one row."""
        return [scalars(self)]

    def __str__(self) -> str:
        return (
            f"{self.method}: smallest eigenvalue before {self.smallest:.6g}; changed by {self.change:.3g} of the "
            f"matrix (Frobenius), {self.diagonal_change:.3g} of the diagonal"
        )


def threshold(matrix: np.ndarray) -> np.ndarray:
    """Negative eigenvalues become zero: the nearest positive semidefinite matrix in the Frobenius norm.

    Source: Higham, Computing a nearest symmetric positive semidefinite matrix (1988), theorem 2.1.
    """
    root = _positive_root(matrix)
    return root @ root.T


def displace(matrix: np.ndarray) -> np.ndarray:
    """|lambda_min| is added to the diagonal where lambda_min is negative: eigenvectors and gaps stay as they are.

    The nearest matrix of the form K + c I, and in the spectral norm the nearest of all (Higham 1988, section 3).
    """
    values = np.linalg.eigvalsh(matrix)
    # Eigenvalues are known to rounding in the largest; where all are equal, that is more than what is left of them.
    known = len(values) * np.finfo(np.float64).eps * float(np.abs(values).max())
    return matrix + max(known - float(values[0]), 0.0) * np.eye(len(matrix))


def closest(matrix: np.ndarray) -> np.ndarray:
    """The nearest positive semidefinite matrix, in the Frobenius norm, that has the same diagonal.

    The diagonal of a kernel holds the squared lengths of the features, which `threshold` and `displace` make longer.
    The solution is (K + diag(y))_+, where _+ takes the negative eigenvalues away and y minimises the smooth convex
    function |(K + diag(y))_+|^2 / 2 - <diagonal, y>, whose gradient is the error of the diagonal; this takes far
    fewer steps than alternating projections. Finally the rows of a factor are scaled to the lengths that the diagonal
    asks for: that makes the diagonal right to the last digit, and the product of a factor with its transpose stays
    positive semidefinite however small an entry of the diagonal is.

    Args:
        matrix: symmetric, without negative entries on the diagonal, since no such matrix has one.

    Raises:
        NumericalError: no convergence.

    Source: Higham, Computing the nearest correlation matrix (2002), for the problem; Malick, A dual approach to
    semidefinite least-squares problems (2004), for the method, by L-BFGS.
    """
    from scipy.optimize import minimize

    wanted = np.diagonal(matrix).copy()
    result = np.zeros_like(matrix)
    live = np.flatnonzero(wanted)  # a zero on the diagonal makes its row and column zero
    if live.size == 0:
        return result
    inner = np.ix_(live, live)
    unit = float(wanted.max())
    given, diagonal = matrix[inner] / unit, wanted[live] / unit

    def dual(y: np.ndarray) -> tuple[float, np.ndarray]:
        positive = threshold(given + np.diag(y))
        return float((positive**2).sum()) / 2 - float(diagonal @ y), np.diagonal(positive) - diagonal

    found = minimize(
        dual, np.zeros(len(live)), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 0.0, "gtol": 1e-8}
    )
    wrong = float(np.abs(found.jac).max())
    if wrong > CLOSE_ENOUGH:
        raise NumericalError(
            f"the search for the closest matrix stopped with {wrong:.2g} of the diagonal still wrong ({found.message})",
            allowed=f"{CLOSE_ENOUGH:.0e}",
            remedy='use method="threshold"',
        )
    result[inner] = unit * _with_diagonal(_positive_root(given + np.diag(found.x)), diagonal)
    return result


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "threshold": threshold,
    "displace": displace,
    "closest": closest,
}
"""The registry: name of every repair, and the function on a symmetric float64 matrix."""


def repair(k: object, method: str = "threshold") -> Repair:
    """A positive semidefinite matrix near a symmetric one.

    | method | what it does | what it keeps |
    |---|---|---|
    | "threshold" | negative eigenvalues become 0 | eigenvectors, positive eigenvalues; nearest in Frobenius norm |
    | "displace" | adds abs(lambda_min) to the diagonal | eigenvectors, gaps, everything off the diagonal |
    | "closest" | nearest in Frobenius norm among those with the diagonal of `k` | the diagonal |

    What comes back is "PSD" or "rounding" to `spectrum`; a matrix without negative eigenvalues comes back unchanged. A
    kernel that `spectrum` calls "not PSD" has a bug behind it, or is not a Gram matrix: repairing hides that. The work
    is done in float64 and rounded to the dtype of `k` in the end (integers to float64), so that the smallest eigenvalue
    can be negative again by rounding, but not by more.

    Args:
        k: a symmetric matrix (n, n) of real numbers: an array, a memory map or a kernel store.
        method: "threshold", "displace" or "closest".

    Raises:
        OptionError: an unknown method, or n above what LAPACK takes.
        ShapeError, InputError: as `udlbridge.spectrum`.
        NumericalError: "closest" and a negative entry on the diagonal, or no convergence; entries that have become too
            large for the dtype.

    Examples:
        >>> k = ub.repair(np.array([[1.0, 2.0], [2.0, 1.0]])).kernel
        >>> ub.spectrum(k).verdict
        'PSD'
    """
    method = checked_choice("method", method, METHODS)
    source = SlicedMatrix(as_kernel(k))
    if len(source) > LAPACK_ORDER:
        raise OptionError(
            f"a kernel of order {len(source)}",
            allowed=f"n up to {LAPACK_ORDER}: a repair needs all eigenvectors at once",
            remedy="repair the kernel of fewer samples",
        )
    source.check()
    matrix, exponent = source.dense()
    worst = int(np.diagonal(matrix).argmin())
    if method == "closest" and matrix[worst, worst] < 0:
        raise NumericalError(
            f"the kernel is {np.ldexp(matrix[worst, worst], exponent):.6g} at {(worst, worst)}",
            allowed='a diagonal without negative entries, which method="closest" keeps',
            remedy='use method="threshold"',
        )
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    repaired = METHODS[method](matrix) if smallest < 0 else matrix
    repaired = (repaired + repaired.T) / 2
    with np.errstate(over="ignore"):
        result = np.ldexp(repaired, exponent).astype(source.dtype)
    if not np.isfinite(result).all():
        raise NumericalError(
            f"the repaired kernel has entries beyond the range of {source.dtype}",
            allowed="finite numbers",
            remedy="divide the kernel by a power of two: nothing but the unit changes",
        )
    rounded = np.ldexp(result.astype(np.float64), -exponent)
    norm = float(np.linalg.norm(matrix))
    return Repair(
        kernel=result,
        method=method,
        smallest=float(np.ldexp(smallest, exponent)),
        change=float(np.linalg.norm(rounded - matrix)) / norm if norm > 0 else 0.0,
        diagonal_change=relative_difference(np.diagonal(rounded), np.diagonal(matrix)),
    )


def _positive_root(matrix: np.ndarray) -> np.ndarray:
    """A factor R (n, r) with R R' = the matrix without its negative eigenvalues, for the r positive ones."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > 0
    return vectors[:, keep] * np.sqrt(values[keep])


def _with_diagonal(root: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """S R R' S with the diagonal matrix S that makes the rows of S R as long as `diagonal` says.

    A row of zeros stays a row of zeros, but for its entry on the diagonal.
    """
    lengths = np.linalg.norm(root, axis=1)
    scale = np.divide(np.sqrt(diagonal), lengths, out=np.zeros_like(lengths), where=lengths > 0)
    scaled = root * scale[:, None]
    result = scaled @ scaled.T
    np.fill_diagonal(result, diagonal)
    return result
