"""Which steps of two networks correspond where no names say it: those that agree, in order, then by shapes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from udlbridge.analysis.port_hints import Step
from udlbridge.tolerances import relative_difference

MOST_PAIRS = 250_000
"""Pairs of steps that are compared; of more, shapes alone decide."""


def matched(one: Sequence[Step], other: Sequence[Step], limit: float) -> list[list[Step]]:
    """The steps of both that correspond, in their order.

    As many as agree up to `limit`, and after the last of them those that give values of one shape: networks that part
    do so after what they have in common.
    """
    pairs = _agreeing(one, other, limit) if len(one) * len(other) <= MOST_PAIRS else []
    first, second = (last + 1 for last in pairs[-1]) if pairs else (0, 0)
    pairs += [(first + i, second + j) for i, j in _of_one_shape(one[first:], other[second:])]
    return [[one[i] for i, _ in pairs], [other[j] for _, j in pairs]]


def _agreeing(one: Sequence[Step], other: Sequence[Step], limit: float) -> list[tuple[int, int]]:
    """The longest common sequence, where equal means equal numbers."""
    scales = [[float(np.abs(step.value).max(initial=0.0)) for step in side] for side in (one, other)]

    def equal(i: int, j: int) -> bool:
        a, b = one[i].value, other[j].value
        if a.shape != b.shape or abs(scales[0][i] - scales[1][j]) > 2 * limit * max(scales[0][i], scales[1][j]):
            return False  # most pairs end here
        return relative_difference(a, b) <= limit

    same = np.array([[equal(i, j) for j in range(len(other))] for i in range(len(one))], dtype=bool)
    lengths = np.zeros((len(one) + 1, len(other) + 1), dtype=np.int64)
    for i in reversed(range(len(one))):
        for j in reversed(range(len(other))):
            lengths[i, j] = lengths[i + 1, j + 1] + 1 if same[i, j] else max(lengths[i + 1, j], lengths[i, j + 1])
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other) and lengths[i, j]:
        if same[i, j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1
    return found


def _of_one_shape(one: Sequence[Step], other: Sequence[Step]) -> list[tuple[int, int]]:
    """The numbers of the steps that give values of one shape, in their order in both."""
    shapes = [step.value.shape for step in one], [step.value.shape for step in other]
    blocks = SequenceMatcher(a=shapes[0], b=shapes[1], autojunk=False).get_matching_blocks()
    return [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]
