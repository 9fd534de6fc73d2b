"""How many tiles and entries there are, by formulas, against the tiles themselves; and kernels that are not finite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge import errors
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.tiling import Grid


@given(n=st.integers(1, 60), m=st.integers(1, 60), tile=st.integers(1, 70), symmetric=st.booleans())
def test_counts_are_those_of_the_tiles(n: int, m: int, tile: int, symmetric: bool) -> None:
    grid = Grid(n, n if symmetric else m, tile, symmetric)
    tiles = list(grid.tiles())
    assert grid.count == len(tiles)
    assert grid.pairs == sum(one.shape[0] * one.shape[1] for one in tiles)


def test_a_plan_does_not_go_through_its_tiles() -> None:
    """At 10 million samples there are 12 million tiles."""
    model = ub.Model([ub.Dense(3, 2)])
    start = time.process_time()
    plan = ub.plan(model, 10_000_000, backend="reference", calibrate=False)
    assert f"{plan.grid.count:,} tiles" in str(plan)
    assert plan.grid.count > 10**7
    assert time.process_time() - start < 1


def test_the_work_of_a_kernel_grows_with_its_tiles_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ub.Model([ub.Dense(3, 2)])
    x = np.random.default_rng(0).standard_normal((2560, 3)).astype(np.float32)
    seen = []
    tiles = Grid.tiles

    def counted(self: Grid, first_row: int = 0):
        for tile in tiles(self, first_row):
            seen.append(tile)
            yield tile

    monkeypatch.setattr(Grid, "tiles", counted)
    monkeypatch.setattr("udlbridge.kernels.planning.LARGEST_TILE", 64)
    ub.ntk(model, x, backend="reference")
    assert len(seen) == 820  # 40 blocks: every tile once


# --- kernels that are not finite ---

DEEP = ub.Model([ub.Dense(20, 30, "tanh"), ub.Dense(30, 1)], seed=1)
LINEAR = ub.Model([ub.Dense(20, 1)], seed=1)


def overflowing(n: int, where: int) -> np.ndarray:
    """Samples of which one is finite, with finite outputs and finite derivatives, and no finite square."""
    x = np.random.default_rng(0).standard_normal((n, 20)).astype(np.float32)
    x[where] = 1e20
    return x


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("model", [DEEP, LINEAR], ids=["nan", "inf"])
@pytest.mark.parametrize("call", [ub.ntk, ub.layer_kernels])
def test_a_kernel_that_is_not_finite_is_not_given(backend: str, call: Any, model: ub.Model) -> None:
    """In the deep network tanh is saturated: errors of zero times inner products that overflow."""
    x = overflowing(12, 9)
    value = "nan" if model is DEEP else "inf"
    words = rf"K\[9, 9\] is {value} in float32.*larger than 3\.4e\+38.*finite numbers.*astype\(\"float64\"\)"
    with pytest.raises(errors.NumericalError, match=words):
        call(model, x, backend=backend)
    with pytest.raises(errors.NumericalError, match=rf"K\[1, 9\] is {value}"):
        call(model, x[8:], x, backend=backend)
    wide = call(model.astype("float64"), x.astype(np.float64), backend=backend)
    assert all(np.isfinite(k).all() for k in (wide.values() if isinstance(wide, dict) else [wide]))


@pytest.mark.usefixtures("small_tiles")
def test_a_store_of_such_a_kernel_keeps_the_tiles_before_it(backend: str, tmp_path: Path) -> None:
    with pytest.raises(errors.NumericalError, match=r"K\[17, 17\] is inf in float32"):
        ub.compute_kernel(LINEAR, overflowing(20, 17), tmp_path / "K.zarr", backend=backend)
    assert ub.KernelStore(tmp_path / "K.zarr").verify().good >= 1


def test_products_with_such_a_kernel(backend: str) -> None:
    operator = ub.ntk_operator(LINEAR, overflowing(5, 3), backend=backend)
    with pytest.raises(errors.NumericalError, match=r"K v\[3\] is inf in float32"):
        operator @ np.ones(5)


def test_a_module_in_half_precision_adds_up_in_float32() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(400, 10).half()
    kernel = ub.ntk(module, np.full((3, 400), 10, np.float16))
    # 10 (400 * 10^2 + 1), which float16 does not hold.
    np.testing.assert_array_equal(kernel, np.full((3, 3), 400_010, np.float32))


def test_a_module_whose_outputs_overflow_draws_no_random_numbers() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(400, 10).half()
    with torch.no_grad():
        module.weight.fill_(1)
    x = np.full((3, 400), 6e4, np.float16)
    assert np.isposinf(ub.outputs(module, x)).all()
    # The kernel is of gradients, which are finite, and adds up in float32.
    np.testing.assert_allclose(ub.ntk(module, x), np.full((3, 3), 10 * (400 * float(x[0, 0]) ** 2 + 1)), rtol=1e-5)


def test_a_module_overflows() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(errors.NumericalError, match=r"K\[0, 0\] is inf in float32.*module\.double\(\)"):
        ub.ntk(torch.nn.Linear(4, 2), np.full((3, 4), 1e30, np.float32))


@given(
    where=st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 1)),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_the_first_entry_is_named(where: tuple[int, int, int], value: float, dtype: str) -> None:
    block = np.full((5, 4, 2), np.finfo(dtype).max, dtype=dtype)
    check_finite(block)  # its sum overflows, and no entry does
    block[where] = value
    block[-1, -1, -1] = value
    index = f"{where[0] + 7}, {where[1] + 2}, {where[2]}"
    with pytest.raises(errors.NumericalError, match=rf"K\[{index}\] is {value} in {dtype}"):
        check_finite(block, corner=(7, 2))
