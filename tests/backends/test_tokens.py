"""Kernels of tables of tokens: from the tokens that samples share, and never from the whole table."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from architectures import shaken
from helpers import assert_within_budget
from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import Outputs, checked_reduction

REDUCTIONS = [0, "trace", "mean", "sum", "diagonal", (1, 0), "full"]
KNOWN = 50_000


def large_and_small(positions: int, n: int, distinct: int) -> tuple[ub.Model, np.ndarray, ub.Model, np.ndarray]:
    """A network with a large table and samples of few tokens; and the same with a table of these tokens alone."""
    generator = np.random.default_rng(0)
    readout = [ub.Dense(4, 3, "tanh"), ub.Flatten(), ub.Dense(3 * positions, 2)]
    large = shaken([ub.Embedding(KNOWN, 4), *readout])
    used = np.sort(generator.choice(KNOWN, size=distinct, replace=False))
    # Some tokens are frequent, as words are.
    tokens = np.minimum(generator.geometric(0.15, size=(n, positions)) - 1, distinct - 1)
    rows = {**large.params, "0.weight": large.params["0.weight"][used]}
    return large, used[tokens], ub.Model([ub.Embedding(distinct, 4), *readout], rows, dtype="float64"), tokens


@pytest.mark.parametrize("outputs", REDUCTIONS)
def test_a_large_table_is_a_small_one_of_the_tokens_that_occur(outputs: Outputs, backend: str) -> None:
    large, x, small, tokens = large_and_small(6, 7, 20)
    for params in (None, "0.weight", "1.*"):
        found = ub.ntk(large, x[:4], x[4:], outputs=outputs, params=params, backend=backend)
        plain = ub.ntk(
            small, tokens[:4], tokens[4:], outputs=outputs, params=params, backend="reference", method="plain"
        )
        assert_within_budget(found, plain)


def test_frequent_and_rare_tokens_are_multiplied_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch multiplies matrices for frequent tokens, and single entries for rare ones, a block at a time.

    Of few samples, it makes a table of the tokens that they share.
    """
    large, x, small, tokens = large_and_small(6, 7, 20)
    for outputs in REDUCTIONS:
        expected = ub.ntk(small, tokens, outputs=outputs, backend="reference", method="plain")
        for few, block, dense in ((0, 1, 0), (2**30, 1, 0), (2**30, 40, 0), (60, 2**20, 0), (0, 2**20, 2**20)):
            monkeypatch.setattr("udlbridge.backends.pytorch.tokens.FEW", few)
            monkeypatch.setattr("udlbridge.backends.pytorch.tokens.SMALL", dense)
            monkeypatch.setattr("udlbridge.backends.pytorch.tokens.BLOCK", block)
            assert_within_budget(ub.ntk(large, x, outputs=outputs, params=None, backend="torch"), expected)


def test_rectangles_of_samples(backend: str) -> None:
    large, x, small, tokens = large_and_small(5, 9, 12)
    whole = ub.ntk(small, tokens, backend="reference", method="plain")
    engine = backends.get(backend)
    job = KernelJob(large, checked_reduction("trace", 2))
    factors = engine.prepare(job, x)
    for rows, cols in ((slice(2, 5), slice(0, 9)), (slice(0, 9), slice(6, 7)), (slice(8, 9), slice(3, 8))):
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start))
        engine.fill(job, factors, rows, factors, cols, out)
        assert_within_budget(out, whole[rows, cols].copy(), factor=10)


def test_the_plan_knows_that_no_table_is_kept() -> None:
    """1000 samples of 16 of 50000 tokens: gradients of the table would be 13 GB for one output."""
    model = ub.Model([ub.Embedding(KNOWN, 64), ub.Take(-1), ub.Dense(64, 2)])
    plan = ub.plan(model, 1000, sample_shape=(16,), outputs=0, backend="torch", calibrate=False)
    table = 4 * KNOWN * 64
    assert plan.tile == 1000
    assert plan.ram_bytes < 1000 * table / 50
    assert plan.flops < 2 * 1000**2 * 16 * 80
    plain = ub.plan(
        model, 64, sample_shape=(16,), outputs=0, backend="torch", method="plain", memory="20GB", calibrate=False
    )
    assert plain.ram_bytes > 64 * table
