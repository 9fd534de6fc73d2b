"""Eigenvalues of a kernel, stored or not, and whether it is positive semidefinite."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.backends.reduction import Outputs
from udlbridge.backends.threads import numpy_blas
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, thread_count
from udlbridge.progress import spectrum_progress
from udlbridge.tolerances import rounding_unit

PSD = "PSD"
ROUNDING = "rounding"
NOT_PSD = "not PSD"
UNDECIDED = "undecided"

DENSE_LIMIT = 1 << 30
"""Bytes of the float64 copy up to which all eigenvalues are computed: n = 11,585, about two minutes on two cores."""

LAPACK_ORDER = 32_766
"""The largest order for LAPACK: from 32,767 on the workspace of its symmetric driver with eigenvectors, 1 + 6 n + 2 n^2
numbers, overflows a 32-bit integer, and what comes back is garbage or a crash. One limit serves all drivers."""

N_SMALLEST = 3
"""How many of the smallest eigenvalues a partial spectrum holds."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of an (n, n) kernel and the verdict on its positivity, with the evidence.

    `eigenvalues` ascend. `tolerance` is 10 sqrt(n) eps lambda_max with the `eps` of the kernel's dtype, or of a store's
    narrower storage; `units` is lambda_min / (eps lambda_max). `rank_bound` is the largest possible rank, min(n, P),
    where P is known.

    Where `complete` is False, the eigenvalues are the largest ones and, in front of them, the first `n_smallest` from
    the lower end, from `products` products with vectors. Then each `residuals[i]` is |K u - lambda u| of a unit vector
    u, measured: there is an eigenvalue no further than that from `eigenvalues[i]`. The smallest one is an upper bound
    of lambda_min, and `lower_bound` lies below lambda_min, except with a probability of 1e-6 over the start vector.
    """

    eigenvalues: tuple[float, ...]
    n: int
    dtype: str
    tolerance: float
    units: float
    verdict: str
    eps: float
    rank_bound: int | None = None
    complete: bool = True
    n_smallest: int = 0
    residuals: tuple[float, ...] = ()
    lower_bound: float | None = None
    products: int = 0

    @property
    def negative(self) -> int:
        """How many of the eigenvalues are below zero: the notebook's question."""
        return sum(value < 0 for value in self.eigenvalues)

    @property
    def largest(self) -> tuple[float, ...]:
        """The eigenvalues of the upper end, ascending; all of them in a complete spectrum."""
        return self.eigenvalues[self.n_smallest :]

    @property
    def smallest(self) -> tuple[float, ...]:
        """The eigenvalues of the lower end, ascending; all of them in a complete spectrum."""
        return self.eigenvalues if self.complete else self.eigenvalues[: self.n_smallest]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return {
            **asdict(self),
            "eigenvalues": list(self.eigenvalues),
            "residuals": list(self.residuals),
            "negative": self.negative,
        }

    def __str__(self) -> str:
        smallest, largest = self.eigenvalues[0], self.eigenvalues[-1]
        shown = [f"{value:.6g}" for value in self.eigenvalues]
        if len(shown) > 8:
            shown = [*shown[:4], "...", *shown[-4:]]
        count = f"{self.n}" if self.complete else f"{len(self.eigenvalues)} of {self.n}"
        stored = "" if self.eps == np.finfo(self.dtype).eps else f" stored to eps = {self.eps:.2g}"
        lines = [
            f"{self.verdict}: {count} eigenvalues of a {self.dtype} kernel{stored}, {self.negative} negative",
            f"  eigenvalues                    {' '.join(shown)}",
            f"  smallest, largest              {smallest:.6g}, {largest:.6g}",
            f"  smallest / (eps largest)       {self.units:.3g}",
            f"  tolerance 10 sqrt(n) eps max   {self.tolerance:.3g}",
        ]
        if not self.complete:
            top = max(self.residuals[self.n_smallest :])
            lines += [
                f"  residuals                      {self.residuals[0]:.3g} of the smallest, at most {top:.3g} of the "
                f"{len(self.largest)} largest",
                f"  lambda_min lies between        {self.lower_bound:.6g} and {smallest:.6g} (Lanczos, "
                f"{self.products} products; the lower end fails for one start vector in a million)",
            ]
        if self.verdict == UNDECIDED:
            lines.append("  an eigenvalue below the tolerance is neither found nor excluded: allow more products")
        if self.rank_bound is not None and self.rank_bound < self.n:
            lines.append(
                f"  rank at most {self.rank_bound}: at least {self.n - self.rank_bound} eigenvalues are zero before "
                "rounding, and small negative ones are to be expected"
            )
        return "\n".join(lines)


def spectrum(
    kernel: object,
    k: int = 20,
    *,
    rank: int | None = None,
    dense_limit: int = DENSE_LIMIT,
    max_products: int = 500,
    seed: int = 0,
    x: np.ndarray | None = None,
    outputs: Outputs = "trace",
    backend: str | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Spectrum:
    """Eigenvalues of a kernel, and the verdict on its positivity.

    All eigenvalues by LAPACK where the kernel fits; else the `k` largest and a few of the smallest by Lanczos, from
    products with vectors: over blocks of an array, over the tiles of a store, or by autodiff without any kernel.
    Everything is computed in float64 whatever the dtype of `kernel`, so that what is judged is the kernel's own
    rounding.

    The verdict: "PSD": no eigenvalue is negative. "rounding": none is below -10 sqrt(n) eps lambda_max. "not PSD": one
    is; that is a bug, or the matrix is not a Gram matrix. In a partial spectrum, "PSD" and "rounding" are said of its
    `lower_bound`, so that "PSD" is never said of a kernel whose smallest eigenvalues cannot be told from zero; where
    `max_products` were too few for either, the verdict is "undecided".

    Args:
        kernel: a symmetric matrix (n, n), float32 or float64: an array, a memory map, a kernel store, or anything with
            `shape`, `dtype` and slices; a scipy LinearOperator, as `ntk_operator` makes (always by Lanczos); or a
            `Model`, with its samples in `x`.
        k: how many of the largest eigenvalues, where not all are computed.
        rank: an upper bound of its rank, where known: P for a kernel of one output, O P for a trace. Models and their
            operators know it.
        dense_limit: bytes of the float64 copy, 8 n^2, up to which LAPACK computes all eigenvalues. 0 means never. From
            n = 32,767 on it is never, whatever the limit.
        max_products: where Lanczos stops in any case, at least k + 3. It keeps a vector of n float64 for each.
        seed: for the start vector of Lanczos.
        x: samples (n, *D) of the model, where `kernel` is one.
        outputs: of the model: an int, "trace", "mean" or "sum".
        backend: for the model, as for `udlbridge.outputs`.
        threads: for the BLAS, and for the block rows of a store; None leaves it alone.
        progress: tell of the products of a partial spectrum; None means: if standard error is a terminal.

    Raises:
        ShapeError: if it is not square.
        InputError: if it is empty, not finite, not real, or not symmetric.
        OptionError: an option that cannot be; `x` without a model, or a model without `x`.
        OutputsError: for a model and a reduction that does not give an (n, n) matrix.

    Source: the tolerance is that of numerical rank (Higham, Accuracy and Stability, 2002) with sqrt(n) for n, since
    rounding in a Gram matrix adds up at random. The bounds of a partial spectrum: `udlbridge.analysis.krylov`.
    """
    k, dense_limit = checked_count("k", k, 1), checked_count("dense_limit", dense_limit, 0)
    max_products, seed = checked_count("max_products", max_products, 1), checked_count("seed", seed, 0)
    rank = None if rank is None else checked_count("rank", rank, 0)
    threads = thread_count(threads)
    bound: int | None
    if isinstance(kernel, Model):
        kernel, bound = _of_model(kernel, x, outputs, backend, dense_limit, threads)
    elif x is not None:
        raise OptionError(
            f"x= with a kernel of type {type(kernel).__name__}",
            allowed="x= with a Model alone",
            remedy="leave x out where the kernel is there already; ub.from_torch(module) makes a Model of a module",
        )
    else:
        bound = getattr(kernel, "rank_bound", None)
    rank = bound if rank is None else rank
    if hasattr(kernel, "matvec"):
        dtype = checked_operator(kernel)
        return _partial(kernel, dtype, rounding_unit(kernel, dtype), rank, k, max_products, seed, progress)
    matrix = SlicedMatrix(kernel if hasattr(kernel, "shape") else np.asarray(kernel))
    fits = fits_lapack(len(matrix), dense_limit)
    with numpy_blas.to(threads):
        if fits or not matrix.has_product:
            matrix.check()  # one more pass over all of it, which a store of many gigabytes is spared
        if fits:
            return judged(eigenvalues(matrix), len(matrix), matrix.dtype, matrix.eps, rank)
        return _partial(matrix, matrix.dtype, matrix.eps, rank, k, max_products, seed, progress)


def fits_lapack(n: int, dense_limit: int) -> bool:
    """Whether all eigenvalues of an (n, n) matrix are to be computed within `dense_limit` bytes."""
    return n <= LAPACK_ORDER and 8 * n * n <= dense_limit


def eigenvalues(matrix: SlicedMatrix) -> np.ndarray:
    """All eigenvalues, ascending (n,), by LAPACK in float64, in the memory of one float64 copy."""
    from scipy.linalg import eigh

    # The transpose is in Fortran's order, so that LAPACK works in it without another copy; it equals the matrix.
    return np.asarray(eigh(matrix.dense().T, eigvals_only=True, overwrite_a=True, check_finite=False, driver="evd"))


def judged(values: np.ndarray, n: int, dtype: np.dtype[Any], eps: float, rank: int | None) -> Spectrum:
    """The verdict on all eigenvalues (ascending) of an (n, n) kernel whose entries are rounded to `eps`."""
    smallest = float(values[0])
    tolerance, units = _scale(smallest, float(values[-1]), n, eps)
    return Spectrum(
        eigenvalues=tuple(float(value) for value in values),
        n=n,
        dtype=dtype.name,
        tolerance=tolerance,
        units=units,
        verdict=PSD if smallest >= 0 else ROUNDING if smallest >= -tolerance else NOT_PSD,
        eps=eps,
        rank_bound=None if rank is None else min(rank, n),
    )


def _scale(smallest: float, largest: float, n: int, eps: float) -> tuple[float, float]:
    unit = eps * abs(largest)
    return float(10.0 * np.sqrt(n) * unit), smallest / unit if unit > 0 else 0.0


def _partial(
    matrix: Any,
    dtype: np.dtype[Any],
    eps: float,
    rank: int | None,
    k: int,
    max_products: int,
    seed: int,
    progress: bool | None,
) -> Spectrum:
    """Both ends by Lanczos; residuals are measured by a last product with all of the vectors."""
    from udlbridge.analysis.krylov import lanczos

    n = int(matrix.shape[0])
    least = min(n, min(k, n) + min(N_SMALLEST, n))
    if max_products < least:
        raise OptionError(
            f"max_products={max_products} for the {min(k, n)} largest eigenvalues and a few of the smallest",
            allowed=f"at least {least}", remedy="allow more products, or ask for fewer eigenvalues with k=",
        )  # fmt: skip
    with spectrum_progress(show=progress) as watch:
        ends = lanczos(
            lambda vector: matrix @ vector,
            n,
            k=min(k, n),
            n_smallest=min(N_SMALLEST, n),
            eps=eps,
            max_products=max_products,
            seed=seed,
            watch=watch,
        )
    images = np.asarray(matrix @ ends.vectors, dtype=np.float64)
    residuals = _lengths(images - ends.vectors * ends.values)
    smallest = float(ends.values[0])
    tolerance, units = _scale(smallest, float(ends.values[-1]), n, eps)
    if smallest < -tolerance:
        verdict = NOT_PSD
    elif ends.lower_bound >= -tolerance:
        verdict = PSD if ends.lower_bound >= 0 else ROUNDING
    else:
        verdict = UNDECIDED
    return Spectrum(
        eigenvalues=tuple(float(value) for value in ends.values),
        n=n,
        dtype=dtype.name,
        tolerance=tolerance,
        units=units,
        verdict=verdict,
        eps=eps,
        rank_bound=None if rank is None else min(rank, n),
        complete=len(ends.values) == n,
        n_smallest=0 if len(ends.values) == n else ends.n_smallest,
        residuals=tuple(float(value) for value in residuals),
        lower_bound=ends.lower_bound,
        products=ends.products,
    )


def _lengths(columns: np.ndarray) -> np.ndarray:
    """Euclidean norms of the columns, (k,), also where squares underflow or overflow."""
    scale = float(np.abs(columns).max(initial=0.0))
    return np.linalg.norm(columns / scale, axis=0) * scale if scale > 0 else np.zeros(columns.shape[1])


def _of_model(
    model: Model, x: np.ndarray | None, outputs: Outputs, backend: str | None, dense_limit: int, threads: int | None
) -> tuple[object, int]:
    """The kernel of a model where LAPACK takes it, else the operator; and the bound of its rank."""
    from udlbridge.kernels.ntk import ntk
    from udlbridge.kernels.operators import ntk_operator

    if x is None:
        raise OptionError("a Model without samples", allowed="spectrum(model, x=samples)", remedy="give x=")
    operator = ntk_operator(model, x, outputs=outputs, backend=backend, threads=threads)
    if fits_lapack(operator.shape[0], dense_limit):
        return ntk(model, x, outputs=outputs, backend=backend, threads=threads), operator.rank_bound
    return operator, operator.rank_bound


def checked_operator(operator: Any) -> np.dtype[Any]:
    """The dtype of a square, real LinearOperator.

    Raises:
        ShapeError, InputError: if it is not square, is empty, or not real.
    """
    shape, dtype = tuple(operator.shape), np.dtype(operator.dtype)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ShapeError(f"the operator has shape {shape}", allowed="(n, n)", remedy="take a square one")
    if shape[0] == 0:
        raise InputError("the operator is empty", allowed="n >= 1", remedy="check the selection of samples")
    if dtype.kind != "f":
        raise InputError(f"the operator has dtype {dtype}", allowed="float32 or float64", remedy="state its dtype")
    return dtype
