"""What tells one choice of outputs from another: a key or position by itself, a function by what it computes with."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from udlbridge.errors import ConversionError
from udlbridge.texts import kind_of

PLAIN = (str, bytes, bool, int, float, complex, type(None), type(...), torch.dtype)
"""What its repr says all of."""


def choice_text(choice: object) -> str:
    """Text that is the same in another process for choices that are the same, and no other, as far as code says it.

    Of a function that is its code, its defaults, what it closes over, and the global values that it names, with the
    functions of its own module among them; functions and classes of other modules go by their names.

    Raises:
        ConversionError: a function that computes with something of which nothing says what it is.
    """
    return _Description(getattr(choice, "__module__", None)).of(choice)


class _Description:
    """`home`: the module in which the choice was written."""

    def __init__(self, home: str | None) -> None:
        self._home = home
        self._inside: list[int] = []

    def of(self, value: Any) -> str:
        """Text for anything that a function may compute with."""
        if isinstance(value, PLAIN):
            return repr(value)
        if id(value) in self._inside:
            return f"itself, {self._inside.index(id(value))}"  # a function that calls itself
        self._inside.append(id(value))
        try:
            return f"{type(value).__name__}({', '.join(self._parts(value))})"
        finally:
            self._inside.pop()

    def _parts(self, value: Any) -> Iterator[str]:
        if isinstance(value, tuple | list):
            yield from map(self.of, value)
        elif isinstance(value, set | frozenset):
            yield from sorted(map(self.of, value))
        elif isinstance(value, Mapping) and type(value) is dict:
            yield from (f"{self.of(key)}: {self.of(item)}" for key, item in value.items())
        elif isinstance(value, slice):
            yield from map(self.of, (value.start, value.stop, value.step))
        elif isinstance(value, Tensor):
            yield f"{value.dtype}, {self.of(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())}"
            yield str(tuple(value.shape))
        elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            yield f"{value.dtype}, {value.shape}, {value.tobytes().hex()}"
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, type) or (isinstance(value, FunctionType) and value.__module__ != self._home):
            yield f"{value.__module__}.{value.__qualname__}"
        elif isinstance(value, BuiltinFunctionType):
            yield from (f"{value.__module__}.{value.__qualname__}", self.of(value.__self__))
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, CodeType):
            flags = value.co_flags & ~inspect.CO_NESTED  # where it was written makes no difference
            arguments = value.co_posonlyargcount, value.co_argcount, value.co_kwonlyargcount, flags
            yield from map(self.of, (*arguments, value.co_code, value.co_names, value.co_consts))
        elif isinstance(value, MethodType):
            yield from map(self.of, (value.__func__, value.__self__))
        elif isinstance(value, partial):
            yield from map(self.of, (value.func, value.args, value.keywords))
        else:
            yield self._reduced(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        closed = [_content(cell) for cell in function.__closure__ or ()]
        known = function.__globals__
        named = {name: known[name] for name in sorted(set(_globals(function.__code__))) if name in known}
        yield from map(self.of, (function.__code__, function.__defaults__, function.__kwdefaults__, closed, named))

    def _reduced(self, value: Any) -> str:
        """As pickle would take it apart: an object of some class, by what it holds."""
        try:
            return self.of(value.__reduce_ex__(4))
        except (TypeError, RecursionError) as error:
            raise ConversionError(
                f"a function for output= that computes with {kind_of(value)}, which nothing tells from others",
                allowed="functions of numbers, words, arrays and other functions, where a kernel or a run is kept",
                remedy="name the output by a key or a position, or leave that out of the function",
            ) from error


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that was not bound yet
        return None


def _globals(code: CodeType) -> Iterator[str]:
    """The names of global values that code asks for, and those of the functions that are made in it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)
