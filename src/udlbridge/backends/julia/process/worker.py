"""The process that computes for others: it makes a service, takes calls by its methods' names, and ends by itself.

It has one client at a time, and ends when the last one has been gone for as long as that one said, or when nobody
comes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from udlbridge.backends.julia.process import folders
from udlbridge.backends.julia.process.blocks import Block
from udlbridge.backends.julia.process.channel import Channel
from udlbridge.backends.julia.process.identity import differences, identity
from udlbridge.errors import BackendError, UDLBridgeError

FIRST_SECONDS = 60.0
"""How long a process without any client yet waits for one: whoever started it may have been killed."""

LOOK_SECONDS = 1.0
"""How often a process looks whether its client is alive, for connections that outlive whom they belong to."""


class Worker:
    """What the process does.

    Args:
        folder: its own, made by whoever started it, who holds the lock "client" of it.
        service: module and attribute of what makes the service, as "package.module:Class". It is called with a function
            that the service has to call now and then while it computes, and with the first number for what it holds.
    """

    def __init__(self, folder: Path, service: str) -> None:
        self._folder, self._name = folder, service
        self._lock = folders.held(folder, "alive")
        self._identity = identity(service)
        self._service: Any = None
        self._session: Session | None = None
        self._first = secrets.randbits(32) << 30  # so that numbers of other processes mean nothing here
        self._ends: float | None = time.monotonic() + FIRST_SECONDS
        self._client: psutil.Process | None = None
        key = secrets.token_bytes(32)
        address = rf"\\.\pipe\udlbridge-{secrets.token_hex(8)}" if os.name == "nt" else str(folder / "socket")
        self._listener = Listener(address, authkey=key, backlog=4)
        created = psutil.Process().create_time()
        folders.Record(os.getpid(), created, address, key.hex(), self._identity).write(folder)
        threading.Thread(target=self._watch, name="udlbridge-watch", daemon=True).start()

    def work(self) -> None:
        """Serve one client after the other; it does not return."""
        while True:
            try:
                with self._listener.accept() as connection:
                    self._serve(connection)
            except (OSError, EOFError, AuthenticationError):
                continue  # who went, or did not know the key
            except BaseException:
                traceback.print_exc()
                self._leave(1)

    def _serve(self, connection: Connection) -> None:
        greeting = json.loads(connection.recv_bytes())
        lacks = differences(self._identity, greeting["identity"])
        os.ftruncate(sys.stdout.fileno(), 0)  # what was said to others is nothing to this one
        os.lseek(sys.stdout.fileno(), 0, os.SEEK_SET)  # Windows does not append, but writes where it was
        connection.send_bytes(json.dumps({"first": self._first, "differences": lacks}).encode())
        if lacks:
            return
        with contextlib.suppress(psutil.Error):
            self._client = psutil.Process(greeting["pid"])
        self._ends = None
        folders.write_until(self._folder, None)
        self._session = Session(connection, self._made)
        with contextlib.suppress(EOFError, OSError):
            self._session.serve()
        self._session = self._client = None
        self._rest(float(greeting["linger"]))

    def _made(self) -> Any:
        if self._service is None:
            module, _, attribute = self._name.partition(":")
            self._service = getattr(importlib.import_module(module), attribute)(self._checkpoint, self._first)
        return self._service

    def _checkpoint(self) -> None:
        if self._session is not None:
            self._session.checkpoint()

    def _rest(self, seconds: float) -> None:
        """Without a client: forget what the last one left, and wait for the next."""
        if seconds <= 0:
            self._leave()
        os.chdir(self._folder)  # nobody's disk is kept busy
        if self._service is not None:
            self._service.leave()
        folders.write_until(self._folder, time.time() + seconds)
        self._ends = time.monotonic() + seconds

    def _watch(self) -> None:
        """End the process when nobody has come for it in time, or when its client has died."""
        while True:
            ends, client = self._ends, self._client
            time.sleep(LOOK_SECONDS if ends is None else max(0.05, min(LOOK_SECONDS, ends - time.monotonic())))
            if client is not None and not client.is_running() and self._client is client:
                self._leave()
            # Who holds this lock is about to come.
            if ends is not None and time.monotonic() >= ends and folders.held(self._folder, "client") is not None:
                self._leave()

    def _leave(self, code: int = 0) -> None:
        sys.stderr.flush()
        folders.clear(self._folder)
        os._exit(code)  # without Julia's own goodbyes, which wait for what it does


class Session:
    """The calls of one client.

    Args:
        connection: to the client, who has shown the key.
        service: makes the service at the first call, or gives it.
    """

    def __init__(self, connection: Connection, service: Callable[[], Any]) -> None:
        self._connection, self._channel = connection, Channel(connection)
        self._made = service
        self._service: Any = None
        self._number = self._cancelled = -1
        self._tile: Block | None = None
        self._models: dict[str, Any] = {}

    def serve(self) -> None:
        """Until the client goes.

        Raises:
            EOFError, OSError: it has gone.
        """
        while True:
            word, *rest = self._channel.receive(self._named)
            if word == "call":
                self._answer(*rest)
            elif word == "models":
                self._learn(*rest)
            elif word == "cancel":
                self._cancelled = rest[0]
            elif word == "forget" and self._service is not None:
                self._service.forget(rest[0])
            elif word == "rest":
                self._tile = None

    def checkpoint(self) -> None:
        """Between two steps of a computation.

        Raises:
            KeyboardInterrupt: the client has stopped waiting for it, or has gone.
        """
        while self._connection.poll(0):
            try:
                word, number = self._channel.receive()  # while it waits for an answer, it says this alone
            except (EOFError, OSError):
                raise KeyboardInterrupt from None
            if word == "cancel":
                self._cancelled = number
        if self._cancelled >= self._number:
            raise KeyboardInterrupt

    def _answer(self, number: int, folder: str, method: str, args: tuple[Any, ...], into: Any) -> None:
        self._number = number
        if into is not None:
            shape, dtype, fresh = into
            if fresh:
                self._tile = Block.taken(self._connection, fresh)
            assert self._tile is not None
            args = (*args, self._tile.array[: _size(shape, dtype)].view(dtype).reshape(shape))
        try:
            self.checkpoint()
            with contextlib.suppress(OSError):
                os.chdir(folder)
            if self._service is None:
                self._service = self._made()
            answer = (True, self._service.call(method, *args))
        except BaseException as error:
            answer = (False, _portable(error))
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            self._channel.send(answer)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            self._channel.send((False, BackendError(f"what {method} gives cannot go to another process ({error})")))

    def _learn(self, name: str, content: bytes, dropped: list[str]) -> None:
        for other in dropped:
            self._models.pop(other, None)
        self._models[name] = pickle.loads(content)

    def _named(self, name: Any) -> Any:
        kind, *rest = name
        if kind == "model":
            return self._models[rest[0]]
        self._service = self._service or self._made()
        return self._service.network(*rest)


def _size(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _portable(error: BaseException) -> BaseException:
    """The error as it can be raised in another process: ours and Python's own are what they are."""
    said = traceback.format_exception(error)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    module = type(error).__module__.partition(".")[0]
    if module not in ("udlbridge", "builtins", "numpy") or isinstance(error, SystemExit):
        error = BackendError(f"{type(error).__name__}: {error}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what a class of errors makes of pickle may be anything
        error = BackendError(f"{type(error).__name__}: {error}")
    if not isinstance(error, UDLBridgeError | KeyboardInterrupt):
        error.add_note("In the process of Julia:\n" + "".join(said))
    return error


def main(folder: str, service: str) -> None:
    """Run the process; standard output and error are its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; who waits for a call says when to stop
    np.seterr(all="ignore")  # whoever takes the numbers looks at them
    Worker(Path(folder), service).work()
