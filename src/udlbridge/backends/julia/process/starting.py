"""Finding a process to compute in, or starting one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path

from filelock import FileLock

from udlbridge import config
from udlbridge.backends.julia import runtime
from udlbridge.backends.julia.probe import START_SECONDS, last_lines
from udlbridge.backends.julia.process import folders
from udlbridge.backends.julia.process.identity import differences, identity
from udlbridge.errors import BackendError

GREETING_SECONDS = 5.0
"""How long a process that is free may take to answer; one that computes for a dead client does not."""

MAIN = """
import sys
if {root!r} not in sys.path:  # where this package is imported from
    sys.path.insert(0, {root!r})
from udlbridge.backends.julia.process.worker import main
main({folder!r}, {service!r})
"""

INPROCESS = "UDLBRIDGE_JULIA=inprocess computes in this process"

APART = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""On Windows, what a session of its own is elsewhere: Ctrl-C is for others, and a terminal that closes ends nothing."""


@dataclass
class Found:
    """A process that this one has for itself, as long as it holds the lock.

    `first`: the first number of what it holds for its client. `linger`: whether it waits for another one afterwards.
    `child`: where this process started it.
    """

    folder: Path
    lock: FileLock
    connection: Connection
    pid: int
    first: int
    linger: bool
    child: subprocess.Popen[bytes] | None = None


def found_or_started(service: str) -> Found:
    """A process that waits for a client, or a new one. Processes that are dead, or of another kind, are cleared away.

    Raises:
        BackendError: it does not start, with its last lines.
        ConfigError: settings that cannot be used.
    """
    own = identity(service)
    with folders.locked() as path:
        for folder in folders.members(path):
            lock = folders.held(folder, "client")
            if lock is None:
                continue  # it has a client, who clears up, or has gone
            try:
                found = _taken(folder, lock, own)
            except BaseException:
                lock.release()
                raise
            if found is not None:
                return found
            lock.release()
            folders.clear(folder)  # all of it: Windows keeps a file that is open, as that of the lock was
        return _started(path, service, own)


def _taken(folder: Path, lock: FileLock, own: dict[str, str]) -> Found | None:
    """The process of a folder, if it lives and is of this kind; otherwise it ends."""
    record = folders.record(folder)
    if not folders.alive(folder):
        return None
    if record is None or differences(record.identity, own):
        folders.end(folder)
    else:
        try:
            connection, first = _greeted(record, own)
            return Found(folder, lock, connection, record.pid, first, config.julia_linger() > 0)
        except (OSError, EOFError, AuthenticationError, BackendError):
            folders.end(folder)
    return None


def _greeted(record: folders.Record, own: dict[str, str]) -> tuple[Connection, int]:
    """A connection on which both have shown that they know the key, and said what they are.

    Raises:
        OSError, EOFError, AuthenticationError: it does not answer, or not as it should.
        BackendError: it is of another kind.
    """
    connection = Client(record.address)
    try:
        if not connection.poll(GREETING_SECONDS):
            raise TimeoutError
        answer_challenge(connection, bytes.fromhex(record.key))
        deliver_challenge(connection, bytes.fromhex(record.key))
        greeting = {"identity": own, "pid": os.getpid(), "linger": config.julia_linger()}
        connection.send_bytes(json.dumps(greeting).encode())
        answer = json.loads(connection.recv_bytes())
        if answer["differences"]:
            raise BackendError(
                f"the process of Julia has another {', '.join(answer['differences'])} than this one",
                remedy=f"start this program anew: the package was changed meanwhile; {INPROCESS}",
            )
        return connection, int(answer["first"])
    except BaseException:
        connection.close()
        raise


def _started(path: Path, service: str, own: dict[str, str]) -> Found:
    folder = folders.made(path)
    lock = folders.held(folder, "client")
    assert lock is not None
    try:
        child = _spawned(folder, service)
        record = _recorded(folder, child)
        connection, first = _greeted(record, own)
        return Found(folder, lock, connection, record.pid, first, config.julia_linger() > 0, child)
    except BaseException:
        lock.release()
        folders.end(folder)
        raise


def _spawned(folder: Path, service: str) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise BackendError("this Python does not know its own executable, and can start no other", remedy=INPROCESS)
    root = str(Path(__file__).resolve().parents[4])
    code = MAIN.format(root=root, folder=str(folder), service=service)
    options = [f"-X{name}={value}" for name, value in sys._xoptions.items() if name.startswith("juliacall-")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    named = runtime.location()
    if named is not None:
        exe, project = str(named.exe.absolute()), str(named.project.absolute())
        environment.update(UDLBRIDGE_JULIA_EXE=exe, UDLBRIDGE_JULIA_PROJECT=project)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", *options, "-c", code],
            env={**environment, "UDLBRIDGE_JULIA": "inprocess"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C of the terminal is for whoever waits
            creationflags=APART,
        )


def _recorded(folder: Path, child: subprocess.Popen[bytes]) -> folders.Record:
    """What a new process says of itself, as soon as it has a socket."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        record = folders.record(folder)
        if record is not None:
            return record
        ended = child.poll()
        if ended is not None or time.monotonic() > deadline:
            with contextlib.suppress(OSError):
                child.kill()
            child.wait()
            how = f"did not answer within {START_SECONDS:g} seconds" if ended is None else f"ended with code {ended}"
            said = last_lines((folder / "log").read_bytes())
            raise BackendError(f"the process for Julia {how}{said}", remedy=INPROCESS)
        time.sleep(0.01)
