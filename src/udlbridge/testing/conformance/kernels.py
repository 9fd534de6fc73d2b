"""Kernels of an engine, rectangle by rectangle, against the Gram matrix of the exact Jacobian."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from udlbridge.backends.base import Backend
from udlbridge.backends.jobs import KernelJob, Method
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.networks.selection import names_by_layer
from udlbridge.testing.conformance import oracle
from udlbridge.testing.conformance.derivatives import exact_jacobian
from udlbridge.testing.conformance.held import near
from udlbridge.testing.conformance.networks import LAYERS, SMALL, batch, network

N, M = 5, 4
EVERY: tuple[Outputs, ...] = (1, "trace", "mean", "sum", "diagonal", [1, 0], "full")
METHODS: tuple[Method, ...] = ("structured", "plain")
SEVERAL = ("dense", "conv2d of every window", "transformer")
"""Networks for what is the same for every layer: affine maps at one place and at several, tables, norms."""


def theta(name: str, n: int = N, m: int | None = None, params: tuple[str, ...] | None = None) -> np.ndarray:
    """Theta[i, j, a, b] = sum_p J[i, a, p] J[j, b, p], of `batch(name, n)` and `batch(name, m, 1)`; None: the first."""
    left, right = exact_jacobian(name, n), exact_jacobian(name, n) if m is None else exact_jacobian(name, m, 1)
    return sum(
        (
            np.einsum("iap,jbp->ijab", *(block.reshape(*block.shape[:2], -1) for block in (left[key], right[key])))
            for key in (left if params is None else params)
        ),
        start=np.zeros(()),
    )


def reduced(whole: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Theta (n, m, O, O) as `outputs` asks for it."""
    if isinstance(outputs, int):
        return whole[:, :, outputs, outputs]
    diagonal = np.einsum("ijaa->ija", whole)
    if not isinstance(outputs, str):
        return diagonal[..., np.asarray(outputs)]
    forms = {
        "trace": diagonal.sum(axis=2), "mean": diagonal.mean(axis=2), "sum": whole.sum(axis=(2, 3)),
        "diagonal": diagonal, "full": whole,
    }  # fmt: skip
    return forms[outputs]


def job_for(name: str, outputs: Outputs, method: Method = "structured", dtype: str = "float64") -> KernelJob:
    """The kernel of a network by its name, over all parameters."""
    model = network(name, dtype)
    n_outputs = model.output_shape(LAYERS[name][1])[0]
    return KernelJob(model, checked_reduction(outputs, n_outputs), method)


def filled(
    engine: Backend[Any], job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, *, lower: bool = False
) -> np.ndarray:
    """What the engine makes of an array whose every entry it has to overwrite."""
    shape = (rows.stop - rows.start, cols.stop - cols.start, *job.reduction.trailing)
    out = np.full(shape, np.nan, dtype=job.model.dtype)
    engine.fill(job, left, rows, right, cols, out, lower=lower)
    return out


def every_network(engine: Backend[Any]) -> None:
    """Every reduction of every network, by both methods."""
    for name in LAYERS:
        whole = theta(name)
        for outputs in EVERY:
            for method in METHODS:
                job = job_for(name, outputs, method)
                factors = engine.prepare(job, batch(name, N))
                found = filled(engine, job, factors, slice(0, N), factors, slice(0, N))
                near(f"{method} kernel of {name}, outputs={outputs!r}", found, reduced(whole, outputs))
                engine.release(factors)


def rectangles(engine: Backend[Any]) -> None:
    """Parts of the kernel of two batches: each has its own number of samples, its own beginning and its own end."""
    for name in SEVERAL:
        whole = theta(name, N, M)
        for outputs in EVERY:
            for method in METHODS:
                job = job_for(name, outputs, method)
                left, right = engine.prepare(job, batch(name, N)), engine.prepare(job, batch(name, M, 1))
                for rows, cols in ((slice(0, N), slice(0, M)), (slice(1, 4), slice(2, 4)), (slice(4, 5), slice(0, 1))):
                    found = filled(engine, job, left, rows, right, cols)
                    expected = reduced(whole, outputs)[rows, cols]
                    what = f"{method} kernel of {name}, outputs={outputs!r}, rows {rows}, columns {cols}"
                    near(what, found, expected, size=float(np.abs(reduced(whole, outputs)).max()))
                engine.release(left)
                engine.release(right)


def lower_halves(engine: Backend[Any]) -> None:
    """With `lower`, all that is on and below the diagonal, of so many samples that an engine may spare the rest."""
    n = 150
    for outputs in EVERY:
        job, expected = job_for(SMALL, outputs), reduced(theta(SMALL, n), outputs)
        factors = engine.prepare(job, batch(SMALL, n))
        for rows in (slice(0, n), slice(10, 140)):
            found = filled(engine, job, factors, rows, factors, rows, lower=True)
            size = rows.stop - rows.start
            upper = np.triu(np.ones((size, size), dtype=bool), 1)
            found[upper] = expected[rows, rows][upper]
            near(f"lower half, outputs={outputs!r}, samples {rows}", found, expected[rows, rows])
        engine.release(factors)


def some_parameters(engine: Backend[Any]) -> None:
    """The share of some parameters: of those that the factors were prepared for, and of some of their layers."""
    for name in SEVERAL:
        job = job_for(name, "trace")
        groups = names_by_layer(job.model.params)
        weights = tuple(key for key in job.model.params if not key.endswith("bias"))
        for method in METHODS:
            for params in (weights, *groups.values(), tuple(key for own in list(groups.values())[1:] for key in own)):
                own = replace(job, method=method, params=params)
                factors = engine.prepare(own, batch(name, N))
                found = filled(engine, own, factors, slice(0, N), factors, slice(0, N))
                near(f"{method} kernel of {name} over {params}", found, reduced(theta(name, params=params), "trace"))
                engine.release(factors)
            own = replace(job, method=method)
            factors = engine.prepare(own, batch(name, N))
            for params in groups.values():
                found = filled(engine, replace(own, params=params), factors, slice(0, N), factors, slice(0, N))
                what = f"{method} kernel of {name}, prepared for all parameters and filled for {params}"
                near(what, found, reduced(theta(name, params=params), "trace"))
            engine.release(factors)


def released_factors(engine: Backend[Any]) -> None:
    """Factors that are left are whole after others were released, and the same samples can be prepared again."""
    job, expected = job_for(SMALL, "trace"), reduced(theta(SMALL, N, M), "trace")
    left, gone, right = (engine.prepare(job, batch(SMALL, n, seed)) for n, seed in ((N, 0), (N, 0), (M, 1)))
    engine.release(gone)
    engine.make_room()
    near("kernel after a release", filled(engine, job, left, slice(0, N), right, slice(0, M)), expected)
    engine.release(left)
    engine.make_room()
    again = engine.prepare(job, batch(SMALL, N))
    near("kernel after another", filled(engine, job, again, slice(0, N), right, slice(0, M)), expected)
    engine.release(again)
    engine.release(right)


def narrow_kernels(engine: Backend[Any]) -> None:
    """Kernels of float32, in float32, within its budget."""
    for name in SEVERAL:
        x = batch(name, N, dtype="float32")
        wide = x if x.dtype.kind == "i" else x.astype(np.float64)
        whole = _of_model(network(name, "float32").astype("float64"), wide)
        for outputs in EVERY:
            for method in METHODS:
                job = job_for(name, outputs, method, "float32")
                factors = engine.prepare(job, x)
                found = filled(engine, job, factors, slice(0, N), factors, slice(0, N))
                expected = reduced(whole, outputs)
                near(f"{method} kernel of {name} in float32, outputs={outputs!r}", found, expected, dtype="float32")
                engine.release(factors)


def _of_model(model: Any, x: np.ndarray) -> np.ndarray:
    flat = np.concatenate([block.reshape(*block.shape[:2], -1) for block in oracle.jacobian(model, x).values()], axis=2)
    return np.einsum("iap,jbp->ijab", flat, flat)
