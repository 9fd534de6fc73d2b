"""What a value of a graph is before it is computed: its shape, the number of samples left open, and its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Shape = tuple[int, ...]
Kind = Literal["float", "int", "bool"]
"""Numbers of the graph's dtype, whole numbers as tokens and positions (int64), and truth values."""


@dataclass(frozen=True)
class PerSample:
    """An extent of `count` for each sample of the batch: windows and attention heads are often folded into axis 0."""

    count: int = 1


Extent = int | PerSample


class Value(NamedTuple):
    """The shape of a value for a given number of samples, and its kind."""

    shape: Shape
    kind: Kind


def concrete(extents: Sequence[Extent], n: int) -> Shape:
    """The shape for `n` samples."""
    return tuple(extent.count * n if isinstance(extent, PerSample) else extent for extent in extents)
