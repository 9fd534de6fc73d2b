"""Calls into a process of its own, from any thread of this one."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from udlbridge.backends import companions
from udlbridge.backends.julia import runtime
from udlbridge.backends.julia.host import Host
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.julia.probe import last_lines
from udlbridge.backends.julia.process import folders
from udlbridge.backends.julia.process.blocks import Block
from udlbridge.backends.julia.process.channel import Channel
from udlbridge.backends.julia.process.starting import INPROCESS, Found, found_or_started
from udlbridge.backends.julia.queued import CallThread, Job
from udlbridge.errors import BackendError
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model

SERVICE = "udlbridge.backends.julia.service:Service"

MODELS = 2
"""How many networks the process keeps by their hash, so that they are sent once."""

NUMBERS = 2**30
"""More than the things that a process holds in its life."""

LOOK_SECONDS = 0.1
"""How often a call that is under way looks whether its caller has left, and what the process has printed."""

KEEPING = ("training", "with_arrays")
"""Methods after which the process may look at arrays that it was given; all others are done with them."""

HOLDING = ("prepare", "training", "include", "converted", "with_arrays")
"""Methods that give the number of what the process holds from then on."""


class ProcessHost(Host):
    """A process of its own, which is found or started at the first call, and anew at the next one after it has died.

    What it prints goes to standard error. Ctrl-C leaves the computation, which ends at its next checkpoint; the next
    call waits for that. A forked child has a process of its own.

    Args:
        service: module and attribute of what the process makes to take calls.
    """

    def __init__(self, service: str = SERVICE) -> None:
        self._service = service
        self._forget()
        runtime.after_fork(self._forked)

    def _forget(self) -> None:
        self._line: _Line | None = None
        self._starting = threading.Lock()
        self._session: _Session | None = None
        self._unused: deque[int] = deque()
        self._writing = threading.Lock()

    def start(self) -> None:
        """See `Host`."""
        self.call("start")

    @property
    def running(self) -> bool:
        """See `Host`."""
        return self._session is not None

    def has(self, number: int) -> bool:
        """See `Host`."""
        session = self._session
        return session is not None and session.first <= number < session.first + NUMBERS

    def call(self, method: str, *args: Any) -> Any:
        """See `Host`."""
        return self._run(lambda: self._call(method, args, None))

    def call_into(self, out: np.ndarray, method: str, *args: Any) -> None:
        """See `Host`."""
        self._run(lambda: self._call(method, args, out))

    def forget(self, number: int) -> None:
        """See `Host`. What is not used any more goes with the next call."""
        self._unused.append(number)

    def rest(self) -> None:
        """See `Host`."""
        self._run(self._rest)

    def close(self) -> None:
        """See `Host`. Where the process does not linger, this waits until it has ended."""
        self._run(self._close)

    def left(self) -> None:
        """A caller has stopped waiting: from now on nothing is written into what belongs to it."""
        with self._writing:
            pass

    def _run(self, function: Callable[[], Any]) -> Any:
        with self._starting:
            self._line = self._line or _Line(self)
        return self._line.run(function)

    def _cancelled(self) -> bool:
        """Whether the caller has left, asked in the thread that talks to the process."""
        return self._line is not None and self._line.cancelled()

    def _call(self, method: str, args: tuple[Any, ...], out: np.ndarray | None) -> Any:
        if self._session is not None and self._session.ended():
            self._drop()  # between two calls: nothing of this one is lost
        if self._session is None:
            self._session = _begun(found_or_started(self._service))
            self._tell()
        session = self._session
        unused = [self._unused.popleft() for _ in range(len(self._unused))]
        try:
            session.forget([number for number in unused if self.has(number)])
            if self._cancelled():
                raise KeyboardInterrupt
            good, value = session.call(method, args, out, self._cancelled)
        except (EOFError, OSError):
            said = self._drop()
            raise BackendError(
                f"the process of Julia ended while it was asked for {method!r}{said}",
                remedy="call again, which starts another one; where memory ran out, give a smaller memory=; "
                f"{INPROCESS}",
            ) from None
        if not good:
            raise value
        with self._writing:
            if self._cancelled():
                if method in HOLDING:
                    self.forget(value)  # whoever asked for it has left
                raise KeyboardInterrupt
            if out is not None:
                out[...] = session.tile(out)
        return value

    def _drop(self) -> str:
        """Clear up after a process that has died; how it died, and what it said last."""
        session, self._session = self._session, None
        assert session is not None
        self._tell()
        return session.bury()

    def _rest(self) -> None:
        if self._session is not None:
            with contextlib.suppress(OSError):  # that it has died, the next call finds out
                self._session.rest()

    def _close(self) -> None:
        session, self._session = self._session, None
        self._tell()
        if session is not None:
            session.leave()

    def _tell(self) -> None:
        """Whether Julia is available need not be looked for while it answers."""
        if self._service == SERVICE:
            runtime.set_apart(self._session is not None)

    def _forked(self) -> None:
        """In a forked child: the process belongs to the parent, and the child has no thread that waits for it."""
        session = self._session
        self._forget()
        self._tell()
        if session is not None:
            session.disown()


class _Line(CallThread):
    """The thread that talks to the process: what is under way on a connection must not be interrupted."""

    def __init__(self, host: ProcessHost) -> None:
        super().__init__("udlbridge-julia-calls")
        self._host = host

    def _left(self, job: Job) -> None:
        self._host.left()


class _Session:
    """This process as the client of another one."""

    def __init__(self, found: Found) -> None:
        self._found, self._channel = found, Channel(found.connection)
        self._process = psutil.Process(found.pid)
        self._numbers = itertools.count()
        self._models: OrderedDict[str, None] = OrderedDict()
        self._tile: Block | None = None
        self._log = (found.folder / "log").open("rb")
        self.first = found.first
        companions.add(found.pid)

    def call(
        self, method: str, args: tuple[Any, ...], out: np.ndarray | None, cancelled: Callable[[], bool]
    ) -> tuple[bool, Any]:
        """Whether the method came to an end, and what it returned or raised."""
        into, fresh, number = None, 0, next(self._numbers)
        if out is not None:
            if self._tile is None or self._tile.size < out.nbytes:
                self._tile, fresh = Block(max(out.nbytes, 1)), max(out.nbytes, 1)
            into = (out.shape, out.dtype.str, fresh)
        message = ("call", number, _folder(), method, args, into)
        try:
            self._channel.send(message, self._naming, brief=method not in KEEPING)
        except BaseException:
            self._tile = None if fresh else self._tile  # the process has not got it
            raise
        if fresh:
            assert self._tile is not None
            self._tile.give(self._found.connection)
        told = False
        while not self._found.connection.poll(LOOK_SECONDS):
            self._show()
            if cancelled() and not told:
                told = True
                self._channel.send(("cancel", number))
        answer: tuple[bool, Any] = self._channel.receive()
        self._show()
        return answer

    def tile(self, out: np.ndarray) -> np.ndarray:
        """What the last call wrote that was given an array as `out`."""
        assert self._tile is not None
        return self._tile.array[: out.nbytes].view(out.dtype).reshape(out.shape)

    def forget(self, numbers: list[int]) -> None:
        """Nobody will ask for these again."""
        if numbers:
            self._channel.send(("forget", numbers))

    def rest(self) -> None:
        """No tiles are filled for a while."""
        if self._tile is not None:
            self._tile = None
            self._channel.send(("rest",))

    def ended(self) -> bool:
        """Whether the process has died since the last call: it says nothing by itself."""
        try:
            return self._found.connection.poll(0)
        except OSError:
            return True

    def leave(self) -> None:
        """Let the process go; one that does not linger has ended then."""
        self._close()
        if not self._found.linger:
            with contextlib.suppress(psutil.Error):
                self._process.wait(folders.END_SECONDS)
                folders.clear(self._found.folder)  # Windows keeps what the process had open itself

    def bury(self) -> str:
        """Clear up after its death; how it died, and what it said last."""
        code = None
        with contextlib.suppress(psutil.Error):
            code = self._process.wait(folders.END_SECONDS)
        self._log.seek(0)
        said = last_lines(self._log.read())
        self._log.close()
        folders.end(self._found.folder)
        self._close()
        folders.clear(self._found.folder)  # Windows keeps a file that is open, as that of the lock was
        how = ""
        if isinstance(code, int) and code < 0:
            name = signal.Signals(-code).name
            often = ", as the system does where memory runs out" if name == "SIGKILL" else ""
            how = f", killed by {name}{often}"
        elif code:
            how = f", with code {code}"
        return f"{how}{said}"

    def disown(self) -> None:
        """In a forked child: close what it has inherited, and leave the locks, which are its parent's."""
        companions.discard(self._found.pid)
        self._found.connection.close()
        self._log.close()

    def _close(self) -> None:
        companions.discard(self._found.pid)
        self._found.connection.close()
        self._found.lock.release()
        self._log.close()

    def _naming(self, thing: Any) -> Any:
        """What the process calls what it has already: networks, by their hashes, and its own models, by numbers."""
        if isinstance(thing, Model | Graph):
            return "model", self._taught(thing)
        return ("network", *thing.named()) if isinstance(thing, JuliaNetwork) else None

    def _taught(self, model: Model | Graph) -> str:
        """The hash of a network, which the process has now, for one that was used longest ago."""
        name = model.hash()
        if name not in self._models:
            dropped = [self._models.popitem(last=False)[0]] if len(self._models) >= MODELS else []
            self._channel.send(("models", name, pickle.dumps(model, pickle.HIGHEST_PROTOCOL), dropped))
            self._models[name] = None
        self._models.move_to_end(name)
        return name

    def _show(self) -> None:
        """What the process has printed meanwhile, as it would have in this one."""
        said = self._log.read()
        if said and sys.stderr is not None:
            sys.stderr.write(said.decode(errors="replace"))
            sys.stderr.flush()


def _begun(found: Found) -> _Session:
    try:
        return _Session(found)
    except (OSError, psutil.Error) as error:
        found.connection.close()
        found.lock.release()
        raise BackendError(f"the process of Julia ended at once ({error})", remedy=f"call again; {INPROCESS}") from None


def _folder() -> str:
    """The one that relative paths mean, also in the process."""
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return os.sep
