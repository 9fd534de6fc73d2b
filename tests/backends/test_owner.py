"""Julia's own thread: whoever calls, it is called there, and its errors and interruptions are dealt with there."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from udlbridge.backends.julia import hosts, owner, runtime, service
from udlbridge.errors import BackendError, JuliaUnavailable

KERNELS = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import udlbridge as ub
from udlbridge.backends.julia import owner, runtime

model = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 2)])
x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
expected = ub.ntk(model, x, backend="reference")


def hundred(_: int) -> float:
    found = [ub.ntk(model, x, backend="julia") for _ in range(100)]
    owner.run(lambda: runtime.julia_base().GC.gc())
    return max(abs(k - expected).max() for k in found)


with ThreadPoolExecutor(4) as pool:  # the first call of all is made by one of these threads
    worst = max(pool.map(hundred, range(4)))
asyncio.run(asyncio.to_thread(hundred, 0))
import juliacall  # as a user does, in a thread that is not Julia's own

for _ in range(3):
    juliacall.Main.seval("sum(string(i)[1] == '1' for i in 1:10^5); GC.gc()")
print(worst < 1e-5, hundred(0) < 1e-5)
"""
FIRST = """
import juliacall
import threading
import numpy as np
import udlbridge as ub

model, x = ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS


def refused() -> None:
    try:
        ub.ntk(model, x, backend="julia")
    except ub.errors.BackendError as error:
        print(error)


thread = threading.Thread(target=refused)
thread.start()
thread.join()
print(abs(ub.ntk(model, x, backend="julia") - ub.ntk(model, x, backend="reference")).max() < 1e-5)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    # With too long a limit for any machine: what hangs here hangs for ever.
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.julia
def test_kernels_and_collections_from_four_threads() -> None:
    done = python(KERNELS)
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr


@pytest.mark.slow
@pytest.mark.julia
def test_a_user_who_imported_juliacall_before(tmp_path: object) -> None:
    installation = runtime.location() or runtime.juliapkg_location()
    names = {"PYTHON_JULIACALL_EXE": str(installation.exe), "PYTHON_JULIACALL_PROJECT": str(installation.project)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST], env={**os.environ, **names}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "juliacall was imported before this library started Julia" in done.stdout
    assert done.stdout.endswith("True\n")


@pytest.fixture
def thread() -> owner.JuliaThread:
    """A thread as Julia's, without Julia: it idles until the process ends."""
    return owner.JuliaThread()


def test_calls_run_in_one_thread_and_come_back(thread: owner.JuliaThread) -> None:
    found: list[int] = []
    callers = [
        threading.Thread(target=lambda: found.append(thread.run(threading.get_ident)), daemon=True) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(found) == 8
    assert set(found) == {thread._thread.ident}
    assert thread._thread.daemon  # it ends with the process


@pytest.mark.julia
def test_a_thread_that_did_not_start_julia_does_not_speak_for_it(thread: owner.JuliaThread) -> None:
    owner.run(runtime.start)
    # It idles between these, and Julia, which does not know this thread, crashed when it said so.
    assert [thread.run(lambda n=n: n) for n in range(3)] == [0, 1, 2]
    owner.run(lambda: runtime.julia_base().GC.gc())


def test_a_call_from_the_thread_itself_is_made_at_once(thread: owner.JuliaThread) -> None:
    assert thread.run(lambda: thread.run(lambda: 3)) == 3


def test_errors_come_back_and_hold_nothing(thread: owner.JuliaThread) -> None:
    class Value:
        pass

    seen: list[weakref.ref[Value]] = []

    def fail() -> None:
        value = Value()
        seen.append(weakref.ref(value))
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong") as raised:
        thread.run(fail)
    thread.run(lambda: None)
    gc.disable()
    try:
        assert raised.value.__traceback__ is not None
        assert seen[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
def test_ctrl_c_ends_the_wait_and_the_work_at_its_next_checkpoint(thread: owner.JuliaThread) -> None:
    steps: list[float] = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while len(steps) < 1000:
            steps.append(time.monotonic())
            time.sleep(0.02)
            thread.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        thread.run(work)
    count = len(steps)
    assert count < 100
    assert thread.run(lambda: len(steps)) == count  # it had ended, and the thread goes on


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
def test_ctrl_c_behind_another_caller_does_not_wait_for_it(thread: owner.JuliaThread) -> None:
    begun, end = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        end.wait(30)

    other = threading.Thread(target=thread.run, args=(occupy,), daemon=True)
    other.start()
    assert begun.wait(30)
    ran: list[int] = []
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        thread.run(lambda: ran.append(1))
    end.set()
    other.join(30)
    thread.run(lambda: None)
    assert ran == []


def test_a_guest_calls_from_julias_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, home = owner.Guest(), threading.get_ident()
    monkeypatch.setattr(runtime, "in_first_thread", lambda: threading.get_ident() == home)
    refused: list[BaseException] = []

    def elsewhere() -> None:
        try:
            guest.run(lambda: 1)
        except BackendError as error:
            refused.append(error)

    caller = threading.Thread(target=elsewhere)
    caller.start()
    caller.join(30)
    assert guest.run(lambda: 1) == 1
    guest.checkpoint()
    assert "imported before" in str(refused[0])


WITHOUT_FORK = """
import os, random, torch  # what needs it where there is a fork
del os.register_at_fork
from udlbridge.backends.julia import owner
print(owner._held.owner)
"""


@pytest.mark.slow
def test_a_system_without_fork() -> None:
    """As Windows is: the modules that watch for forks can be imported, and do without."""
    done = python(WITHOUT_FORK)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_has_an_owner_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    monkeypatch.setattr(owner._held, "owner", None)
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)
    assert owner.run(lambda: 1) == 1
    child = os.fork()
    if child == 0:
        os._exit(owner.run(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_child_that_is_forked_while_julia_starts_neither_waits_nor_takes_it_for_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "_STATE", runtime._State(starting=True))
    with hosts._process.lock:  # as the thread that starts it holds it
        child = os.fork()
        if child == 0:
            free = hosts._process.lock.acquire(blocking=False)
            try:
                owner.run(lambda: 0)
            except JuliaUnavailable:
                os._exit(7 if free else 1)
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_what_an_interrupted_caller_made_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    engine = SimpleNamespace(prepare=lambda job, x: "factors")
    monkeypatch.setattr(service, "JuliaBackend", lambda checkpoint, held: engine)
    kept, left = service.Service(lambda: None), service.Service(interrupted)
    assert kept._held == {kept.call("prepare", None, None): "factors"}
    with pytest.raises(KeyboardInterrupt):
        left.call("prepare", None, None)
    assert left._held == {}
