"""Ctrl-C while Julia computes: Python sees it between calls, so no call may take long."""

from __future__ import annotations

import os
import subprocess
import time

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


@pytest.mark.julia
@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.parametrize("derivative", ["jacobian", "input_hessian"])
def test_derivatives_of_many_samples_end_within_a_second(derivative: str) -> None:
    model = ub.Model([ub.Dense(20, 40, "tanh"), ub.Dense(40, 10)])
    x = np.random.default_rng(0).normal(size=(50_000, 20)).astype(np.float32)
    compute = getattr(ub, derivative)
    compute(model, x[:2], backend="julia")  # compiled
    began = time.perf_counter()
    # From outside: no thread of this process runs while Julia does.
    with subprocess.Popen(["sh", "-c", f"sleep 1; kill -INT {os.getpid()}"]), pytest.raises(KeyboardInterrupt):
        compute(model, x, backend="julia")
    assert time.perf_counter() - began < 2.5  # one second of it before the signal
