"""The Flux/Zygote engine: hands arrays to the Julia package UDLBridge and takes arrays back. It computes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.backends import runtime
from udlbridge.backends.base import Backend, KernelJob
from udlbridge.errors import BackendError, OptionError
from udlbridge.inputs import output_size
from udlbridge.model import Model


class JuliaBackend(Backend[Any]):
    """Flux and Zygote, in this process. Factors of a kernel stay in Julia's memory."""

    name = "julia"

    def __init__(self) -> None:
        self._module = runtime.start()
        self._chain: tuple[str, Any] | None = None

    def versions(self) -> dict[str, str]:
        """Versions of Julia, Flux, Zygote, NNlib, UDLBridge and juliacall."""
        found = {str(name): str(version) for name, version in self._call("bridge_versions").items()}
        return {**found, "juliacall": str(runtime.juliacall_version())}

    def outputs(self, model: Model, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        return _array(self._call("bridge_outputs", self._build(model), x.T))

    def jacobian(self, model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
        """One Zygote pullback per sample; blocks (n, O, *parameter shape)."""
        blocks = self._call("bridge_jacobian", self._build(model), x.T)
        return {name: _array(block) for name, block in zip(model.params, blocks, strict=True)}

    def input_jacobian(self, model: Model, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """One Zygote pullback per output, (n, O, *D)."""
        return _array(self._call("bridge_input_jacobian", self._build(model), x.T))

    def prepare(self, job: KernelJob, x: np.ndarray) -> Any:
        """Factors, computed by Zygote and kept in Julia."""
        if job.device != "cpu":
            raise OptionError(
                f"device={job.device!r} with backend='julia'", allowed="cpu", remedy="use backend='torch'"
            )
        outputs = job.reduction.outputs
        if isinstance(outputs, int):
            outputs += 1  # Julia counts from 1
        n_outputs = output_size(job.model, x)
        with self._threads(job.threads):
            return self._call("bridge_prepare", self._build(job.model), x.T, outputs, n_outputs, job.method)

    def fill(self, job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, out: np.ndarray) -> None:
        """Julia's BLAS writes straight into `out`."""
        if not out.flags.c_contiguous:
            buffer = np.empty_like(out, order="C")
            self.fill(job, left, rows, right, cols, buffer)
            out[...] = buffer
            return
        element = getattr(runtime.julia_base(), "Float32" if out.dtype == np.float32 else "Float64")
        first = (rows.start + 1, rows.stop), (cols.start + 1, cols.stop)
        with self._threads(job.threads):
            self._call("bridge_fill", element, out.ctypes.data, out.shape[::-1], left, first[0], right, first[1])

    def pull(self, model: Model, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"]) -> dict[str, np.ndarray]:
        """One Zygote pullback of the batch."""
        pulled = self._call("bridge_pull", self._build(model), x.T, cotangents.T)
        return {name: _array(value) for name, value in zip(model.params, pulled, strict=True)}

    def push(
        self,
        model: Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
    ) -> Float[np.ndarray, " n"]:
        """One forward pass of tangents for chains of Dense layers; else one Zygote pullback per sample."""
        moves = [direction[name].T for name in model.params]
        return _array(self._call("bridge_push", self._build(model), x.T, moves, cotangents.T))

    def _build(self, model: Model) -> Any:
        """The Flux chain of a model; the last one is kept, since callers ask for the same model again and again."""
        key = model.hash()
        if self._chain is None or self._chain[0] != key:
            arrays = [value.T for value in model.params.values()]
            chain = self._call("bridge_build", json.dumps(model.spec()), list(model.params), arrays)
            self._chain = (key, chain)
        return self._chain[1]

    def _call(self, function: str, *args: Any) -> Any:
        runtime.start()  # refuses in a forked child, where Julia is gone
        called: Callable[..., Any] = getattr(self._module, function)
        try:
            return called(*args)
        except Exception as error:
            if type(error).__name__ != "JuliaError":
                raise
            raise BackendError(f"Julia raised an error in UDLBridge.{function}: {error}") from error

    @contextmanager
    def _threads(self, count: int | None) -> Iterator[None]:
        """Julia's BLAS with `count` threads; the old number comes back afterwards."""
        if count is None:
            yield
            return
        before = self._call("bridge_threads", count)
        try:
            yield
        finally:
            self._call("bridge_threads", before)


def _array(value: Any) -> np.ndarray:
    """A NumPy copy, in C order with samples first, of an array in Julia's memory."""
    return np.array(np.asarray(value).T, order="C", copy=True)
