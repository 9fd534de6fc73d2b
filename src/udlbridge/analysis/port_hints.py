"""What is known of the reason why two networks differ after a step, from their settings and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from udlbridge.networks.layers import Layer
from udlbridge.tolerances import relative_difference


@dataclass(frozen=True)
class Step:
    """One step of a network: in words, what it gives, and for hints its layer (of a `Model`) and its arrays by name."""

    words: str
    value: np.ndarray
    layer: Layer | None
    arrays: Mapping[str, np.ndarray]


def hints_of(first: Step, second: Step, limit: float) -> list[str]:
    """What is known of the reason why two steps differ, from their settings and arrays."""
    found = []
    if first.layer != second.layer:
        found.append(f"the layers themselves differ: {first.words}, {second.words}")
    for name, value in first.arrays.items():
        other = second.arrays.get(name)
        if other is None or other.shape != value.shape:
            continue
        gap = relative_difference(value, other)
        if gap <= limit:
            continue
        words = f"{name} differs by {gap:.2e} of its largest entry"
        reasons = [
            reason
            for reason, changed in _changes(other)
            if changed.shape == value.shape and relative_difference(value, changed) <= limit
        ]
        found.append(words + "".join(f"; it is equal when {reason}" for reason in reasons))
    if not found and first.layer is None:
        found.append("parameters of this step are equal: look at its settings and buffers, and at what comes before it")
    elif not found:
        found.append("settings and arrays of this step are equal: the difference comes from before it, or is rounding")
    return found


def _changes(value: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Mistakes that ports are known for, with an array as it would be without them."""
    spatial = tuple(range(2, value.ndim))
    found = []
    if value.ndim == 2:
        found.append(("transposed", value.T))
    if spatial:
        found.append(("flipped: Flux's Conv flips its kernel, CrossCor does not", np.flip(value, spatial)))
    if len(spatial) == 2:
        found.append(("height and width change places", value.swapaxes(2, 3)))
        found.append(("flipped, and height and width change places", np.flip(value, spatial).swapaxes(2, 3)))
    found.append(("its sign changes", -value))
    return found
