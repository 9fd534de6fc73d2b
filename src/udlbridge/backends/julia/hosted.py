"""The contract of an engine, kept by Julia wherever it runs: a thread of this process, or another process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakSet

import numpy as np
from jaxtyping import Float, Int

from udlbridge.backends.base import Backend, Training
from udlbridge.backends.jobs import KernelJob, Slopes, TrainJob, TrainState
from udlbridge.backends.julia.host import Held, Host
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.programs import Program
from udlbridge.backends.threads import Pool, ThreadLimit
from udlbridge.networks.model import Model


class HostedJulia(Backend[Held]):
    """Flux and Zygote at a host. It may be called from any thread; the host takes one call after the other."""

    name = "julia"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._prepared: WeakSet[Held] = WeakSet()
        self._limit = ThreadLimit(lambda: [Pool("julia", self._exchange_threads)])

    def versions(self) -> dict[str, str]:
        """Versions of Julia, Flux, Zygote, NNlib, UDLBridge and juliacall."""
        return self._host.call("versions")

    def outputs(self, model: Any, x: np.ndarray) -> np.ndarray:
        """f(x), (n, *out)."""
        return self._of(model).call("outputs", model, x)

    def jacobian(self, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        """Blocks (n, O, *parameter shape)."""
        return self._of(model).call("jacobian", model, x)

    def input_jacobian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """(n, O, *D)."""
        return self._of(model).call("input_jacobian", model, x)

    def input_hessian(self, model: Any, x: np.ndarray) -> Float[np.ndarray, "n outputs features features"]:
        """(n, O, D, D)."""
        return self._of(model).call("input_hessian", model, x)

    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of the layers and errors at them."""
        return self._host.call("signals", model, x, y)

    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula's value."""
        return self._host.call("program_value", program, x)

    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The formula's gradient."""
        return self._host.call("program_gradient", program, x)

    def prepare(self, job: KernelJob, x: np.ndarray) -> Held:
        """Factors, which stay at the host."""
        place = self._of(job.model)
        factors = Held(place, place.call("prepare", _sent(job), x))
        self._prepared.add(factors)
        return factors

    def release(self, factors: Held) -> None:
        """Free their memory at the host."""
        if factors.there:  # else they went with their process
            factors.host.call("release", factors.number)
        self._prepared.discard(factors)
        if not self._prepared:
            factors.host.rest()

    def make_room(self) -> None:
        """Collect what was released when it is much."""
        self._host.call("make_room")

    def fill(
        self, job: KernelJob, left: Held, rows: slice, right: Held, cols: slice, out: np.ndarray, *, lower: bool = False
    ) -> None:
        """Julia's BLAS writes the rectangle."""
        left.host.call_into(out, "fill", _sent(job), left.number, rows, right.number, cols, lower)

    def loss_gradient(
        self, model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss of a batch and its gradients by name."""
        return self._host.call("loss_gradient", model, x, y, loss, slopes)

    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """A training that stays at the host."""
        return HostedTraining(self._host, Held(self._host, self._host.call("training", job, x, y, state)))

    def pull(
        self, model: Any, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"], device: str | None = None
    ) -> dict[str, np.ndarray]:
        """J' c by name."""
        return self._of(model).call("pull", model, x, cotangents)

    def push(
        self,
        model: Any,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
        device: str | None = None,
    ) -> Float[np.ndarray, " n"]:
        """<c_i, (J w)_i>."""
        return self._of(model).call("push", model, x, direction, cotangents)

    def infinite_kernels(
        self, model: Model, x1: np.ndarray, x2: np.ndarray | None, w_std: float, b_std: float, parameterization: str
    ) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
        """`UDLBridge.infinite_ntk`."""
        return self._host.call("infinite_kernels", model, x1, x2, w_std, b_std, parameterization)

    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """Julia's BLAS with `count` threads; the old number comes back afterwards."""
        if count is not None:
            self._host.start()
        return self._limit.to(count)

    def close(self) -> None:
        """Let Julia's process go, where it has one of its own."""
        self._host.close()

    def _exchange_threads(self, count: int) -> int:
        # A process that died meanwhile took its number along: no other is started for that.
        return self._host.call("exchange_threads", count) if self._host.running else count

    def _of(self, model: Any) -> Host:
        """Where a network is computed: a user's own model where it is."""
        return model.host if isinstance(model, JuliaNetwork) else self._host


class HostedTraining(Training):
    """A training at a host."""

    def __init__(self, host: Host, training: Held) -> None:
        self._host, self._training = host, training

    def epoch(self, order: Int[np.ndarray, " samples"], batch_size: int, factor: float) -> Float[np.ndarray, " steps"]:
        """One pass over `order`."""
        return self._host.call("epoch", self._training.number, order, batch_size, factor)

    def state(self) -> TrainState:
        """Copies, in the canonical layout."""
        return self._host.call("state", self._training.number)


def _sent(job: KernelJob) -> KernelJob:
    """What the engine has to know of a job: the rest may be what no other process can be given."""
    return KernelJob(job.model, job.reduction, job.method, job.threads, job.device, job.params)
