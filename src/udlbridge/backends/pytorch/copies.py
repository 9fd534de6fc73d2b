"""Private copies of a module: forward may change its state, and another thread may call it, while the caller's stays.

A copy has objects of its own for everything that a forward may write to: modules, containers, buffers. Parameters are
replaced by given tensors, wherever the module holds them.
"""

from __future__ import annotations

import copy
import random
import types
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
"""What draws random numbers. All copies share one, or each would draw the same numbers and seem to be deterministic."""

ATOMS = (str, bytes, int, float, complex, type(None), type, types.FunctionType, types.BuiltinFunctionType, torch.dtype)
"""What is never written to."""

COMMON = frozenset({str, int, float, bool, type(None), types.FunctionType})
"""The types of most values in a module, which need no look at what they are derived from."""

INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that every module has, most of them empty: for its hooks, and the like."""

EMPTY = frozenset({dict, OrderedDict, list, set})
"""Containers of these types are made anew by calling them."""


def private_copy(module: nn.Module, values: Mapping[int, Tensor], generators: dict[int, Any]) -> nn.Module:
    """The module with tensors of `values` in the place of its own, by their `id`; other tensors are copied.

    `generators`: by their `id`, those that the copies of one module share; it is filled here.
    """
    result: nn.Module = _copied(module, {**values, **generators}, generators)
    return result


def tensors_inside(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that the modules hold, in attributes and containers too."""
    for part in module.modules():
        for value in vars(part).values():
            kind = type(value)
            if kind not in COMMON and (kind not in EMPTY or value):  # others may have no truth value, as tensors
                yield from _tensors(value)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _copied(value: Any, memo: dict[int, Any], generators: dict[int, Any]) -> Any:
    """A copy of anything in a module; `memo` has what was copied, by the `id` of what it was copied from."""
    if type(value) in COMMON or isinstance(value, ATOMS):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if type(value) in EMPTY:
        return _container(value, memo, generators)
    if isinstance(value, GENERATORS):
        generators[id(value)] = memo[id(value)] = _generator(value)
        return memo[id(value)]
    if isinstance(value, Tensor):
        memo[id(value)] = value.detach().clone()
        return memo[id(value)]
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        result = object.__new__(type(value))
        memo[id(value)], state = result, result.__dict__
        for name, item in vars(value).items():
            kind = type(item)
            if kind in COMMON:
                state[name] = item
            elif kind in EMPTY and not item and name in INTERNAL:
                state[name] = kind()
            else:
                state[name] = _copied(item, memo, generators)
        return result
    if isinstance(value, dict | list | set | deque):
        return _container(value, memo, generators)
    if isinstance(value, tuple):
        items = [_copied(item, memo, generators) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, _copied(value.__self__, memo, generators))
    if isinstance(value, partial):
        args, words = (_copied(item, memo, generators) for item in (value.args, value.keywords))
        return partial(_copied(value.func, memo, generators), *args, **words)
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # locks, files and the like, which cannot be copied, are shared
        return value


def _container(value: Any, memo: dict[int, Any], generators: dict[int, Any]) -> Any:
    result = type(value)() if type(value) in EMPTY else copy.copy(value)
    memo[id(value)] = result
    if not value:
        return result
    if isinstance(value, dict):
        for name, item in value.items():
            result[name] = _copied(item, memo, generators)
        return result
    items = [_copied(item, memo, generators) for item in value]
    if isinstance(value, list):
        result[:] = items
    else:
        result.clear()
        result.update(items) if isinstance(value, set) else result.extend(items)
    return result


def _generator(value: Any) -> Any:
    """A generator in the same state."""
    if isinstance(value, torch.Generator):
        result = torch.Generator(value.device)
        result.set_state(value.get_state())
        return result
    return copy.deepcopy(value)
