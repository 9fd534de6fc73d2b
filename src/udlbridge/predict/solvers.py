"""Kernel ridge regression where the kernel is too large to factor: conjugate gradients with a preconditioner.

Every iteration is one product of the kernel with all right-hand sides together: of an array, of a store that is read
once for it, or of an operator that never forms the kernel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular

from udlbridge.analysis.matrices import SlicedMatrix
from udlbridge.analysis.scaling import scale_exponent
from udlbridge.arrays import as_kernel
from udlbridge.atomic import check_target
from udlbridge.displays import Displayed
from udlbridge.errors import NumericalError, OptionError, ShapeError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.operators import NTKOperator
from udlbridge.networks.files import read_safetensors, write_safetensors
from udlbridge.options import checked_count, checked_positive, checked_seed, parse_bytes
from udlbridge.paths import user_path
from udlbridge.predict.columns import UnitKernel
from udlbridge.predict.systems import checked_numbers
from udlbridge.progress import solver_progress
from udlbridge.texts import counted

LARGEST_RANK = 2000
"""Beyond, factoring the preconditioner costs more than the iterations that it saves."""


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Displayed):
    """`coefficients` c (n, O) or (n,) with (K + reg I) c = y, where `reg` is diag_reg times the mean of the diagonal.

    `residuals` are |y - (K + reg I) c| / |y| of each right-hand side, computed anew from the solution; `rank` is that
    of the preconditioner.
    """

    coefficients: np.ndarray
    residuals: Float[np.ndarray, " outputs"]
    iterations: int
    reg: float
    rank: int

    def to_dict(self) -> dict[str, Any]:
        """All but the coefficients as JSON-ready data."""
        return {
            "residuals": self.residuals.tolist(), "iterations": self.iterations, "reg": self.reg, "rank": self.rank,
        }  # fmt: skip

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [{"output": index, "residual": float(value)} for index, value in enumerate(self.residuals)]


def solve(
    kernel: Any,
    y: object,
    *,
    diag_reg: float,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    memory: int | str = "2GB",
    rank: int | None = None,
    seed: int = 0,
    state: str | Path | None = None,
    progress: bool | None = None,
) -> Solution:
    """Coefficients c with (K + reg I) c = y, for a kernel of any size, by conjugate gradients.

    The preconditioner is a Nystroem approximation by random columns of the kernel, as many as `memory` has room for: it
    takes the large eigenvalues away, and what is left is close to reg I.

    Args:
        kernel: an array or memory map (n, n), a complete store, or an `NTKOperator`. All are multiplied in float64:
            what an array or a store holds is converted block by block, and an operator is taken as that of the same
            network in float64 (`NTKOperator.astype`).
        y: targets (n, O) or (n,).
        diag_reg: above 0, relative to the mean of the kernel's diagonal.
        tolerance: of |residual| / |y|, for every right-hand side.
        max_iterations: products with the kernel at most.
        memory: bound of what the preconditioner and the vectors take.
        rank: columns of the preconditioner; None means as many as there is room for, up to 2,000; 0 means none.
        seed: of the choice of columns.
        state: a .safetensors file that is written every tenth iteration, and gone on with if it is there: it must be of
            the same kernel, targets and options.
        progress: show the residual; None means: if standard error is a terminal.

    Raises:
        InputError, ShapeError, OptionError: what is wrong with the arguments, as a kernel that is not symmetric.
        NumericalError: the kernel is not positive semidefinite, or the tolerance was not reached: the message says what
            was; the coefficients are beyond the range of float64.

    Source: Hestenes and Stiefel (1952); Rudi, Carratino, Rosasco (2017) and Frangella, Tropp, Udell (2023) for the
    preconditioner.
    """
    path = None if state is None else user_path(state)
    if path is not None:
        check_target(path, OptionError, f"state={path}")
    kernel, targets = as_kernel(kernel), checked_numbers("y", y)
    shape = tuple(kernel.shape)
    if len(shape) != 2 or shape[0] != shape[1] or targets.ndim not in (1, 2) or len(targets) != shape[0]:
        raise ShapeError(
            f"a kernel of shape {shape} and targets of shape {targets.shape}",
            allowed="(n, n), and (n,) or (n, O)",
            remedy="give the kernel of the training samples, and a target for each",
        )
    # Large parts of K c cancel: what float32 rounds off them bounds the residual, at some 1e-2 for 10,000 samples.
    if isinstance(kernel, NTKOperator):
        kernel = kernel.astype("float64")
    if not isinstance(kernel, NTKOperator):
        matrix = SlicedMatrix(kernel)
        if not matrix.has_product:
            matrix.check()
    right = targets.reshape(len(targets), -1)
    share, tolerance = checked_positive("diag_reg", diag_reg), checked_positive("tolerance", tolerance)
    limit = checked_count("max_iterations", max_iterations, 1)
    columns = _rank(shape[0], right.shape[1], parse_bytes(memory), rank)
    # Kernel and targets divided by powers of two, where their squares would leave the range of float64.
    unit, size = UnitKernel(kernel), scale_exponent(float(np.abs(right).max(initial=0.0)))
    right = np.ldexp(right, -size)
    reg = share * unit.diagonal_mean
    if not reg > 0:
        raise NumericalError(
            "the diagonal of the kernel is zero", allowed="a kernel with a positive trace", remedy="check the network"
        )
    seed = checked_seed(seed)
    indices = np.random.default_rng(seed).choice(shape[0], size=columns, replace=False)
    indices.sort()
    nystroem = _Nystroem(unit.columns(indices), indices, reg) if columns else None
    options = {"n": shape[0], "outputs": right.shape[1], "reg": reg, "rank": columns, "seed": seed}
    walk = _resumed(path, options, right) if path is not None and path.exists() else _begun(right, nystroem)
    sizes = np.linalg.norm(right, axis=0)
    sizes[sizes == 0] = 1.0
    with solver_progress(show=progress) as watch:
        while float((np.linalg.norm(walk.residual, axis=0) / sizes).max()) > tolerance and walk.step < limit:
            _advance(walk, unit @ walk.direction + reg * walk.direction, nystroem)
            watch(walk.step, float((np.linalg.norm(walk.residual, axis=0) / sizes).max()), tolerance)
            if path is not None and walk.step % 10 == 0:
                _save(path, walk, options, right)
    # The residual that the iteration carries along drifts from the true one by rounding.
    exact = right - unit @ walk.solution - reg * walk.solution
    residuals = np.linalg.norm(exact, axis=0) / sizes
    if path is not None:
        _save(path, walk, options, right)
    if float(residuals.max()) > 2 * tolerance:
        raise NumericalError(
            f"after {counted(walk.step, 'iteration')} the residual is {float(residuals.max()):.2e} of the targets",
            allowed=f"{tolerance:g}",
            remedy="allow more iterations or memory, a larger diag_reg, or a larger tolerance",
        )
    with np.errstate(over="ignore"):
        coefficients = np.ldexp(walk.solution.reshape(targets.shape), size - unit.exponent)
        given_reg = float(np.ldexp(reg, unit.exponent))
    check_finite(coefficients, "the coefficients", corner=(0,))
    return Solution(coefficients, residuals, walk.step, given_reg, columns)


def _rank(n: int, outputs: int, memory: int, rank: int | None) -> int:
    """How many columns there is room for: the columns themselves, and what factoring them takes."""
    vectors = 8 * n * outputs * 6
    room = max(0, int((memory - vectors) // (3 * 8 * n)))
    if rank is None:
        return min(LARGEST_RANK, n, room)
    asked = checked_count("rank", rank, 0)
    if asked > min(n, room):
        raise OptionError(
            f"rank={asked} within memory={memory} bytes", allowed=f"at most {min(n, room)}", remedy="allow more memory"
        )
    return asked


class _Nystroem:
    """(B B' + reg I)^-1, where B B' = C W^-1 C' for columns C (n, r) of the kernel and their own kernel W."""

    def __init__(self, columns: np.ndarray, indices: np.ndarray, reg: float) -> None:
        own = columns[indices]
        own = (own + own.T) / 2
        # A shift by rounding keeps the factorisation possible; it changes the preconditioner alone.
        own[np.diag_indices_from(own)] += 10 * np.finfo(np.float32).eps * np.trace(own)
        try:
            factor = cholesky(own, lower=True)
        except np.linalg.LinAlgError:
            raise NumericalError(
                "the kernel is not positive semidefinite", allowed="a Gram matrix", remedy="look at ub.spectrum(k)"
            ) from None
        self._basis = solve_triangular(factor, columns.T, lower=True).T
        inner = self._basis.T @ self._basis
        inner[np.diag_indices_from(inner)] += reg
        self._inner = cholesky(inner, lower=True)
        self._reg = reg

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """By Woodbury's identity."""
        half = solve_triangular(self._inner, self._basis.T @ vectors, lower=True)
        return (vectors - self._basis @ solve_triangular(self._inner, half, lower=True, trans="T")) / self._reg


@dataclass
class _Walk:
    """Where the iteration stands, for all right-hand sides."""

    solution: np.ndarray
    residual: np.ndarray
    direction: np.ndarray
    progress: np.ndarray
    step: int


def _begun(right: np.ndarray, precondition: _Nystroem | None) -> _Walk:
    direction = right if precondition is None else precondition(right)
    return _Walk(np.zeros_like(right), right.copy(), direction.copy(), np.einsum("ij,ij->j", right, direction), 0)


def _advance(walk: _Walk, image: np.ndarray, precondition: _Nystroem | None) -> None:
    """One step of conjugate gradients; right-hand sides that are solved already stand still."""
    curvature = np.einsum("ij,ij->j", walk.direction, image)
    moving = walk.progress > 0
    if (curvature[moving] <= 0).any() or not np.isfinite(curvature).all():
        raise NumericalError(
            "the kernel is not positive semidefinite beyond its regularisation",
            allowed="a Gram matrix",
            remedy="look at ub.spectrum(k), or take a larger diag_reg",
        )
    alpha = np.divide(walk.progress, curvature, out=np.zeros_like(curvature), where=moving)
    walk.solution += alpha * walk.direction
    walk.residual -= alpha * image
    smoothed = walk.residual if precondition is None else precondition(walk.residual)
    progress = np.einsum("ij,ij->j", walk.residual, smoothed)
    beta = np.divide(progress, walk.progress, out=np.zeros_like(progress), where=moving)
    walk.direction = smoothed + beta * walk.direction
    walk.progress = progress
    walk.step += 1


PARTS = ("solution", "residual", "direction", "progress")


def _save(path: Path, walk: _Walk, options: dict[str, Any], right: np.ndarray) -> None:
    arrays = {name: np.ascontiguousarray(getattr(walk, name)) for name in PARTS} | {"targets": right}
    words = {**options, "step": walk.step, "checksum": _checksum(arrays, options, walk.step)}
    write_safetensors(path, arrays, {"udlbridge_solver": json.dumps(words)}, OptionError)


def _checksum(arrays: Mapping[str, np.ndarray], options: Mapping[str, Any], step: int) -> str:
    digest = hashlib.sha256(json.dumps([options, step], sort_keys=True).encode())
    for name in (*PARTS, "targets"):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _resumed(path: Path, options: dict[str, Any], right: np.ndarray) -> _Walk:
    """Where the iteration stood.

    Raises:
        OptionError: the file is damaged, none of a solver, or of another system.
    """
    metadata, arrays = read_safetensors(path, "solver state", OptionError)
    try:
        found = json.loads(metadata["udlbridge_solver"])
        step, checksum = found.pop("step"), found.pop("checksum")
        whole = type(step) is int and checksum == _checksum(arrays, found, step)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):  # it is somebody else's, or damaged
        whole = False
    if not whole:
        raise OptionError(
            f"{path} is not the whole state of a solver", allowed="a file that `solve(state=)` wrote",
            remedy="remove it, which begins anew, or name another file",
        )  # fmt: skip
    if found != options or not np.array_equal(arrays["targets"], right):
        raise OptionError(
            f"{path} is the state of another system", allowed="a state of the same kernel, targets and options",
            remedy="remove it, or name another file",
        )  # fmt: skip
    return _Walk(arrays["solution"], arrays["residual"], arrays["direction"], arrays["progress"], step)
