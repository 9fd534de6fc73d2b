"""The Flux/Zygote engine: hands arrays to the Julia package UDLBridge and takes arrays back. It computes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import KernelJob, Slopes, TrainJob, TrainState
from udlbridge.backends.julia import runtime
from udlbridge.backends.julia.exchange import assembled, loss_arguments, program_arguments, sent, targets, to_numpy
from udlbridge.backends.julia.networks import JuliaNetwork, Look
from udlbridge.backends.programs import Program
from udlbridge.backends.threads import Pool, ThreadLimit
from udlbridge.errors import BackendError, ConversionError
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import output_size
from udlbridge.networks.model import Model

COLLECTED_FROM = 2**26
"""Bytes of released factors that are worth a full collection, which takes 0.2 s."""


class JuliaBackend(Backend[Any]):
    """Flux and Zygote, in this process. Factors of a kernel stay in Julia's memory.

    It is made and used in the thread that Julia belongs to, and nowhere else: see `owner`.

    Args:
        checkpoint: called between the calls of Julia that one method makes, and by these between their steps, about
            twenty times a second; what it raises ends the method.
        held: users' own models by the number of their `JuliaNetwork`.
    """

    name = "julia"

    def __init__(self, checkpoint: Callable[[], None], held: Mapping[int, Any]) -> None:
        self._module = runtime.start()
        self._checkpoint, self._held = checkpoint, held
        self.call("bridge_checkpoint", checkpoint)
        self._chain: tuple[str, Any] | None = None
        self._released = 0
        self._limit = ThreadLimit(lambda: [Pool("julia", self.exchange_threads)])

    def versions(self) -> dict[str, str]:
        """Versions of Julia, Flux, Zygote, NNlib, UDLBridge and juliacall."""
        found = {str(name): str(version) for name, version in self.call("bridge_versions").items()}
        return {**found, "juliacall": str(runtime.juliacall_version())}

    def outputs(self, model: Any, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        return to_numpy(self.call("bridge_outputs", self._build(model), sent(x)))

    def jacobian(self, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        """One Zygote pullback per sample; blocks (n, O, *parameter shape)."""
        chain = self._build(model)
        blocks = self._assembled(x, lambda part: self.call("bridge_jacobian", chain, sent(part)))
        return dict(zip(model.params, blocks, strict=True))

    def input_jacobian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """One Zygote pullback per output, (n, O, *D)."""
        chain = self._build(model)
        return self._assembled(x, lambda part: [self.call("bridge_input_jacobian", chain, sent(part))])[0]

    def input_hessian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs features features"]:
        """A dual number through the Zygote pullback of every output, (n, O, D, D)."""
        chain = self._build(model)
        return self._assembled(x, lambda part: [self.call("bridge_input_hessian", chain, sent(part))])[0]

    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of the layers and errors at them, one Zygote pullback per layer."""
        activations, errors = self.call("bridge_signals", self._build(model), sent(x), y.T)
        return [to_numpy(a) for a in activations], [to_numpy(e) for e in errors]

    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula in Julia's broadcasting."""
        found = self.call("bridge_program_value", *program_arguments(program, x), x.T)
        return to_numpy(found).astype(x.dtype, copy=False)

    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula's gradient by Zygote."""
        return to_numpy(self.call("bridge_program_gradient", *program_arguments(program, x), x.T))

    def prepare(self, job: KernelJob, x: np.ndarray) -> Any:
        """Factors, computed by Zygote and kept in Julia."""
        outputs = _counted_from_one(job.reduction.outputs)
        n_outputs = output_size(job.model, x.shape[1:])
        with self.blas_threads(job.threads):
            return self.call(
                "bridge_prepare", self._build(job.model), sent(x), outputs, n_outputs, job.method, list(job.parameters)
            )

    def release(self, factors: Any) -> None:
        """Empty them: Python may keep its hold on them for a while."""
        self._released += int(self.call("bridge_release", factors))

    def make_room(self) -> None:
        """Collect what was released when it is much.

        It has outlived some collections, and Julia's quick ones pass over what is old: block after block would stay.
        """
        if self._released > COLLECTED_FROM:
            self.call("bridge_collect")
            self._released = 0

    def fill(
        self, job: KernelJob, left: Any, rows: slice, right: Any, cols: slice, out: np.ndarray, *, lower: bool = False
    ) -> None:
        """Julia's BLAS writes straight into `out`."""
        if not out.flags.c_contiguous:
            buffer = np.empty_like(out, order="C")
            self.fill(job, left, rows, right, cols, buffer, lower=lower)
            out[...] = buffer
            return
        element = getattr(runtime.julia_base(), "Float32" if out.dtype == np.float32 else "Float64")
        first = (rows.start + 1, rows.stop), (cols.start + 1, cols.stop)
        names = list(job.parameters)
        with self.blas_threads(job.threads):
            self.call(
                "bridge_fill", element, out.ctypes.data, out.shape[::-1], left, first[0], right, first[1], names, lower
            )

    def loss_gradient(
        self, model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """One `Flux.withgradient`; for slopes, a dual number through another one besides."""
        value, gradients = self.call(
            "bridge_loss_gradient", self._build(model), sent(x), targets(y, slopes), *loss_arguments(loss, slopes)
        )
        return float(value), {name: to_numpy(g) for name, g in zip(model.params, gradients, strict=True)}

    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """`Flux.setup` and Optimisers.jl."""
        return JuliaTraining(self, job, x, y, state)

    def pull(
        self, model: Any, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"], device: str | None = None
    ) -> dict[str, np.ndarray]:
        """One Zygote pullback of the batch."""
        pulled = self.call("bridge_pull", self._build(model), sent(x), cotangents.T)
        return {name: to_numpy(value) for name, value in zip(model.params, pulled, strict=True)}

    def push(
        self,
        model: Any,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
        device: str | None = None,
    ) -> Float[np.ndarray, " n"]:
        """One forward pass of tangents for chains of Dense layers; else one Zygote pullback per sample."""
        moves = [direction[name].T for name in model.params]
        return to_numpy(self.call("bridge_push", self._build(model), sent(x), moves, cotangents.T))

    def infinite_kernels(
        self, model: Model, x1: np.ndarray, x2: np.ndarray | None, w_std: float, b_std: float, parameterization: str
    ) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
        """`UDLBridge.infinite_ntk`."""
        chain, other = self._build(model), None if x2 is None else x2.T
        nngp, ntk = self.call("bridge_infinite", chain, x1.T, other, w_std, b_std, parameterization)
        # Not transposed: rows are the samples of x1 here and there.
        return np.array(np.asarray(nngp)), np.array(np.asarray(ntk))

    def translated(self, chain: Any, x: np.ndarray | None = None) -> Model | Graph:
        """The network of a Flux chain in Julia, an object of juliacall; with samples `x`, a graph of any model.

        Raises:
            ConversionError: what has no translation, by its place in the chain.
        """
        try:
            spec, names, arrays = self.call("bridge_model", chain, *([] if x is None else [x.T]))
        except BackendError as error:
            raise ConversionError(error.given.partition(": ")[2].partition("\nStacktrace")[0]) from None
        return (Model if x is None else Graph).from_spec(
            str(spec), {str(name): to_numpy(array) for name, array in zip(names, arrays, strict=True)}, "the chain"
        )

    def look(self, model: Any) -> Look:
        """What a user's own model is now."""
        name, names, arrays, dtype, rows = self.call("bridge_look", model)
        params = {str(own): to_numpy(array) for own, array in zip(names, arrays, strict=True)}
        return Look(str(name), params, str(dtype).lower(), int(rows))

    def layers(self, model: Any, x: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
        """Kinds and outputs of the layers of a user's own chain, by number."""
        names, kinds, values = self.call("bridge_layers", model, x.T)
        rows = zip(names, kinds, values, strict=True)
        return {str(name): (str(kind), to_numpy(value)) for name, kind, value in rows}

    def described(self, model: Any) -> tuple[str, list[np.ndarray]]:
        """All that is in a user's own model: text, and arrays."""
        text, arrays = self.call("bridge_described", model)
        return str(text), [to_numpy(array) for array in arrays]

    def _build(self, model: Model | Graph | JuliaNetwork) -> Any:
        """The model in Julia; the last one is kept, since callers ask for the same model again and again."""
        if isinstance(model, JuliaNetwork):
            return self._held[model.number]
        key = model.hash()
        if self._chain is None or self._chain[0] != key:
            self._chain = (key, self.new_chain(model))
        return self._chain[1]

    def new_chain(self, model: Model | Graph) -> Any:
        """A Flux chain, or Julia's own graph, with arrays of its own."""
        arrays = model.arrays
        values = [value.T for value in arrays.values()]
        function = "bridge_graph" if isinstance(model, Graph) else "bridge_build"
        return self.call(function, json.dumps(model.spec()), list(arrays), values)

    def call(self, function: str, *args: Any) -> Any:
        """A function of the Julia module, with its errors as ours.

        Raises:
            BackendError: Julia raised it.
        """
        called: Callable[..., Any] = getattr(self._module, function)
        try:
            return called(*args)
        except Exception as error:
            if not _of_julia(error):
                raise
            said = str(error)
        # Outside of the handler, so that it has no part of Julia as its context, which any thread may free.
        raise BackendError(f"Julia raised an error in UDLBridge.{function}: {said}")

    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """Julia's BLAS with `count` threads; the old number comes back afterwards."""
        return self._limit.to(count)

    def exchange_threads(self, count: int) -> int:
        """Set the number of threads of Julia's BLAS; returns the one before."""
        return int(self.call("bridge_threads", count))

    def _assembled(self, x: np.ndarray, compute: Callable[[np.ndarray], Sequence[Any]]) -> list[np.ndarray]:
        return assembled(x, compute, self._checkpoint)


class JuliaTraining(Training):
    """Chain, optimiser and data are in Julia's memory; an epoch is one call."""

    def __init__(
        self, engine: JuliaBackend, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState
    ) -> None:
        self._engine, self._job = engine, job
        names = list(job.model.params)
        settings = {key: value for key, value in job.optimizer.settings.items() if key != "lr"}
        chain = engine.new_chain(job.model.with_params(state.params))
        rest = (
            job.optimizer.name,
            list(settings),
            list(settings.values()),
            [job.rates[name] for name in names],
            job.clip_norm or 0.0,
        )
        if job.linearized:
            start = engine.new_chain(job.model)
            self._training = engine.call("bridge_linearized", chain, start, sent(x), targets(y, None), job.loss, *rest)
        else:
            shown, loss = targets(y, job.slopes), loss_arguments(job.loss, job.slopes)
            self._training = engine.call("bridge_training", chain, sent(x), shown, *loss, *rest)
        if state.step:
            arrays = [state.slots[slot][name].T for slot in job.optimizer.slots for name in names]
            engine.call("bridge_resume", self._training, list(job.optimizer.slots), arrays, state.step)

    def epoch(self, order: Int[np.ndarray, " samples"], batch_size: int, factor: float) -> Float[np.ndarray, " steps"]:
        """One pass over `order`, in Julia."""
        with self._engine.blas_threads(self._job.threads):
            return to_numpy(self._engine.call("bridge_epoch", self._training, order, batch_size, factor))

    def state(self) -> TrainState:
        """Copies, in the canonical layout."""
        params, by_slot, step = self._engine.call("bridge_state", self._training)
        names = list(self._job.model.params)

        def named(arrays: Any) -> dict[str, np.ndarray]:
            return {name: to_numpy(array) for name, array in zip(names, arrays, strict=True)}

        return TrainState(named(params), {slot: named(by_slot[slot]) for slot in self._job.optimizer.slots}, int(step))


def _counted_from_one(outputs: int | str | list[int]) -> int | str | list[int]:
    """`outputs` as Julia counts them."""
    if isinstance(outputs, list):
        return [index + 1 for index in outputs]
    return outputs + 1 if isinstance(outputs, int) else outputs


def _of_julia(error: Exception) -> bool:
    """Whether it is juliacall's own error, whose module this one does not import."""
    return type(error).__name__ == "JuliaError"
