"""Tiles computed by the workers of a Dask cluster, some of which are killed: nothing is lost, nothing there twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import udlbridge as ub
from faults.workers import at_tile, kill_workers
from helpers import udlbridge
from small_stores import assert_same_bytes, store_of
from udlbridge import errors
from udlbridge.store import tasks

distributed = pytest.importorskip("distributed")

KILLS = 4
"""How many workers are killed, one in each computation; `python tests/faults/run.py` kills 20."""

pytestmark = [
    pytest.mark.usefixtures("small_tiles", "small_tasks"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system"),
]


@pytest.mark.slow
def test_killed_workers_lose_nothing() -> None:
    found = kill_workers(KILLS, seed=1)
    assert found.losses == []
    assert found.whole == KILLS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("client", "takes no tasks|client is closed"),
        ("cluster", "takes no tasks|client is closed"),
        ("workers", "has no workers"),
    ],
)
def test_a_cluster_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, words: str) -> None:
    """No wait for ever: finished tiles are kept, and the rest may be computed without it."""
    monkeypatch.setattr(tasks, "LOOK", 0.2)
    monkeypatch.setattr(tasks, "PATIENCE", 1.0)
    monkeypatch.setattr(tasks, "OUTSTANDING", 4)
    alone = store_of(tmp_path / "alone.zarr", n=60)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made,
        distributed.Client(made) as client,
    ):
        leave = {"client": client.close, "cluster": made.close, "workers": lambda: made.scale(0)}[gone]
        with at_tile(5, leave), pytest.raises(errors.StoreError, match=words):
            store_of(tmp_path / "K.zarr", n=60, executor=client)
    rest = store_of(tmp_path / "K.zarr", n=60, resume=True)
    assert_same_bytes(rest, alone)
    assert 0 < rest.manifest["actual"][-1]["tiles"] < alone.grid.count


def test_dask_is_imported_only_where_it_is_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, udlbridge as ub\n"
        f"ub.compute_kernel(ub.Model([ub.Dense(5, 3)]), np.ones((9, 5), 'float32'), {str(tmp_path / 'K.zarr')!r},"
        " backend='reference')\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--executor", "processes:2"), ("--executor", "threads:2"), ("--dask", "local:2")])
def test_from_the_command_line(tmp_path: Path, options: tuple[str, str]) -> None:
    kernel = ("kernel", "--n", 40, "--samples", "random", "--backend", "reference", "--quiet")
    for name, more in (("alone", ()), ("shared", options)):
        done = udlbridge(*kernel, "--out", tmp_path / f"{name}.zarr", *more)
        assert done.returncode == 0, done.stderr
    alone, shared = (ub.KernelStore(tmp_path / f"{name}.zarr") for name in ("alone", "shared"))
    assert shared.grid.count == 15
    assert_same_bytes(shared, alone)
