"""What was found of the sites of a module, kept as long as the module lives, and held against what it does now.

Nothing of it is believed: the module may have other weights since, other layers, or do other things with other samples.
Two samples of each kernel are evaluated and their graph is read, as where nothing was found before. It has to be the
same graph, node by node, with the same shapes and the same parameters at the same places, and the outputs of one sample
must have no errors at another one. What is saved is the third sample, a second evaluation, and comparing the two. Nor
is each of the two evaluated alone, where they pass among many others next, in another order: they have to have the same
outputs there.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from udlbridge.backends.pytorch.layouts import FEW
from udlbridge.backends.pytorch.structured import Recipe, still_apart
from udlbridge.backends.pytorch.tracing import Trace
from udlbridge.backends.pytorch.uses import Use
from udlbridge.backends.sites import Site

Signature = tuple[Any, ...]

MOST = 16
"""How many findings of a module are kept: for samples of other shapes, other parameters, other devices."""


@dataclass(frozen=True)
class Finding:
    """A recipe, what its sites cost, and all that the traces of two and of three samples said which led to both."""

    recipe: Recipe
    described: tuple[Site, ...]
    few: Signature
    more: Signature

    def is_alike(self, trace: Trace, uses: list[Use | None], n: int) -> bool:
        """Whether `n` samples, two or three, have the graph that so many had."""
        return signature(trace, uses) == (self.few if n == FEW else self.more)

    def holds(self, trace: Trace, uses: list[Use | None], y: Tensor) -> bool:
        """Whether it would be found again on two or three samples with this trace and the outputs y (n, O)."""
        return self.is_alike(trace, uses, len(y)) and still_apart(self.recipe, trace, uses, y)


def signature(trace: Trace, uses: list[Use | None]) -> Signature:
    """What a recipe is made of, without the graph: nodes and shapes in order, and how each constant enters."""
    first: dict[int, int] = {}
    entries = []
    for at, (entry, use) in enumerate(zip(trace.entries, uses, strict=True)):
        # Parts of one parameter are told by where they come from, which has another address each time.
        part = None if entry.part is None else (first.setdefault(entry.part[0], at), entry.part[1])
        entries.append((entry.place, part, entry.entered_shape, None if use is None else use.kind))
    return tuple(trace.names), tuple(map(tuple, trace.shapes)), tuple(trace.constant), tuple(entries)


Key = tuple[Any, ...]

_kept: weakref.WeakKeyDictionary[nn.Module, dict[Key, Finding]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def kept(module: nn.Module, key: Key | None) -> Finding | None:
    """What was found of the module for the same kind of samples, parameters and device, which `key` says."""
    if key is None:
        return None
    with _lock:
        return _kept.get(module, {}).get(key)


def keep(module: nn.Module, key: Key | None, finding: Finding) -> None:
    """Keep it until the module goes; of too many, those that were found first are let go. Without a key, forget it."""
    if key is None:
        return
    with _lock:
        found = _kept.setdefault(module, {})
        found.pop(key, None)
        found[key] = finding
        while len(found) > MOST:
            del found[next(iter(found))]
