"""Killing processes that compute a store at a URL, against a real S3 server in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import udlbridge as ub
from faults.campaigns import KILLS, Outcome, code_of, forked
from s3 import BUCKET, CREDENTIALS, objects_of
from small_stores import MODEL, X, files_of
from udlbridge.kernels import planning
from udlbridge.store import computing, objects
from udlbridge.store.names import METADATA, RECORDS

HALF = len(X) // 2

PUTS, LATE = 40, 0.02
"""Of about a hundred objects that a whole computation puts, the number of that where it is killed, and so many seconds
later at most: before, while and after it arrives. By the clock alone it would depend on what else the machine does."""


def kill_at_urls(cases: int, seed: int) -> Outcome:
    """Kill a process that computes a store at a URL and appends to it, at a random moment; the next goes on at once.

    What it left is no store, or one whose tiles are whole; in the end every object is the file of a folder's store.
    Each process is forked, so that it begins with everything imported: this one must not ask for objects itself.
    """
    generator = np.random.default_rng([seed, *b"urls"])
    found = Outcome()
    small = mock.patch.object(planning, "LARGEST_TILE", 8)
    with small, tempfile.TemporaryDirectory() as folder, _server() as address:
        environment = mock.patch.dict(os.environ, {**CREDENTIALS, "AWS_ENDPOINT_URL": address})
        with environment:
            alone = Path(folder) / "alone.zarr"
            assert code_of(forked(lambda: _compute(alone))) == 0
            for case in range(cases):
                url = f"s3://{BUCKET}/{case}.zarr"
                for _ in range(KILLS):
                    at, late = int(generator.integers(PUTS)), float(generator.uniform(0, LATE))
                    found.cases += 1
                    if code_of(forked(lambda url=url, at=at, late=late: _compute(url, at, late))) != -signal.SIGKILL:
                        break  # it was finished before
                    if code_of(forked(lambda url=url: _check_unfinished(url))) != 0:
                        found.losses.append(f"{url}: damaged after a kill")
                    found.refused += 1
                if code_of(forked(lambda url=url: (_compute(url), _check_finished(url, alone)))) != 0:
                    found.losses.append(f"{url}: not whole in the end")
                found.whole += 1
    return found


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The address of a server in another process: threads and connections of this one would not outlast a fork."""
    code = (
        "import sys\nfrom s3 import s3_server\nwith s3_server() as a:\n    print(a, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _compute(where: str | Path, at: int | None = None, late: float = 0.0) -> None:
    """Half of the samples, and the others when these are done; what was begun is gone on with.

    If `at` is a number, this process is killed so many seconds after it begins to put that object.
    """
    put, left = objects.put, -1 if at is None else at

    def putting(*arguments: Any) -> Any:
        nonlocal left
        if left == 0:
            threading.Timer(late, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        left -= 1
        return put(*arguments)

    objects.put = putting
    options = {"outputs": 0, "backend": "reference", "resume": True, "progress": False}
    try:
        grown = ub.KernelStore(where).shape[0] > HALF
    except ub.errors.StoreError:  # not there yet
        grown = False
    store = computing.compute_kernel(MODEL, X if grown else X[:HALF], where, **options)  # type: ignore[arg-type]
    if not grown:
        store.append(X[HALF:], progress=False)


def _check_unfinished(url: str) -> None:
    if METADATA not in objects_of(url):
        return
    found = ub.KernelStore(url).verify()
    assert not found.damaged, found
    assert not found.inputs, found


def _check_finished(url: str, alone: Path) -> None:
    there, here = objects_of(url), files_of(alone)
    assert there.keys() == here.keys(), there.keys() ^ here.keys()
    differing = {name for name in here if there[name] != here[name]}
    assert differing <= {METADATA, RECORDS}, differing  # a random name is in both
    store = ub.KernelStore(url)
    assert store.verify().ok
    assert store.complete
    np.testing.assert_array_equal(store[:], ub.KernelStore(alone)[:])
