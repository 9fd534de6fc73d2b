"""Attributes of operations: the kinds of them, how each is checked, and how it is written as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from udlbridge.networks.graphs.values import PerSample

LARGEST = 2**40
"""Bound of every whole number in an attribute: no machine holds arrays of larger extents."""


class AttributeFault(Exception):  # noqa: N818 - it becomes a GraphError where the node is known
    """Why a value cannot be an attribute of its kind."""


@dataclass(frozen=True)
class Attribute:
    """A kind of attribute: what it is in words, and the function that checks and freezes a value, from JSON too."""

    words: str
    checked: Callable[[Any], Any]


def _whole(value: Any, least: int = -LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise AttributeFault
    return value


INFINITE = {"inf": math.inf, "-inf": -math.inf}
"""How JSON text says what JSON has no numbers for."""


def _real(value: Any) -> float:
    if isinstance(value, str) and value in INFINITE:
        return INFINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise AttributeFault
    try:
        return float(value)
    except OverflowError:
        raise AttributeFault from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise AttributeFault
    return value


def _listed(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple) or len(value) > 16:
        raise AttributeFault
    return value


def _pair(value: Any) -> tuple[int, int]:
    before, after = _listed(value)
    return _whole(before, 0), _whole(after, 0)


def _pairs(value: Any) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(_pair(one) for one in _listed(value))
    except ValueError:  # not two
        raise AttributeFault from None


def _extent(value: Any) -> int | PerSample:
    if isinstance(value, PerSample):
        return PerSample(_whole(value.count, 1))
    if isinstance(value, dict):
        if set(value) != {"per_sample"}:
            raise AttributeFault
        return PerSample(_whole(value["per_sample"], 1))
    return _whole(value, 0)


def choice(*words: str) -> Attribute:
    """One of some words."""

    def checked(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise AttributeFault
        return value

    return Attribute(" or ".join(repr(word) for word in words), checked)


def _equation(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 100:
        raise AttributeFault
    inputs, arrow, output = value.partition("->")
    terms = inputs.split(",")
    if not arrow or len(terms) != 2 or not all(term.isascii() for term in (*terms, output)):
        raise AttributeFault
    for term in (*terms, output):
        if not (term.isalpha() or term == "") or len(set(term)) != len(term):
            raise AttributeFault
    if not set(output) <= set(terms[0]) | set(terms[1]):
        raise AttributeFault
    return value


WHOLE = Attribute("a whole number", _whole)
SIZE = Attribute("a whole number of at least 1", lambda value: _whole(value, 1))
AXIS = Attribute("an axis, counted from 0", lambda value: _whole(value, 0))
REAL = Attribute("a number", _real)
FLAG = Attribute("true or false", _flag)
SIZES = Attribute("whole numbers of at least 1", lambda value: tuple(_whole(one, 1) for one in _listed(value)))
COUNTS = Attribute("whole numbers of at least 0", lambda value: tuple(_whole(one, 0) for one in _listed(value)))
AXES = Attribute("axes, counted from 0", lambda value: tuple(_whole(one, 0) for one in _listed(value)))
PAIRS = Attribute("a pair of whole numbers for each axis", _pairs)
EXTENTS = Attribute("whole numbers, or numbers per sample", lambda value: tuple(_extent(one) for one in _listed(value)))
EQUATION = Attribute("two terms and a result, as 'bhqd,bhkd->bhqk', with no letter twice in one", _equation)


def as_json(value: Any) -> Any:
    """An attribute as JSON-ready data."""
    if isinstance(value, PerSample):
        return {"per_sample": value.count}
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return [as_json(one) for one in value] if isinstance(value, tuple) else value
