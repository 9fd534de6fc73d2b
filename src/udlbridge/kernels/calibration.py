"""How long a kernel will take: what an engine does in two seconds on this machine, and the rest by proportion."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.backends.base import Backend
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import KernelRequest
from udlbridge.networks.inputs import random_batch

CALIBRATION_SECONDS = 2.0

FIRST_BLOCK = 16
"""Samples of the first block; each later one has twice as many."""

REPEATS = 3


def calibrated(request: KernelRequest, plan: Plan) -> Plan:
    """The plan with the time predicted from computing for about two seconds on random samples.

    Raises:
        BackendUnavailable: the engine cannot run here.
    """
    engine = backends.get(request.backend)
    largest, size = min(plan.tile, plan.n, plan.m), 0
    start, prepared, filled = time.perf_counter(), 0.0, 0.0
    # Blocks of growing size, the first of which compiles and warms up: a large one of a large network takes minutes.
    while size < largest:
        size = min(max(FIRST_BLOCK, 2 * size), largest)
        prepared, filled = _measured(engine, request, size, start + CALIBRATION_SECONDS)
        if time.perf_counter() - start + 2 * prepared + 4 * filled > CALIBRATION_SECONDS:
            break
    seconds = filled * plan.grid.pairs / size**2 + prepared * plan.prepared / size
    return replace(plan, seconds=seconds, gflops=plan.flops / seconds / 1e9)


def _measured(engine: Backend[Any], request: KernelRequest, size: int, until: float) -> tuple[float, float]:
    """Seconds that the factors of a block take, and a tile of it: of several, if that is soon done."""
    every, x = slice(0, size), random_batch(request.model, request.sample_shape, size)
    out = np.empty((size, size, *request.reduction.trailing), dtype=request.model.dtype)
    engine.release(engine.prepare(request, x[:1]))
    start = time.perf_counter()
    factors = engine.prepare(request, x)
    prepared = time.perf_counter() - start
    engine.fill(request, factors, every, factors, every, out)
    start, done = time.perf_counter(), 0
    while done == 0 or (done < REPEATS and time.perf_counter() < until):
        engine.fill(request, factors, every, factors, every, out)
        done += 1
    engine.release(factors)
    return prepared, (time.perf_counter() - start) / done
