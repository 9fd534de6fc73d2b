"""Going on with a store as it was begun: the request and the plan that its manifest means."""

from __future__ import annotations

import numpy as np

from udlbridge import backends
from udlbridge.kernels.planning import make_plan
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest, kernel_request
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.model import Model
from udlbridge.store.writing import WritableStore


def request_as_begun(
    store: WritableStore,
    model: Model | ForeignNetwork,
    sample_shape: tuple[int, ...],
    *,
    backend: str | None,
    memory: int | str,
    threads: int | None,
    device: str | None,
) -> KernelRequest:
    """The request of the kernel that a store is of; None is what it was begun with."""
    begun = store.manifest
    same = backend in (None, begun["backend"])
    return kernel_request(
        model,
        sample_shape,
        outputs=store.reduction.outputs,
        params=store.parameters or None,
        backend=begun["backend"] if backend is None else backend,
        method=begun["plan"]["method"],
        memory=memory,
        threads=threads,
        device=begun.get("device") if device is None and same else device,
    )


def plan_as_begun(store: WritableStore, request: KernelRequest, x: np.ndarray, n: int) -> Plan:
    """The plan for `n` samples like those of `x`, in the store's tiles; the engine is known to be able to do it."""
    plan = make_plan(request, n, tile=store.grid.tile)
    try_out(request, x)
    return plan


def try_out(request: KernelRequest, x: np.ndarray) -> None:
    """Let the engine prepare one sample, so that what it cannot do shows before anything is written.

    Raises:
        BackendUnavailable: it cannot run here; and whatever it says of the job.
    """
    engine = backends.get(request.backend)
    engine.release(engine.prepare(request, x[:1]))
