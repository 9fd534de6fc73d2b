"""`memory=` is a bound: of the factors that are held at a time, and of what the process takes."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from helpers import numbers_of_a_fresh_process
from small_stores import MODEL, X
from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import checked_reduction
from udlbridge.backends.reference.engine import ReferenceBackend
from udlbridge.backends.reference.factors import Summand
from udlbridge.kernels.tiling import Grid, TileComputer, prepared_samples


class Counting(ReferenceBackend):
    """Counts the blocks of samples whose factors are held."""

    held = most = rooms = samples = 0

    def prepare(self, job: KernelJob, x: np.ndarray) -> list[Summand]:
        self.held += 1
        self.samples += len(x)
        self.most = max(self.most, self.held)
        return super().prepare(job, x)

    def release(self, factors: list[Summand]) -> None:
        self.held -= 1

    def make_room(self) -> None:
        self.rooms += 1


@given(
    n=st.integers(1, 30), m=st.integers(1, 30), tile=st.integers(1, 12), cached=st.integers(2, 6), second=st.booleans()
)
def test_factors_are_released_before_others_are_made(n: int, m: int, tile: int, cached: int, second: bool) -> None:
    m = m if second else n
    engine, grid = Counting(), Grid(n, m, tile, not second)
    job = KernelJob(MODEL, checked_reduction(0, 3))
    with TileComputer(engine, job, X[:n], X[:m] if second else None, grid, cached) as computer:
        for one in grid.tiles():
            computer.compute(one, np.empty(one.shape))
    blocks = -(-n // tile) + (-(-m // tile) if second else 0)
    assert engine.most == min(cached, blocks)
    assert (engine.rooms > 0) == (blocks > cached)
    assert engine.held == 0
    assert engine.samples == prepared_samples(grid, cached)


@pytest.mark.parametrize("call", ["kernel", "store", "verify", "plan"])
def test_nothing_is_held_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_tiles: None, call: str
) -> None:
    engine, real = Counting(), backends.get
    store = ub.compute_kernel(MODEL, X[:21], tmp_path / "K.zarr", backend="reference")
    monkeypatch.setattr(backends, "get", lambda name=None, **_: engine if name == "reference" else real(name))
    if call == "kernel":
        ub.ntk(MODEL, X[:21], backend="reference")
    elif call == "store":
        store.append(X[21:40])
    elif call == "verify":
        store.compare_with_float64(3)
    else:
        ub.plan(MODEL, 21, sample_shape=(5,), backend="reference")
    assert engine.most >= (1 if call == "plan" else 2)  # a calibration holds one block at a time
    assert engine.held == 0


SEQUENCES = "ub.Model([ub.Dense(128, 256, 'tanh'), ub.Take(-1), ub.Dense(256, 10)])", (32, 128)
IMAGES = "ub.models.small_resnet()", (3, 32, 32)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("engine", "network"),
    [
        ("torch", SEQUENCES),
        ("reference", SEQUENCES),
        pytest.param("julia", SEQUENCES, marks=pytest.mark.julia),
        pytest.param("julia", IMAGES, marks=pytest.mark.julia),
    ],
)
def test_the_smallest_bound_holds(engine: str, network: tuple[str, tuple[int, ...]]) -> None:
    """In a fresh process, for six tiles of 64 samples, with the memory that two need: blocks come and go.

    What counts are the gradients: of a sequence 330,000 numbers for each sample.
    """
    model, shape = network
    code = (
        "import numpy as np, udlbridge as ub\n"
        "from udlbridge.kernels import planning\nfrom udlbridge.store.peak_memory import PeakMemory\n"
        f"planning.LARGEST_TILE, model, shape = 64, {model}, {shape}\n"
        "x = np.random.default_rng(0).standard_normal((192, *shape)).astype('float32')\n"
        f"options = {{'backend': {engine!r}, 'threads': 1}}\n"
        "ub.ntk(model, x[:4], **options)\n"
        "plan = ub.plan(model, 128, sample_shape=shape, calibrate=False, **options)\n"
        "with PeakMemory() as memory: ub.ntk(model, x, memory=plan.ram_bytes, **options)\n"
        "print(plan.tile, plan.cached_blocks, plan.ram_bytes, memory.over_baseline)"
    )
    tile, cached, bound, peak = numbers_of_a_fresh_process(code)
    assert (tile, cached) == (64, 2)
    assert peak < bound, (peak, bound)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is the GNU C library that is told")
def test_memory_that_was_freed_is_handed_out_again() -> None:
    code = (
        "import resource, numpy as np\n"
        "from udlbridge import backends\n"
        "backends.get('torch')\n"
        "for _ in range(2):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.empty(2**24, dtype=np.uint8).fill(1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    (faults,) = numbers_of_a_fresh_process(code)
    assert faults < 100  # the first time 460 and more, as both times where nothing was told
