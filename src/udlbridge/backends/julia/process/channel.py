"""Messages between two processes: a pickle on their connection, the arrays in it beside it, in memory of both."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from io import BytesIO
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np

from udlbridge.backends.julia.process.blocks import Block

APART = 2**16
"""Bytes from which on an array goes through memory of both; what is smaller goes with the pickle."""

KEPT = 2**25
"""Bytes of the largest block that is kept for the next message: pages that are new cost more than copying to them."""

ALIGNMENT = 64

Naming = Callable[[Any], Any]
"""What pickle calls `persistent_id`: another process's name of a thing that it has, or None."""


class Channel:
    """One end. Nothing may be received from who has not shown the key: it is unpickled.

    The ends take turns: what was sent apart has been looked at when the other end has answered.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending: Block | None = None
        self._receiving: Block | None = None

    def send(self, message: Any, naming: Naming | None = None, *, brief: bool = False) -> None:
        """Send it.

        Args:
            message: anything that can be pickled.
            naming: names of things that are at the other end already.
            brief: the other end keeps no array of it beyond its answer, and may look at them where they are.
        """
        apart: list[memoryview] = []

        def within(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= APART:
                apart.append(raw)
                return False
            return True

        file = BytesIO()
        _Pickler(file, within, naming).dump(message)
        block, fresh = self._block(sum(map(_room, apart)))
        start = 0
        for raw in apart:
            assert block is not None
            block.array[start : start + raw.nbytes] = np.frombuffer(raw, dtype=np.uint8)
            start += _room(raw)
        head = {"sizes": [raw.nbytes for raw in apart], "block": fresh, "brief": brief}
        self.connection.send_bytes(json.dumps(head).encode())
        self.connection.send_bytes(file.getbuffer())
        if fresh:
            assert block is not None
            block.give(self.connection)

    def receive(self, named: Naming | None = None) -> Any:
        """The next message.

        Args:
            named: what the other end's names mean here.

        Raises:
            EOFError: the other end has gone.
        """
        head = json.loads(self.connection.recv_bytes())
        content = self.connection.recv_bytes()
        block = self._receiving
        if head["block"]:
            block = Block.taken(self.connection, head["block"])
            if block.size <= KEPT:
                self._receiving = block
        buffers, start = [], 0
        for size in head["sizes"]:
            assert block is not None
            found = block.array[start : start + size]
            if head["brief"]:
                found.flags.writeable = False
            else:
                found = found.copy()
            buffers.append(found)
            start += -(-size // ALIGNMENT) * ALIGNMENT
        return _Unpickler(content, buffers, named).load()

    def _block(self, size: int) -> tuple[Block | None, int]:
        """A block of that size at least, and how large it is where the other end has not got it yet."""
        if size == 0:
            return None, 0
        if size > KEPT:
            return Block(size), size
        if self._sending is None or self._sending.size < size:
            self._sending = Block(min(KEPT, 2 * size))
            return self._sending, self._sending.size
        return self._sending, 0


class _Pickler(pickle.Pickler):
    """With names for what is not to be sent, and mappings that cannot be changed as those that can."""

    def __init__(self, file: BytesIO, apart: Callable[[pickle.PickleBuffer], Any], naming: Naming | None) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=apart)
        self._naming = naming

    def persistent_id(self, thing: Any) -> Any:
        return None if self._naming is None else self._naming(thing)

    def reducer_override(self, thing: Any) -> Any:
        return (dict, (dict(thing),)) if isinstance(thing, MappingProxyType) else NotImplemented


class _Unpickler(pickle.Unpickler):
    """With what the names mean here."""

    def __init__(self, content: bytes, apart: list[np.ndarray], named: Naming | None) -> None:
        super().__init__(BytesIO(content), buffers=apart)
        self._named = named

    def persistent_load(self, name: Any) -> Any:
        if self._named is None:
            raise pickle.UnpicklingError(f"{name} means nothing here")
        return self._named(name)


def _room(raw: memoryview) -> int:
    return -(-raw.nbytes // ALIGNMENT) * ALIGNMENT
