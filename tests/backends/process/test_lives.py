"""How processes come, die, wait for the next client, and go; what the user's own process has is never lost.

Nothing here waits for a time: it waits for what has to happen, and only a failure takes long.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from processes import ONE_CLIENT, eventually, gone, run
from udlbridge.backends import companions
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.julia.process import folders, starting
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import BackendError

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals and no fork")
JOB = KernelJob(None, checked_reduction(0, 2))


@POSIX
@pytest.mark.parametrize(
    ("call", "how"),
    [
        (("die", signal.SIGKILL), "killed by SIGKILL, as the system does where memory runs out"),
        (("die", signal.SIGSEGV), "killed by SIGSEGV"),
        (("end",), "with code 3"),
    ],
)
def test_a_process_that_dies_in_a_call(host: ProcessHost, call: tuple[Any, ...], how: str, home: Path) -> None:
    engine = HostedJulia(host)
    factors = engine.prepare(JOB, np.eye(3))
    before = host.call("pid")
    with pytest.raises(BackendError, match=rf"ended while it was asked for '\w+', {how}; it said:\n  the last words"):
        host.call(*call)
    assert gone(before)
    assert not host.running
    assert companions.companions() == ()
    out = np.full((3, 3), 7.0)
    with pytest.raises(BackendError, match=r"that held this has ended\. .*make it anew"):
        engine.fill(JOB, factors, slice(0, 3), factors, slice(0, 3), out)
    engine.release(factors)  # as whoever computes tiles does in the end, after whatever
    with engine.blas_threads(None):
        assert not host.running  # nothing of this starts another
    assert (out == 7.0).all()
    assert host.call("pid") != before
    assert companions.companions() == (host.call("pid"),)
    with pytest.raises(BackendError, match="that held this has ended"):
        engine.fill(JOB, factors, slice(0, 3), factors, slice(0, 3), out)


def test_a_process_that_fails_itself_says_why_and_leaves_nothing(host: ProcessHost, home: Path) -> None:
    before = host.call("pid")
    network = JuliaNetwork.at(host, host.call("prepare", None, np.eye(2)), {}, None)
    with pytest.raises(BackendError, match=r"with code 1; it said:\n(.*\n)*.*cannot be read"):
        host.call("echo", network)
    assert gone(before)
    assert folders.members(home) == []


def test_threads_that_were_set_are_not_put_back_in_a_new_process(host: ProcessHost) -> None:
    engine = HostedJulia(host)
    with engine.blas_threads(2), pytest.raises(BackendError):
        host.call("end")
    assert not host.running


def test_a_process_that_dies_between_calls_is_replaced(host: ProcessHost) -> None:
    before = host.call("pid")
    psutil.Process(before).kill()
    assert host._session is not None
    eventually(host._session.ended)
    assert host.call("pid") != before


@contextmanager
def interrupted_after(begun: Path) -> Iterator[None]:
    """Ctrl-C as soon as that file is there; what is called within has to end in KeyboardInterrupt."""

    def interrupt() -> None:
        eventually(begun.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()


@POSIX
def test_ctrl_c_stops_the_work_and_keeps_the_process(host: ProcessHost, tmp_path: Path) -> None:
    before, begun = host.call("pid"), tmp_path / "begun"
    with interrupted_after(begun):
        host.call("work", str(begun))  # it would never end
    assert host.call("pid") == before


@POSIX
def test_ctrl_c_leaves_at_once_what_looks_for_nothing(host: ProcessHost, tmp_path: Path) -> None:
    """The next call waits for it, and nothing is written any more into what was the caller's."""
    before, begun, end = host.call("pid"), tmp_path / "begun", tmp_path / "end"
    out = np.zeros((200, 200))
    with interrupted_after(begun):
        host.call_into(out, "wait", str(begun), str(end))
    end.touch()
    assert host.call("pid") == before
    assert not out.any()


@POSIX
def test_what_was_made_for_who_has_left_is_not_kept(host: ProcessHost, tmp_path: Path) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    assert host.call("count") == 0

    def interrupt() -> None:
        eventually(begun.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        host.call("include", str(begun), str(end))
    thread.join()
    end.touch()
    assert host.call("count") == 0


@POSIX
def test_a_terminal_interrupts_the_caller_alone(host: ProcessHost) -> None:
    pid = host.call("pid")
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    assert host.call("pid") == pid


@POSIX
def test_a_forked_child_has_a_process_of_its_own(host: ProcessHost) -> None:
    engine = HostedJulia(host)
    factors, before = engine.prepare(JOB, np.eye(3)), host.call("pid")
    child = os.fork()
    if child == 0:
        try:
            assert companions.companions() == ()
            with pytest.raises(BackendError, match="that held this has ended"):
                engine.fill(JOB, factors, slice(0, 3), factors, slice(0, 3), np.empty((3, 3)))
            assert host.call("pid") != before
            host.close()
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    out = np.empty((3, 3))
    engine.fill(JOB, factors, slice(0, 3), factors, slice(0, 3), out)
    np.testing.assert_array_equal(out, np.eye(3))
    assert host.call("pid") == before


@pytest.mark.slow
@POSIX
def test_a_child_that_lives_on_does_not_keep_the_process_of_its_parent(home: Path, tmp_path: Path) -> None:
    end = tmp_path / "end"
    code = (
        "import os, time, sys\n" + ONE_CLIENT + f"if os.fork() == 0:\n"
        "    os.close(1), os.close(2)\n"
        f"    while os.path.isdir({str(tmp_path)!r}) and not os.path.exists({str(end)!r}): time.sleep(0.01)\n"
        "os._exit(0)"
    )
    pid = int(run(code)[0])
    eventually(lambda: gone(pid))
    assert gone(pid)
    assert folders.members(home) == []
    end.touch()


@pytest.mark.slow
def test_two_clients_at_a_time_have_one_each(host: ProcessHost) -> None:
    assert int(run(ONE_CLIENT)[0]) != host.call("pid")


@pytest.mark.slow
def test_a_process_outlives_its_client_for_the_next_one(home: Path) -> None:
    first, held = run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")
    assert held == "0"
    assert not gone(int(first))
    (folder,) = folders.members(home)
    eventually(lambda: folders.until(folder))  # it has seen that its client went
    second, held = run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")
    assert (second, held) == (first, "0")  # and what that one left is gone
    last, held = run(ONE_CLIENT)  # this one does not let it linger
    assert (last, held) == (first, "0")
    eventually(lambda: gone(int(first)))


@pytest.mark.slow
def test_a_process_ends_by_itself_when_nobody_comes(home: Path) -> None:
    pid = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="0.2")[0])
    eventually(lambda: gone(pid))
    eventually(lambda: not folders.members(home))
    assert gone(pid)
    assert folders.members(home) == []


@pytest.mark.slow
@POSIX
def test_a_client_that_is_killed_leaves_nothing(home: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = ONE_CLIENT + f"host.call('wait', {str(begun)!r}, '/nowhere')"  # a call that never ends
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    pid = int(killed.stdout.readline().split()[0])
    eventually(begun.exists)
    killed.kill()
    killed.communicate()
    eventually(lambda: gone(pid))
    assert folders.members(home) == []


@pytest.mark.slow
@POSIX
def test_what_was_killed_is_cleared_away_at_the_next_start(home: Path, host: ProcessHost) -> None:
    pid = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    (left,) = folders.members(home)
    empty = folders.made(home)  # of who was killed before it could start anything
    host.call("pid")
    assert not left.exists()
    assert not empty.exists()
    assert len(folders.members(home)) == 1


@pytest.fixture
def keeping_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a file that this process has open cannot be removed, nor the folder that it is in."""

    def clear(folder: Path) -> None:
        held = {Path(file.path) for file in psutil.Process().open_files()}
        for path in set(folder.glob("*")) - held:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    monkeypatch.setattr(folders, "clear", clear)


@pytest.mark.slow
@POSIX
def test_nothing_is_open_any_more_in_what_is_cleared_away(
    keeping_open_files: None, home: Path, host: ProcessHost
) -> None:
    pid = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    assert len(folders.members(home)) == 1
    eventually(lambda: folders.living() == folders.members(home) == [])  # its last thread may hold the files a moment
    folders.made(home)
    host.call("pid")
    assert len(folders.members(home)) == 1
    with pytest.raises(BackendError, match="the last words"):
        host.call("end")
    assert folders.members(home) == []


@pytest.mark.slow
@POSIX
def test_a_process_that_hangs_for_a_dead_client_is_ended(
    home: Path, host: ProcessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
    (folder,) = folders.members(home)
    eventually(lambda: folders.until(folder))
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(starting, "GREETING_SECONDS", 0.1)
    monkeypatch.setattr(folders, "END_SECONDS", 0.1)
    assert host.call("pid") != pid
    assert gone(pid)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["JULIA_SOMETHING", "OPENBLAS_NUM_THREADS"])
def test_a_process_of_another_kind_is_not_used(home: Path, setting: str) -> None:
    first = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
    second = int(run(ONE_CLIENT, **{setting: "3"})[0])
    assert second != first
    assert gone(first)  # it was free
    eventually(lambda: gone(second))


def test_one_whose_julia_package_has_changed_is_of_another_kind(
    host: ProcessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    from udlbridge.backends.julia.process import identity

    monkeypatch.setattr(identity, "_hash", lambda package: "changed")
    with pytest.raises(BackendError, match="the process of Julia has another Julia package than this one"):
        host.call("pid")


@pytest.mark.slow
@POSIX
def test_nobody_without_the_key_is_listened_to(home: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    pid = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
    (folder,) = folders.members(home)
    record = folders.record(folder)
    assert record is not None
    eventually(lambda: folders.until(folder))
    with pytest.raises(AuthenticationError):
        Client(record.address, authkey=b"guessed")
    with Client(record.address) as connection:
        connection.recv_bytes()
        connection.send_bytes(pickle.dumps(Harm()))
        with pytest.raises((EOFError, OSError)):
            connection.recv_bytes(), connection.recv_bytes()
    assert int(run(ONE_CLIENT)[0]) == pid  # it goes on
    eventually(lambda: gone(pid))
    assert not (tmp_path / "harm").exists()


@POSIX
def test_only_this_user_can_open_the_folder(home: Path, host: ProcessHost) -> None:
    host.call("pid")
    assert home.stat().st_mode & 0o777 == 0o700
    (folder,) = folders.members(home)
    assert folder.stat().st_mode & 0o777 == 0o700


@POSIX
@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_can_open_is_refused(home: Path, kind: str, tmp_path: Path) -> None:
    if kind == "open":
        home.mkdir()
        home.chmod(0o777)
    elif kind == "link":
        home.symlink_to(tmp_path)
    else:
        home.touch(0o600)
    with pytest.raises(BackendError, match=r"cannot have its socket in .*UDLBRIDGE_JULIA=inprocess"):
        ProcessHost("standin:Service").call("pid")
    home.rmdir() if kind == "open" else home.unlink()


@POSIX
def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"udlbridge-{os.getuid()}"
    monkeypatch.setattr("tempfile.tempdir", "/var/tmp")
    long = tmp_path / ("x" * 100)  # for a socket
    long.mkdir()
    for runtime, expected in [
        (Path("/var"), Path("/var/udlbridge")),
        (tmp_path / "nowhere", Path("/var/tmp") / name),
        (long, Path("/var/tmp") / name),
    ]:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        assert folders.place() == expected
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert folders.place() == Path("/tmp") / name


def test_looking_makes_no_folder(home: Path) -> None:
    assert folders.living() == []
    assert folders.stop(busy=True) == ([], [])
    assert not home.exists()


def test_a_process_that_cannot_start_says_why(
    host: ProcessHost, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "psutil.py").write_text("raise RuntimeError('a broken package')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BackendError, match=r"for Julia ended with code 1; it said:\n(.*\n)*.*a broken package"):
        host.call("pid")
    assert folders.members(home) == []


def test_a_service_that_cannot_start_is_asked_again(host: ProcessHost, tmp_path: Path) -> None:
    broken = ProcessHost("nowhere:Service")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nowhere"):
            broken.call("pid")
    broken.close()


def test_who_was_started_by_nobody_ends(home: Path) -> None:
    """Whoever started it was killed before it came."""
    with folders.locked() as path:
        folder = folders.made(path)
    code = (
        f"from udlbridge.backends.julia.process import worker\nworker.FIRST_SECONDS = 0.1\n"
        f"worker.main({str(folder)!r}, 'standin:Service')"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0
    assert not folder.exists()


def test_a_record_tells_a_process_from_a_later_one_of_its_number(home: Path) -> None:
    own = psutil.Process()
    record = folders.Record(own.pid, own.create_time(), "", "", {})
    assert record.process() == own
    assert folders.Record(own.pid, own.create_time() + 1, "", "", {}).process() is None
    folder = folders.made(folders.home())
    folders.Record(own.pid, own.create_time(), "", "", {}).write(folder)
    folders.end(folder)  # nobody holds its lock: whoever has the number now is left alone
    assert not folder.exists()
