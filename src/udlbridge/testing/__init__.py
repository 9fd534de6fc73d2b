"""Assertions for your own tests: engines agree, kernels are close, a kernel is PSD, an engine keeps its contract.

`pytest_plugins = ["udlbridge.testing.plugin"]` in the topmost `conftest.py` brings a fixture `backend` over engines.

Examples:
    >>> ub.testing.assert_kernels_close(np.eye(3), np.eye(3))
    >>> ub.testing.assert_psd(np.eye(3)).verdict
    'PSD'
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from udlbridge.analysis.checking import CheckReport, check
from udlbridge.analysis.inputs import check_real
from udlbridge.analysis.spectra import spectrum
from udlbridge.analysis.verdicts import NOT_PSD, PSD, ROUNDING, Spectrum
from udlbridge.arrays import as_array
from udlbridge.backends.reduction import Outputs
from udlbridge.networks.model import Model
from udlbridge.testing.conformance import CHECKS as CHECKS
from udlbridge.testing.conformance import check_backend as check_backend
from udlbridge.texts import completion
from udlbridge.tolerances import budget
from udlbridge.words import EngineWord

__all__ = ["CHECKS", "assert_consistent", "assert_kernels_close", "assert_psd", "check_backend"]
__dir__ = completion(__all__)


def assert_consistent(
    model: Model, x: np.ndarray, *, backends: str | Sequence[EngineWord] | None = None, outputs: Outputs = "trace"
) -> CheckReport:
    """Assert that all backends (or those named) agree on everything that `udlbridge.check` compares.

    Raises:
        AssertionError: with the table of differences; also if there was only one engine to look at.
    """
    __tracebackhide__ = True
    report = check(model, x, backends=backends, outputs=outputs)
    if not report.ok:
        raise AssertionError(f"the engines are not consistent\n{report}")
    return report


def assert_kernels_close(k1: np.ndarray, k2: np.ndarray, *, rtol: float | None = None) -> None:
    """Assert that two kernels differ by less than the budget, relative to the largest entry of the second.

    The budget is 1e-12 if both are float64 and 1e-5 otherwise; `rtol` is another.

    Raises:
        AssertionError: saying the worst entry and its indices.
        InputError: one of them is not an array of real numbers.
    """
    __tracebackhide__ = True
    a, b = (check_real(as_array(k, name, wanted=np.float64)) for k, name in ((k1, "k1"), (k2, "k2")))
    if a.shape != b.shape:
        raise AssertionError(f"the kernels have different shapes: {a.shape} and {b.shape}")
    dtype = "float64" if a.dtype == b.dtype == np.float64 else "float32"
    limit = budget(dtype) if rtol is None else rtol
    wide = b.astype(np.float64)
    gap = np.abs(a.astype(np.float64) - wide)
    # A NaN on either side makes the gap NaN, and argmax finds the first one.
    where = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
    scale = float(np.max(np.abs(wide), initial=0.0))
    if gap[where] <= limit * scale:
        return
    raise AssertionError(
        f"the kernels differ: worst at {where}, {a[where]!r} against {b[where]!r}; "
        f"{gap[where] / scale if scale else np.inf:.2e} of the largest entry {scale:.6g}, budget {limit:.0e}"
    )


def assert_psd(k: np.ndarray, rank: int | None = None) -> Spectrum:
    """Assert that a kernel is positive semidefinite up to rounding, and of at most the given rank.

    Args:
        k: a symmetric kernel (n, n).
        rank: the largest possible rank, P for one output; eigenvalues beyond it have to vanish up to rounding. It is
            asked for where the spectrum is complete: up to n = 11,585.

    Raises:
        AssertionError: with the evidence.
        UDLBridgeError: `k` is not a kernel matrix (see `udlbridge.spectrum`).
    """
    __tracebackhide__ = True
    result = spectrum(k, rank=rank)
    if result.verdict not in (PSD, ROUNDING):
        word = "is not" if result.verdict == NOT_PSD else "is not shown to be"
        raise AssertionError(f"the kernel {word} positive semidefinite\n{result}")
    if rank is not None and rank < result.n and result.complete:
        beyond = float(np.abs(result.eigenvalues[: result.n - rank]).max())
        if beyond > result.tolerance:
            raise AssertionError(f"eigenvalue {beyond:.3g} lies beyond rank {rank}\n{result}")
    return result
