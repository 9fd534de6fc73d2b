"""The engine written by hand in NumPy: no autodiff, no cleverness. It says which of the other two is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.backends.base import Backend, KernelJob
from udlbridge.backends.reference import operator
from udlbridge.backends.reference.backpropagation import RULES, backward, dense_error, forward
from udlbridge.errors import OptionError
from udlbridge.layers import Dense
from udlbridge.model import Model
from udlbridge.reduction import Reduction


@dataclass(frozen=True)
class Factor:
    """One summand of the kernel: (`a` a') * (`d` d'), elementwise over pairs of samples.

    `a` (n, p) is the layer's input with a 1 appended for the bias, `d` (n, K, q) its backpropagated errors. In the
    plain method `a` is None and `d` (n, K, P) holds per-sample gradients.
    """

    a: np.ndarray | None
    d: np.ndarray


def cotangents(reduction: Reduction, like: np.ndarray) -> Iterator[np.ndarray]:
    """The K vectors that are pulled back, each spread over the batch: (n, O)."""
    if reduction.name == "sum":
        yield np.ones_like(like)
        return
    for k in [reduction.index] if reduction.name == "one" else range(reduction.n_outputs):
        e = np.zeros_like(like)
        e[:, k] = 1
        yield e


class ReferenceBackend(Backend[list[Factor]]):
    """Hand-written NumPy backpropagation."""

    name = "reference"

    def versions(self) -> dict[str, str]:
        """NumPy's version."""
        return {"numpy": np.__version__}

    def outputs(self, model: Model, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        return forward(model, x)[0]

    def jacobian(self, model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
        """One backward pass per output; blocks (n, O, *parameter shape)."""
        y, saved = forward(model, x)
        passes = [backward(model, saved, e)[1] for e in cotangents(Reduction("full", -1, y.shape[1]), y)]
        return {name: np.stack([grads[name] for grads in passes], axis=1) for name in model.params}

    def input_jacobian(self, model: Model, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """One backward pass per output, (n, O, *D)."""
        y, saved = forward(model, x)
        return np.stack(
            [backward(model, saved, e)[0] for e in cotangents(Reduction("full", -1, y.shape[1]), y)], axis=1
        )

    def prepare(self, job: KernelJob, x: np.ndarray) -> list[Factor]:
        """Layer inputs and errors ("structured"), or flattened per-sample gradients ("plain")."""
        if job.device != "cpu":
            raise OptionError(f"device={job.device!r} with backend='reference'", allowed="cpu", remedy="use torch")
        y, saved = forward(job.model, x)
        seeds = list(cotangents(job.reduction, y))
        if job.method == "plain":
            passes = [backward(job.model, saved, e)[1] for e in seeds]
            return [
                Factor(None, np.stack([p[name].reshape(len(x), -1) for p in passes], 1)) for name in job.model.params
            ]
        return [*_dense_factors(job.model, saved, seeds)]

    def fill(
        self, job: KernelJob, left: list[Factor], rows: slice, right: list[Factor], cols: slice, out: np.ndarray
    ) -> None:
        """Sum the factors' products into `out`."""
        out[...] = 0
        with _threads(job.threads):
            for f, g in zip(left, right, strict=True):
                if f.a is None or g.a is None:
                    out += _errors_product(job.reduction, f.d[rows], g.d[cols])
                else:
                    pairs = f.a[rows] @ g.a[cols].T
                    pairs = pairs.reshape(pairs.shape + (1,) * len(job.reduction.trailing))
                    out += pairs * _errors_product(job.reduction, f.d[rows], g.d[cols])

    def pull(self, model: Model, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"]) -> dict[str, np.ndarray]:
        """Per-sample gradients, summed."""
        return operator.pull(model, x, cotangents)

    def push(
        self,
        model: Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
    ) -> Float[np.ndarray, " n"]:
        """Per-sample gradients, multiplied with the direction."""
        return operator.push(model, x, direction, cotangents)


def _dense_factors(model: Model, saved: list[Any], seeds: list[np.ndarray]) -> Iterator[Factor]:
    """(layer input, errors) of every Dense layer, walking back once per seed."""
    errors: dict[int, list[np.ndarray]] = {}
    for seed in seeds:
        for index, delta in _walk_back(model, saved, seed):
            errors.setdefault(index, []).append(delta)
    for index, deltas in sorted(errors.items()):
        layer = model.layers[index]
        assert isinstance(layer, Dense)
        a = saved[index][0]
        yield Factor(np.hstack([a, np.ones_like(a[:, :1])]) if layer.bias else a, np.stack(deltas, axis=1))


def _walk_back(model: Model, saved: list[Any], dy: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for index in reversed(range(len(model.layers))):
        layer = model.layers[index]
        if isinstance(layer, Dense):
            delta = dense_error(layer, saved[index], dy)
            yield index, delta
            dy = delta @ model.layer_params(index)["weight"]
        else:
            dy, _ = RULES[type(layer)].backward(layer, model.layer_params(index), saved[index], dy)


def _errors_product(reduction: Reduction, d: np.ndarray, e: np.ndarray) -> np.ndarray:
    """<d_i, e_j> over parameters for every pair of samples, reduced over outputs as asked: (r, c, *trailing)."""
    if reduction.name == "full":
        return np.einsum("iap,jbp->ijab", d, e, optimize=True)
    if reduction.name == "diagonal":
        return np.moveaxis(d.transpose(1, 0, 2) @ e.transpose(1, 2, 0), 0, -1)
    # One inner product over (output, parameter) together: this is the trace, or the one output that there is.
    return reduction.scale * (d.reshape(len(d), -1) @ e.reshape(len(e), -1).T)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=count, user_api="blas"):
        yield
