"""The kernel as an operator: products K v = J (J' v) by two passes of autodiff, and no kernel anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from udlbridge import backends
from udlbridge.arrays import as_array
from udlbridge.backends.reduction import Outputs, check_matrix
from udlbridge.backends.sites import parameter_count
from udlbridge.errors import InputError, ShapeError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.request import KernelRequest, as_network, kernel_request
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection
from udlbridge.networks.several import in_dtype
from udlbridge.options import checked_count
from udlbridge.words import DtypeWord, EngineName, EngineWord

BATCH = 4096
"""Samples that an engine gets at a time, unless told otherwise."""


class NTKOperator(LinearOperator):  # type: ignore[misc]
    """The (n, n) kernel of a network on samples, for products with vectors. Made by `ntk_operator`.

    Besides what a scipy LinearOperator has: `model`, `reduction`, `params` (names), and `rank_bound`, min(n, P) for one
    output or the summed output, min(n, O P) for the trace and the mean, with the P of `params`.

    Examples:
        >>> operator = ub.ntk_operator(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS)
        >>> operator.shape, operator.backend
        ((2, 2), 'torch')
    """

    def __init__(self, request: KernelRequest, x: np.ndarray, batch: int = BATCH) -> None:
        super().__init__(request.model.dtype, (len(x), len(x)))
        self.model, self.reduction, self.params = request.model, request.reduction, request.parameters
        self.rank_bound = min(len(x), self.reduction.n_cotangents * parameter_count(self.model, self.params))
        self._x = x
        self._engine = backends.get(request.backend)
        self._batch = batch
        self._threads, self._device = request.threads, request.device
        self._engine.check_device(request.device)

    @property
    def samples(self) -> np.ndarray:
        """The samples (n, *D), read only."""
        view = self._x.view()
        view.flags.writeable = False
        return view

    @property
    def backend(self) -> EngineName:
        """The name of the engine."""
        return self._engine.name

    @property
    def device(self) -> str:
        """Where torch computes."""
        return self._device

    def astype(self, dtype: DtypeWord) -> NTKOperator:
        """The operator of the same network and samples, converted to "float32" or "float64"; itself, if they are that.

        Raises:
            DTypeError: another dtype.
        """
        if self.dtype == np.dtype(dtype):
            return self
        return ntk_operator(
            self.model.astype(dtype),
            in_dtype(self._x, np.dtype(dtype)),
            outputs=self.reduction.outputs,
            params=list(self.params),
            backend=self._engine.name,
            batch=self._batch,
            threads=self._threads,
            device=self._device,
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but the engine, which goes by its name: that of Julia lives in its own process."""
        return {**self.__dict__, "_engine": self._engine.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _engine=backends.get(state["_engine"]))

    def dot(self, x: Any) -> Any:
        """K x for a vector (n,) or a block of them (n, k), in any container that `udlbridge.arrays` takes.

        Raises:
            ShapeError: another length.
            InputError: complex numbers, which the engines do not have, or no numbers at all.
            NumericalError: a product is not finite, though the vector is.
        """
        composed = isinstance(x, LinearOperator) or (np.isscalar(x) and not isinstance(x, str | bytes))
        return super().dot(x if composed else self._vectors(x))

    def __matmul__(self, other: Any) -> Any:
        return self.dot(other if isinstance(other, LinearOperator) else self._vectors(other))

    def rdot(self, x: Any) -> Any:
        """x K for a vector (n,) or a block of them (k, n); otherwise as `dot`."""
        composed = isinstance(x, LinearOperator) or (np.isscalar(x) and not isinstance(x, str | bytes))
        return super().rdot(x) if composed else self.dot(as_array(x, "the vectors", wanted=self.dtype).T).T

    def matvec(self, x: Any) -> Any:
        """K x for a vector (n,) or (n, 1). Raises as `dot`."""
        return super().matvec(self._vectors(x))

    def matmat(self, X: Any) -> Any:
        """K X for a block of vectors (n, k). Raises as `dot`."""
        return super().matmat(self._vectors(X))

    def _vectors(self, x: Any) -> np.ndarray:
        array, n = as_array(x, "the vectors", wanted=self.dtype), self.shape[0]
        if array.dtype.kind == "c":
            raise InputError(
                f"a vector of dtype {array.dtype}",
                allowed="real numbers",
                remedy="multiply the real and the imaginary part one after the other",
            )
        if array.ndim not in (1, 2) or len(array) != n:
            raise ShapeError(
                f"a kernel of shape {self.shape} times an array of shape {array.shape}",
                allowed=f"({n},) or ({n}, k)",
                remedy="give one number, or row, for each sample",
            )
        return array

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        """K v: J_c' v and back for every cotangent c. Sums over batches are taken in float64."""
        # What overflows shows in the product, which is checked.
        with self._engine.blas_threads(self._threads), np.errstate(over="ignore", invalid="ignore"):
            return self._product(v)

    def _product(self, v: np.ndarray) -> np.ndarray:
        result = np.zeros(len(self._x))
        if not self.params:
            return result.astype(self.dtype)
        weights = v.reshape(-1).astype(self.dtype)
        for seed in self._cotangents():
            # No step along the parameters that do not count.
            total = {name: np.zeros(shape) for name, shape in self.model.param_shapes().items()}
            for rows in self._batches():
                pulled = self._engine.pull(self.model, self._x[rows], weights[rows, None] * seed, self._device)
                for name in self.params:
                    total[name] += pulled[name]
            direction = {name: value.astype(self.dtype) for name, value in total.items()}
            for rows in self._batches():
                x = self._x[rows]
                spread = np.repeat(seed[None], len(x), axis=0)
                result[rows] += self._engine.push(self.model, x, direction, spread, self._device)
        product = (self.reduction.scale * result).astype(self.dtype)
        if np.isfinite(weights).all():  # other vectors have no finite product
            check_finite(product, "K v", (0,))
        return product

    def _adjoint(self) -> NTKOperator:
        """The kernel is symmetric."""
        return self

    _transpose = _adjoint

    def _cotangents(self) -> Iterator[np.ndarray]:
        """The vectors (O,) that are pulled back: one output, all ones, or every output by itself."""
        eye = np.eye(self.reduction.n_outputs, dtype=self.dtype)
        if self.reduction.name == "sum":
            yield eye.sum(axis=0)
        else:
            yield from eye[list(self.reduction.indices)]

    def _batches(self) -> Iterator[slice]:
        for start in range(0, len(self._x), self._batch):
            yield slice(start, start + self._batch)


def ntk_operator(
    model: Model | Any,
    x: Any,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    batch: int = BATCH,
    threads: int | None = None,
    device: Any = None,
    output: Any = None,
) -> NTKOperator:
    """The empirical neural tangent kernel as a scipy LinearOperator (n, n) that is never formed.

    A product K v is one reverse pass, w = J' v, and one pass with the derivatives along w, J w; for "trace" and "mean"
    it is one such pair for each output. It costs a few evaluations of the network on all samples, where a kernel of
    n^2 numbers takes n^2 operations each time and n^2 numbers of memory. In torch the second pass is in forward mode;
    in Julia too for chains of Dense layers, and one pullback per sample for others; the reference engine multiplies
    per-sample gradients.

    Args:
        model: the network, evaluated in inference mode.
        x: samples (n, *D), of the model's dtype.
        outputs: an int, "trace", "mean" or "sum": a reduction that gives an (n, n) kernel.
        params, backend: as for `udlbridge.ntk`.
        batch: how many samples an engine gets at a time; it bounds the memory.
        threads: for the engine's BLAS; None leaves it alone.
        device: where torch computes, as for `udlbridge.ntk`.
        output: of a module, as for `udlbridge.as_network`.

    Returns:
        `op` with `op @ v` and `op @ block`, in the model's dtype: vectors are taken and given in it, sums over batches
        are in float64.

    Raises:
        As `udlbridge.ntk`; OutputsError for "diagonal", a list, and "full"; OptionError for a batch below 1.

    Source: Pearlmutter (1994) for the product along a direction; Baydin et al. (2018) for both modes.

    Examples:
        >>> operator = ub.ntk_operator(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS)
        >>> (operator @ np.ones(2, dtype="float32")).round(2)
        array([25.34, 20.2 ], dtype=float32)
    """
    model = as_network(model, output=output)
    data = checked_samples(model, x)
    request = kernel_request(
        model, data.shape[1:], outputs=outputs, params=params, backend=backend, threads=threads, device=device
    )
    check_matrix(request.reduction)
    if isinstance(model, ForeignNetwork):
        model.check_derivatives(request.parameters)
    return NTKOperator(request, data, checked_count("batch", batch, 1))
