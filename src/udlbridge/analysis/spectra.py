"""Eigenvalues of a kernel, stored or not: all of them by LAPACK, or both ends by products with vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.analysis.krylov import lanczos
from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.analysis.scaling import UnitProduct
from udlbridge.analysis.verdicts import NOT_PSD, PSD, ROUNDING, UNDECIDED, Spectrum, in_units, judged, tolerance_of
from udlbridge.arrays import as_kernel
from udlbridge.backends.reduction import Outputs
from udlbridge.backends.threads import numpy_blas
from udlbridge.calls import explained
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.kernels.request import as_network
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import is_julia, is_module
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection
from udlbridge.options import checked_count, checked_seed, thread_count
from udlbridge.progress import spectrum_progress
from udlbridge.tolerances import rounding_unit
from udlbridge.words import EngineWord

DENSE_LIMIT = 1 << 30
"""Bytes of the float64 copy up to which all eigenvalues are computed: n = 11,585, about two minutes on two cores."""

LAPACK_ORDER = 32_766
"""The largest order for LAPACK: from 32,767 on the workspace of its symmetric driver with eigenvectors, 1 + 6 n + 2 n^2
numbers, overflows a 32-bit integer, and what comes back is garbage or a crash. One limit serves all drivers."""

N_SMALLEST = 3
"""How many of the smallest eigenvalues a partial spectrum holds."""


@explained()
def spectrum(
    kernel: object,
    k: int = 20,
    *,
    rank: int | None = None,
    dense_limit: int = DENSE_LIMIT,
    max_products: int = 500,
    seed: int | None = None,
    x: Any = None,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    threads: int | None = None,
    device: Any = None,
    progress: bool | None = None,
    output: Any = None,
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

    What a partial spectrum promises is a matter of its start vector: with a probability of 1 - 1e-6 over the draw,
    no eigenvalue lies below `lower_bound`, whatever the matrix is, provided that it was not made for this very start.
    So the default draws one anew at every call; `seed` draws the same again, and is for repeating.

    Args:
        kernel: a symmetric matrix (n, n) of real numbers: an array, a memory map, a kernel store, or anything with
            `shape`, `dtype` and slices; a scipy LinearOperator, as `ntk_operator` makes (always by Lanczos); or a
            `Model` or a `torch.nn.Module`, with its samples in `x`.
        k: how many of the largest eigenvalues, where not all are computed.
        rank: an upper bound of its rank, where known: P for a kernel of one output, O P for a trace. Models and their
            operators know it.
        dense_limit: bytes of the float64 copy, 8 n^2, up to which LAPACK computes all eigenvalues. 0 means never. From
            n = 32,767 on it is never, whatever the limit.
        max_products: where Lanczos stops in any case, at least k + 3. It keeps a vector of n float64 for each.
        seed: for the start vector of Lanczos; None draws it anew. The result holds it.
        x: samples (n, *D) of the model, where `kernel` is one.
        outputs: of the model: an int, "trace", "mean" or "sum".
        params: of the model: which parameters the kernel sums over, as for `udlbridge.ntk`.
        backend: for the model, as for `udlbridge.outputs`.
        threads: for the BLAS, and for the block rows of a store; None leaves it alone.
        device: of the model: where torch computes its kernel, as for `udlbridge.ntk`; eigenvalues are the CPU's work.
        progress: tell of the products of a partial spectrum; None means: if standard error is a terminal.
        output: of a module, as for `udlbridge.as_network`.

    Raises:
        ShapeError: if it is not square.
        InputError: if it is empty, not finite, not real, or not symmetric.
        OptionError: an impossible option; `x`, `params` or `device` without a model, or a model without `x`.
        ParameterError: a pattern in `params` that matches nothing.
        OutputsError: for a model and a reduction that does not give an (n, n) matrix.
        NumericalError: an eigenvalue is too large for float64.

    Source: the tolerance is that of numerical rank (Higham, Accuracy and Stability, 2002) with sqrt(n) for n, since
    rounding in a Gram matrix adds up at random. The bounds of a partial spectrum: `udlbridge.analysis.krylov`.

    Examples:
        >>> ub.spectrum(np.diag([1.0, 2.0])).eigenvalues
        array([1., 2.])
        >>> ub.spectrum(np.array([[1.0, 2.0], [2.0, 1.0]])).verdict
        'not PSD'
    """
    if hasattr(k, "shape") and np.ndim(k):
        raise OptionError("an array in the place of k", allowed="spectrum(model, x=samples)", remedy="give it as x=")
    k, dense_limit = checked_count("k", k, 1), checked_count("dense_limit", dense_limit, 0)
    max_products, seed = checked_count("max_products", max_products, 1), checked_seed(seed)
    rank = None if rank is None else checked_count("rank", rank, 0)
    threads = thread_count(threads)
    bound: int | None
    if isinstance(kernel, Model | ForeignNetwork) or is_module(kernel) or is_julia(kernel):
        network = as_network(kernel, output=output)
        kernel, bound = _of_model(network, x, outputs, params, backend, dense_limit, threads, device)
    elif others := [
        word
        for word, given in (("x=", x), ("params=", params), ("device=", device), ("output=", output))
        if given is not None
    ]:
        raise OptionError(
            f"{others[0]} with a kernel of type {type(kernel).__name__}",
            allowed="x=, params=, device= and output= with a network alone",
            remedy="leave them out where the kernel is there already",
        )
    else:
        bound = getattr(kernel, "rank_bound", None)
    rank = bound if rank is None else rank
    if hasattr(kernel, "matvec"):
        dtype = checked_operator(kernel)
        return _partial(kernel, dtype, rounding_unit(kernel, dtype), rank, k, max_products, seed, progress)
    matrix = SlicedMatrix(as_kernel(kernel))
    fits = fits_lapack(len(matrix), dense_limit)
    with numpy_blas.to(threads):
        if fits or not matrix.has_product:
            matrix.check()  # one more pass over all of it, which a store of many gigabytes is spared
        if fits:
            values, exponent = eigenvalues(matrix)
            return judged(values, len(matrix), matrix.dtype, matrix.eps, rank, exponent)
        return _partial(matrix, matrix.dtype, matrix.eps, rank, k, max_products, seed, progress)


def fits_lapack(n: int, dense_limit: int) -> bool:
    """Whether all eigenvalues of an (n, n) matrix are to be computed within `dense_limit` bytes."""
    return n <= LAPACK_ORDER and 8 * n * n <= dense_limit


def eigenvalues(matrix: SlicedMatrix) -> tuple[np.ndarray, int]:
    """All eigenvalues, ascending (n,), in units of 2^exponent, and the exponent.

    By LAPACK in float64, in the memory of one float64 copy.
    """
    from scipy.linalg import eigh

    dense, exponent = matrix.dense()
    # The transpose is in Fortran's order, so that LAPACK works in it without another copy; it equals the matrix.
    values = eigh(dense.T, eigvals_only=True, overwrite_a=True, check_finite=False, driver="evd")
    return np.asarray(values), exponent


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
    n = int(matrix.shape[0])
    least = min(n, min(k, n) + min(N_SMALLEST, n))
    if max_products < least:
        raise OptionError(
            f"max_products={max_products} for the {min(k, n)} largest eigenvalues and a few of the smallest",
            allowed=f"at least {least}", remedy="allow more products, or ask for fewer eigenvalues with k=",
        )  # fmt: skip
    unit = UnitProduct(matrix)
    with spectrum_progress(show=progress) as show:

        def watch(products: int, lowest: float, tolerance: float) -> None:
            if show is not None:
                show(products, *np.ldexp([lowest, tolerance], unit.exponent or 0).tolist())

        ends = lanczos(
            lambda vector: unit @ vector,
            n,
            k=min(k, n),
            n_smallest=min(N_SMALLEST, n),
            eps=eps,
            max_products=max_products,
            seed=seed,
            watch=watch,
        )
    residuals = np.linalg.norm(unit @ ends.vectors - ends.vectors * ends.values, axis=0)
    exponent = unit.exponent or 0
    smallest = float(ends.values[0])
    tolerance, units = tolerance_of(smallest, float(ends.values[-1]), n, eps)
    if smallest < -tolerance:
        verdict = NOT_PSD
    elif ends.lower_bound >= -tolerance:
        verdict = PSD if ends.lower_bound >= 0 else ROUNDING
    else:
        verdict = UNDECIDED
    return Spectrum(
        eigenvalues=in_units(ends.values, exponent),
        n=n,
        dtype=dtype.name,
        tolerance=float(np.ldexp(tolerance, exponent)),
        units=units,
        verdict=verdict,
        eps=eps,
        rank_bound=None if rank is None else min(rank, n),
        complete=len(ends.values) == n,
        n_smallest=0 if len(ends.values) == n else ends.n_smallest,
        residuals=in_units(residuals, exponent),
        lower_bound=float(np.ldexp(ends.lower_bound, exponent)),
        products=ends.products,
        seed=seed,
    )


def _of_model(
    model: Any,
    x: Any,
    outputs: Outputs,
    params: Selection,
    backend: EngineWord | None,
    dense_limit: int,
    threads: int | None,
    device: Any,
) -> tuple[object, int]:
    """The kernel of a model where LAPACK takes it, else the operator; and the bound of its rank."""
    from udlbridge.kernels.ntk import ntk
    from udlbridge.kernels.operators import ntk_operator

    if x is None:
        raise OptionError("a Model without samples", allowed="spectrum(model, x=samples)", remedy="give x=")
    options: dict[str, Any] = {
        "outputs": outputs, "params": params, "backend": backend, "threads": threads, "device": device,
    }  # fmt: skip
    operator = ntk_operator(model, x, **options)
    if fits_lapack(operator.shape[0], dense_limit):
        return ntk(model, x, **options), operator.rank_bound
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
