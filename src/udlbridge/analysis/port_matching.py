"""Which steps of two networks correspond where no names say it: those that agree, then by what they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from hashlib import sha256
from itertools import pairwise

import numpy as np

from udlbridge.analysis.port_hints import Step
from udlbridge.tolerances import relative_difference

MOST_PAIRS = 2_000_000
"""Pairs of steps that are compared; of more, shapes alone decide."""


def matched(one: Sequence[Step], other: Sequence[Step], limit: float) -> list[list[Step]]:
    """The steps of both that correspond, in the order of the first.

    As many as agree up to `limit`: the longest sequence of them, then those that come in another order. Where the
    networks end apart, also what is of one kind, first with one path, then with the same arrays: between those that
    agree, then anywhere; and after the last of them what gives values of one shape, since networks that part do so
    after what they have in common.
    """
    found, pairs = agreeing(one, other, limit)
    if found.get(len(one) - 1) != len(other) - 1:
        for key in (_place, _arrays, _kind):
            for first, second in _gaps(pairs, len(one), len(other)):
                _match_in_order(one, other, found, key, first, second)
            _match_anywhere(one, other, found, key)
        *_, (first, second) = _gaps(pairs, len(one), len(other))
        _match_in_order(one, other, found, _shape, first, second)
    return [[one[i] for i in sorted(found)], [other[found[i]] for i in sorted(found)]]


def agreeing(one: Sequence[Step], other: Sequence[Step], limit: float) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """The steps that give equal numbers, {number in the first: number in the second}; and their longest sequence."""
    same = _equal(one, other, limit) if len(one) * len(other) <= MOST_PAIRS else np.zeros((0, 0), dtype=bool)
    pairs = _longest_sequence(same)
    found = dict(pairs)
    taken = set(found.values())
    for i, j in zip(*np.nonzero(same), strict=True):
        if i not in found and j not in taken:
            found[int(i)] = int(j)
            taken.add(int(j))
    return found, pairs


def alike_in_order(one: Sequence[Step], other: Sequence[Step]) -> dict[str, str]:
    """The names of steps of one operation and shape, in their order in both, {in the first: in the second}."""
    keys = [[(step.kind, step.value.shape) for step in side] for side in (one, other)]
    found = {}
    for block in SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_matching_blocks():
        for k in range(block.size):
            found[one[block.a + k].name] = other[block.b + k].name
    return found


def in_order(one: Sequence[Step], other: Sequence[Step]) -> bool:
    """Whether every step is of the kind of the other network's step of its number, and gives values of its shape."""
    return [_kind(step) for step in one] == [_kind(step) for step in other]


def _shape(step: Step) -> Hashable:
    return step.value.shape


def _kind(step: Step) -> Hashable:
    return step.kind, step.value.shape, *(array.shape for array in step.arrays.values())


def _place(step: Step) -> Hashable:
    return step.path, _kind(step)


def _arrays(step: Step) -> Hashable:
    """The numbers in the arrays of a step; one without any is like no other."""
    digests = [sha256(array.tobytes()).digest() for array in step.arrays.values()]
    return _kind(step), *digests, None if step.arrays else id(step)


def _equal(one: Sequence[Step], other: Sequence[Step], limit: float) -> np.ndarray:
    """Which steps give equal numbers, as a matrix of truth values."""
    scales = [np.array([float(np.abs(step.value).max(initial=0.0)) for step in side]) for side in (one, other)]
    rows, columns = scales[0][:, None], scales[1][None]
    with np.errstate(invalid="ignore"):  # infinite ones
        alike = np.abs(rows - columns) <= 2 * limit * np.maximum(rows, columns)  # most pairs end here
    for i, j in zip(*np.nonzero(alike), strict=True):
        a, b = one[i].value, other[j].value
        alike[i, j] = a.shape == b.shape and relative_difference(a, b) <= limit
    return alike


def _longest_sequence(same: np.ndarray) -> list[tuple[int, int]]:
    """The longest common sequence, where equal means what a matrix of truth values says."""
    if not same.size:
        return []
    rows, columns = same.shape
    lengths = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            lengths[i, j] = lengths[i + 1, j + 1] + 1 if same[i, j] else max(lengths[i + 1, j], lengths[i, j + 1])
    found, i, j = [], 0, 0
    while i < rows and j < columns and lengths[i, j]:
        if same[i, j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1
    return found


def _gaps(pairs: Sequence[tuple[int, int]], rows: int, columns: int) -> list[tuple[range, range]]:
    """What lies before, between and after the pairs of a common sequence, on both sides."""
    ends = [(-1, -1), *pairs, (rows, columns)]
    return [(range(a + 1, c), range(b + 1, d)) for (a, b), (c, d) in pairwise(ends)]


def _match_in_order(
    one: Sequence[Step],
    other: Sequence[Step],
    found: dict[int, int],
    key: Callable[[Step], Hashable],
    first: range,
    second: range,
) -> None:
    """Add the steps of two ranges that are alike by a key, in their order in both, to what was found."""
    taken = set(found.values())
    left = [i for i in first if i not in found], [j for j in second if j not in taken]
    keys = [key(one[i]) for i in left[0]], [key(other[j]) for j in left[1]]
    for block in SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_matching_blocks():
        for k in range(block.size):
            found[left[0][block.a + k]] = left[1][block.b + k]


def _match_anywhere(
    one: Sequence[Step], other: Sequence[Step], found: dict[int, int], key: Callable[[Step], Hashable]
) -> None:
    """Add the steps that are alike by a key, wherever they are, to what was found."""
    taken = set(found.values())
    left: dict[Hashable, list[int]] = {}
    for j in reversed(range(len(other))):
        if j not in taken:
            left.setdefault(key(other[j]), []).append(j)
    for i in range(len(one)):
        if i not in found and left.get(key(one[i])):
            found[i] = left[key(one[i])].pop()
