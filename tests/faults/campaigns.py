"""Kills, corruption and fuzzing, drawn from a seed. A loss is a wrong number, an error that is not ours, or a hang."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import udlbridge as ub
from faults.mutations import mutated
from faults.readers import MODEL, READERS, X, store
from udlbridge.errors import UDLBridgeError
from udlbridge.kernels import planning

KILLS = 4
"""Of one store; then it is finished."""

SLOW = 20.0
"""Seconds of the processor after which reading a small file counts as a hang."""


@dataclass
class Outcome:
    """What came of the cases of one kind: `refused` with an error of ours, `whole` where the content was as before."""

    cases: int = 0
    refused: int = 0
    whole: int = 0
    losses: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _small_tiles():  # type: ignore[no-untyped-def]
    before, planning.LARGEST_TILE = planning.LARGEST_TILE, 4
    try:
        yield
    finally:
        planning.LARGEST_TILE = before


def fuzz(reader: str, cases: int, seed: int) -> Outcome:
    """Damage the file of one reader again and again: it is read, or refused with an error of ours."""
    generator = np.random.default_rng([seed, *reader.encode()])
    found = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        path = READERS[reader].make(Path(folder))
        content = path.read_bytes()
        for case in range(cases):
            damaged = mutated(content, generator)
            path.write_bytes(damaged)
            start = time.process_time()
            try:
                READERS[reader].read(path)
                found.whole += 1
            except UDLBridgeError:
                found.refused += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                found.losses.append(f"{reader} {case}: {type(error).__name__}: {str(error)[:200]}")
            if time.process_time() - start > SLOW:
                found.losses.append(f"{reader} {case}: it took {time.process_time() - start:.0f} s")
            found.cases += 1
    return found


def corrupt(cases: int, seed: int) -> Outcome:
    """Damage a store again and again: it says so, or reads as before; and a repair brings back every tile."""
    generator = np.random.default_rng(seed)
    found = Outcome()
    with tempfile.TemporaryDirectory() as folder, _small_tiles():
        whole = store(Path(folder))
        kernel = np.asarray(ub.KernelStore(whole))
        files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file() and file.stat().st_size)
        tiles = [file for file in files if file.parts[0] == "kernel" and file.name != "zarr.json"]
        for case in range(cases):
            path = Path(folder) / "copy.zarr"
            shutil.copytree(whole, path)
            if case % 3 == 0:
                one, two = (path / tiles[i] for i in generator.choice(len(tiles), 2, replace=False))
                content = one.read_bytes()
                if generator.integers(2):
                    one.write_bytes(two.read_bytes())
                two.write_bytes(content)
                harmed = two.relative_to(path)
            else:
                harmed = files[generator.integers(len(files))]
                if generator.integers(8):
                    (path / harmed).write_bytes(mutated((path / harmed).read_bytes(), generator))
                else:
                    (path / harmed).unlink()
            try:
                _judge(path, kernel, found)
            except Exception as error:
                found.losses.append(f"{harmed} {case}: {type(error).__name__}: {error} {traceback.format_exc()[-300:]}")
            found.cases += 1
            shutil.rmtree(path)
    return found


def _judge(path: Path, kernel: np.ndarray, found: Outcome) -> None:
    """Raise `AssertionError` for a store that says that it is whole and is not."""
    try:
        damaged = ub.KernelStore(path)
        verified = damaged.verify()
    except UDLBridgeError:
        found.refused += 1
        return
    if verified.ok:
        np.testing.assert_array_equal(np.asarray(damaged), kernel)
        np.testing.assert_array_equal(damaged.samples(), X)
        assert damaged.model() == MODEL
        found.whole += 1
        return
    found.refused += 1
    with contextlib.suppress(UDLBridgeError):
        np.testing.assert_array_equal(np.asarray(damaged), kernel)  # network or samples alone are damaged
    if not verified.inputs:
        damaged.repair(progress=False)
        assert damaged.verify().ok, "not whole after its repair"
        np.testing.assert_array_equal(np.asarray(damaged), kernel)


def kill(cases: int, seed: int) -> Outcome:
    """Kill a process that computes a store and appends to it, at a random moment; the next one goes on.

    Nothing that was finished is damaged, and in the end the kernel is that of an undisturbed computation. Each process
    is forked, so that it begins with everything imported.
    """
    generator = np.random.default_rng(seed)
    found = Outcome()
    with tempfile.TemporaryDirectory() as folder, _small_tiles():
        took = timed(lambda: _compute_and_append(Path(folder) / "first.zarr"))
        for case in range(cases):
            path = Path(folder) / f"{case}.zarr"
            for _ in range(KILLS):
                process = forked(lambda path=path: _compute_and_append(path))
                time.sleep(float(generator.uniform(0, took)))
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                found.cases += 1
                if not os.WIFSIGNALED(status):
                    break
                if code_of(forked(lambda path=path: _check(path, finished=False))) != 0:
                    found.losses.append(f"{path.name}: damaged after a kill")
                found.refused += 1
            if code_of(forked(lambda path=path: (_compute_and_append(path), _check(path, finished=True)))) != 0:
                found.losses.append(f"{path.name}: not whole in the end")
            found.whole += 1
            shutil.rmtree(path, ignore_errors=True)
    return found


def _compute_and_append(path: Path) -> None:
    half = len(X) // 2
    grown = path.is_dir() and ub.KernelStore(path).shape[0] > half
    store = ub.compute_kernel(
        MODEL, X if grown else X[:half], path, outputs=0, backend="reference", resume=True, progress=False
    )
    if not grown:
        store.append(X[half:], progress=False)


def _check(path: Path, *, finished: bool) -> None:
    if not path.is_dir() and not finished:
        return
    found = ub.KernelStore(path)
    verified = found.verify()
    assert not verified.damaged, verified
    assert not verified.inputs, verified
    if finished:
        assert verified.ok, verified
        np.testing.assert_array_equal(np.asarray(found), ub.ntk(MODEL, X, outputs=0, backend="reference"))


def forked(work: Callable[[], object]) -> int:
    """Do it in a fork of this process, whose number is given."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def code_of(process: int) -> int:
    """What a process ends with."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes, in a fork."""
    start = time.monotonic()
    assert code_of(forked(work)) == 0
    return time.monotonic() - start
