"""The engine written by hand in NumPy: no autodiff, no cleverness. It says which of the other two is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import KernelJob, Slopes, TrainJob, TrainState
from udlbridge.backends.programs import Program
from udlbridge.backends.reduction import Reduction, checked_reduction
from udlbridge.backends.reference import curvature, operator, programs
from udlbridge.backends.reference.backpropagation import backward, forward, input_jacobian, sites
from udlbridge.backends.reference.factors import Gradients, Summand, joined, product, summand
from udlbridge.backends.reference.graphs import derivatives as graphs
from udlbridge.backends.reference.signals import signals
from udlbridge.backends.reference.training import ReferenceTraining, loss_gradient
from udlbridge.backends.threads import numpy_blas
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model


def cotangents(reduction: Reduction, like: np.ndarray) -> Iterator[np.ndarray]:
    """The K vectors that are pulled back, each spread over the batch: (n, O)."""
    if reduction.name == "sum":
        yield np.ones_like(like)
        return
    for k in reduction.indices:
        e = np.zeros_like(like)
        e[:, k] = 1
        yield e


STRETCH_NUMBERS = 2**20
"""Errors after the widest layer that are held at a time: all layers' inputs and errors are, and convolutions' windows,
which are many times as much."""


def stretch(job: KernelJob, x: np.ndarray) -> int:
    """How many samples go through the network together; of a graph, in which each goes alone, all of them."""
    if isinstance(job.model, Graph):
        return len(x)
    widest, shape = x[0].size, x.shape[1:]
    for layer in job.model.layers:
        shape = layer.output_shape(shape)
        widest = max(widest, prod(shape))
    return max(1, STRETCH_NUMBERS // (widest * job.reduction.n_cotangents))


class ReferenceBackend(Backend[list[Summand]]):
    """Hand-written NumPy backpropagation."""

    name = "reference"

    def versions(self) -> dict[str, str]:
        """NumPy's version."""
        return {"numpy": np.__version__}

    def outputs(self, model: Any, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        if isinstance(model, Graph):
            return graphs.outputs(model, x)
        return forward(model, x)[0].copy()  # a Flatten alone gives a view of x

    def jacobian(self, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        """One backward pass per output; blocks (n, O, *parameter shape)."""
        if isinstance(model, Graph):
            return graphs.jacobian(model, x, list(np.eye(model.n_outputs, dtype=model.dtype)), tuple(model.params))
        y, saved = forward(model, x)
        passes = [backward(model, saved, e)[1] for e in cotangents(checked_reduction("full", y.shape[1]), y)]
        return {name: np.stack([grads[name] for grads in passes], axis=1) for name in model.params}

    def input_jacobian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """One backward pass per output, (n, O, *D)."""
        if isinstance(model, Graph):
            return graphs.input_jacobian(model, x)
        return input_jacobian(model, x)

    def input_hessian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs features features"]:
        """Second derivatives carried forward by hand, (n, O, D, D)."""
        return curvature.input_hessian(model, x)

    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of the layers and errors at them, from one forward and one backward pass."""
        return signals(model, x, y)

    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula in NumPy."""
        return programs.run(program, x)[-1].copy()  # it may be x itself

    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula's backward pass, operation by operation."""
        return programs.differentiate(program, x)

    def prepare(self, job: KernelJob, x: np.ndarray) -> list[Summand]:
        """Layer inputs and errors ("structured") or per-sample gradients ("plain"), of a few samples at a time."""
        step = stretch(job, x)
        with numpy_blas.to(job.threads):
            parts = [self._factors(job, x[start : start + step]) for start in range(0, len(x), step)]
            return [joined(parts, index) for index in range(len(parts[0]))]

    def _factors(self, job: KernelJob, x: np.ndarray) -> list[Summand]:
        if isinstance(job.model, Graph):
            like = np.empty((1, job.model.n_outputs), job.model.dtype)
            units = np.stack([c[0] for c in cotangents(job.reduction, like)])
            blocks = graphs.jacobian(job.model, x, list(units), job.parameters)
            return [Summand((name,), Gradients(b.reshape(*b.shape[:2], -1))) for name, b in blocks.items()]
        y, saved = forward(job.model, x)
        names = job.parameters
        if job.method == "plain":
            passes = [backward(job.model, saved, e)[1] for e in cotangents(job.reduction, y)]
            stacked = {name: np.stack([p[name].reshape(len(x), -1) for p in passes], 1) for name in names}
            return [Summand((name,), Gradients(value)) for name, value in stacked.items()]
        found = [sites(job.model, saved, e)[1] for e in cotangents(job.reduction, y)]
        summands = [summand(one, job.reduction, frozenset(names)) for one in zip(*found, strict=True)]
        return [one for one in summands if one is not None]

    def fill(
        self,
        job: KernelJob,
        left: list[Summand],
        rows: slice,
        right: list[Summand],
        cols: slice,
        out: np.ndarray,
        *,
        lower: bool = False,
    ) -> None:
        """Sum the factors' products into `out`, above the diagonal too."""
        out[...] = 0
        wanted = set(job.parameters)
        with numpy_blas.to(job.threads):
            for one, other in zip(left, right, strict=True):
                if not wanted.isdisjoint(one.names):
                    out += product(job.reduction, one.factor, rows, other.factor, cols)

    def loss_gradient(
        self, model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """One backward pass, summed over the batch; for slopes, tangents forward and back besides."""
        return loss_gradient(model, x, y, loss, slopes)

    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """NumPy's BLAS with `count` threads."""
        return numpy_blas.to(count)

    def pull(
        self, model: Any, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"], device: str | None = None
    ) -> dict[str, np.ndarray]:
        """Per-sample gradients, summed; of a graph, one backward pass."""
        if isinstance(model, Graph):
            return graphs.pull(model, x, cotangents)
        return operator.pull(model, x, cotangents)

    def push(
        self,
        model: Any,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
        device: str | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Per-sample gradients, multiplied with the direction; of a graph, a pass of tangents."""
        if isinstance(model, Graph):
            return graphs.push(model, x, direction, cotangents)
        return operator.push(model, x, direction, cotangents)

    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """The optimisers' formulas, written out."""
        return ReferenceTraining(job, x, y, state)
