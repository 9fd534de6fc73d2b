"""How long a kernel will take: what an engine does in two seconds on this machine, and the rest by proportion."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from udlbridge import backends
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.networks.inputs import random_batch

CALIBRATION_SECONDS = 2.0


def calibrated(request: KernelRequest, plan: Plan) -> Plan:
    """The plan with the time predicted from computing for about two seconds on random samples.

    Raises:
        BackendUnavailable: the engine cannot run here.
    """
    engine = backends.get(request.backend)
    size = min(plan.tile, plan.n, plan.m)
    every = slice(0, size)
    x = random_batch(request.model, request.sample_shape, size)
    out = np.empty((size, size, *request.reduction.trailing), dtype=request.model.dtype)
    factors = engine.prepare(request, x)  # compiles and warms up
    engine.fill(request, factors, every, factors, every, out)
    start = time.perf_counter()
    engine.release(engine.prepare(request, x))
    prepared = time.perf_counter() - start
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < CALIBRATION_SECONDS - prepared:
        engine.fill(request, factors, every, factors, every, out)
        done += 1
    engine.release(factors)
    filled = (time.perf_counter() - start) / done
    samples = plan.n if plan.symmetric else plan.n + plan.m
    seconds = filled * plan.grid.pairs / size**2 + prepared * samples / size
    return replace(plan, seconds=seconds, gflops=plan.flops / seconds / 1e9)
