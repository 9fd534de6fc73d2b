"""Ctrl-C while Julia computes: Python sees it between calls, and when Julia asks whether it is to go on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.backends.julia.exchange import CALL_SECONDS, assembled, few_at_a_time


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_stretches_hold_every_sample_once_and_in_order(n: int) -> None:
    assert np.concatenate([np.arange(n)[rows] for rows in few_at_a_time(n)]).tolist() == list(range(n))


def test_stretches_grow_until_a_call_takes_its_time() -> None:
    taken = []
    for rows in few_at_a_time(300):
        began = time.perf_counter()
        time.sleep(0.004 * (rows.stop - rows.start))
        taken.append(time.perf_counter() - began)
    assert len(taken) < 30
    assert max(taken) < 5 * CALL_SECONDS


def test_parts_are_put_together_in_c_order() -> None:
    x = np.arange(24.0).reshape(8, 3)
    (whole,) = assembled(x, lambda part: [part.T * 2], lambda: None)
    np.testing.assert_array_equal(whole, 2 * x)
    assert whole.flags.c_contiguous
    assert not np.shares_memory(whole, x)


MODEL = ub.Model([ub.Dense(20, 40, "tanh"), ub.Dense(40, 10)])
X = np.random.default_rng(0).normal(size=(50_000, 20)).astype(np.float32)
LONG: dict[str, Callable[[np.ndarray], object]] = {
    "a Jacobian": lambda x: ub.jacobian(MODEL, x, backend="julia"),
    "a Hessian": lambda x: ub.input_hessian(MODEL, x, backend="julia"),
    "an epoch": lambda x: ub.train(
        MODEL,
        x,
        np.zeros((len(x), 10), np.float32),
        backend="julia",
        loss="mse",
        epochs=1 if len(x) < 9 else 20,
        batch_size=1,
    ),
}


@pytest.mark.julia
@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.parametrize("name", LONG)
def test_what_takes_long_ends_within_a_second(name: str) -> None:
    LONG[name](X[:2])  # compiled
    began = time.perf_counter()
    # From outside, as a terminal does: threads of this process run only when Julia asks.
    with subprocess.Popen(["sh", "-c", f"sleep 1; kill -INT {os.getpid()}"]), pytest.raises(KeyboardInterrupt):
        LONG[name](X)
    assert time.perf_counter() - began < 2.5  # one second of it before the signal
