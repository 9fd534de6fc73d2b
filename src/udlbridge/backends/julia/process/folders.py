"""Where the processes with Julia that a user has are known: a folder for each, with locks that tell who is alive.

The system frees a lock when its holder dies, so nothing here is guessed: who holds `alive` lives, and who holds
`client` has the process for itself. Folders are made and cleared away by those who hold the lock of all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from udlbridge.errors import BackendError

LONGEST = 100
"""Bytes of the longest path of a socket, on the systems that allow the least."""

END_SECONDS = 10.0
"""How long a process may take to end before it is killed."""


@dataclass(frozen=True)
class Record:
    """What a process says of itself in its folder, which only its user can read.

    `created`: when, as the system says it: with the number it tells a process from a later one of the same number.
    `address` and `key`: of its socket. `identity`: see there.
    """

    pid: int
    created: float
    address: str
    key: str
    identity: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write it; it appears whole."""
        partial = folder / "record.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(partial, folder / "record.json")

    def process(self) -> psutil.Process | None:
        """The process, if it is there."""
        try:
            found = psutil.Process(self.pid)
            return found if found.create_time() == self.created else None
        except psutil.Error:
            return None


def home() -> Path:
    """The folder of all of them, made if need be.

    Raises:
        BackendError: another user owns it, or can write to it.
    """
    path = place()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise _unsafe(path, str(error)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _unsafe(path, "it is no folder")
    if os.name != "nt" and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077):
        raise _unsafe(path, "others can write to it, or own it")
    return path


def place() -> Path:
    """Where that folder is or would be: where the system keeps a user's sockets, or the temporary folder."""
    if os.name == "nt":
        return Path(tempfile.gettempdir()) / "udlbridge"  # a user's own, there
    runtime, name = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"), f"udlbridge-{os.getuid()}"
    candidates = [Path(tempfile.gettempdir()) / name, Path("/tmp") / name]
    if runtime.is_dir():
        candidates.insert(0, runtime / "udlbridge")
    fitting = [path for path in candidates if len(os.fsencode(path / "w-12345678" / "socket")) <= LONGEST]
    return (fitting or candidates)[0]


def _unsafe(path: Path, reason: str) -> BackendError:
    return BackendError(
        f"Julia's process cannot have its socket in {path}: {reason}",
        allowed="a folder that you alone can open",
        remedy="mend or remove it, name another runtime folder in XDG_RUNTIME_DIR, or set UDLBRIDGE_JULIA=inprocess",
    )


@contextmanager
def locked() -> Iterator[Path]:
    """The folder of all of them, while nobody else makes or clears away any."""
    path = home()
    with FileLock(path / "lock"):
        yield path


def made(path: Path) -> Path:
    """A new folder for a process."""
    folder = path / f"w-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def members(path: Path) -> list[Path]:
    """The folders of all processes, dead ones too."""
    return sorted(path.glob("w-*"))


def held(folder: Path, name: str) -> FileLock | None:
    """One of the two locks of a process, "alive" or "client"; None if another has it, or the folder has gone."""
    lock = FileLock(folder / name, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return None
    return lock


def record(folder: Path) -> Record | None:
    """What the process of a folder says of itself; None if it has not, or no more."""
    try:
        content: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return Record(**content)
    except (OSError, ValueError, TypeError):
        return None


def alive(folder: Path) -> bool:
    """Whether the process of a folder lives."""
    if not folder.is_dir():
        return False
    lock = held(folder, "alive")
    if lock is not None:
        lock.release()
    return lock is None


def clear(folder: Path) -> None:
    """Remove the folder of a process that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def end(folder: Path) -> None:
    """End the process of a folder, whatever it does, and remove the folder."""
    found = record(folder)
    process = None if found is None else found.process()
    if process is not None and alive(folder):
        with contextlib.suppress(psutil.Error):
            process.terminate()
            _wait(process)
    clear(folder)


def _wait(process: psutil.Process) -> None:
    try:
        process.wait(END_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(END_SECONDS)


def until(folder: Path) -> float | None:
    """When a process without a client ends, in seconds since the epoch; None while it has one."""
    try:
        return float((folder / "until").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_until(folder: Path, when: float | None) -> None:
    """What `until` reads."""
    with contextlib.suppress(OSError):
        if when is None:
            (folder / "until").unlink(missing_ok=True)
        else:
            (folder / "until").write_text(f"{when:.0f}", encoding="utf-8")


@dataclass(frozen=True)
class Living:
    """A process that lives, as people are told of it.

    `until`: when it ends if nobody comes, in seconds since the epoch; None where it has a client. `memory`: bytes that
    are resident. `udlbridge`, `julia`: the version and the executable that it runs.
    """

    folder: Path
    pid: int
    busy: bool
    until: float | None
    memory: int
    udlbridge: str
    julia: str


def living() -> list[Living]:
    """The processes of this user that live; the folders of dead ones are removed."""
    found: list[Living] = []
    if not os.path.lexists(place()):
        return found
    with locked() as path:
        for folder in members(path):
            lock = held(folder, "client")
            said, lives = record(folder), alive(folder)
            if lock is not None:
                lock.release()  # before all is removed: Windows keeps a file that is open
                if not lives:
                    clear(folder)
            process = said.process() if said is not None and lives else None
            if said is not None and process is not None:
                memory = 0
                with contextlib.suppress(psutil.Error):
                    memory = int(process.memory_info().rss)
                identity, ends = said.identity, None if lock is None else until(folder)
                found.append(
                    Living(folder, said.pid, lock is None, ends, memory, identity["udlbridge"], identity["Julia"])
                )
    return found


def stop(*, busy: bool) -> tuple[list[Living], list[Living]]:
    """End the processes that have no client, or all; those that ended, and those that did not."""
    ended, left = [], []
    for one in living():
        if one.busy and not busy:
            left.append(one)
        else:
            end(one.folder)
            ended.append(one)
    return ended, left
