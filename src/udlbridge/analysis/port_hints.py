"""What is known of the reason why two networks differ after a step, from their settings and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import erf, pi, sqrt

import numpy as np

from udlbridge.networks.layers import Layer
from udlbridge.tolerances import relative_difference

AXES = "CHW"
"""Of an image, in the order in which PyTorch flattens them, and Flux too, whose memory has them the other way round."""


@dataclass(frozen=True)
class Step:
    """One step of a network: its name, in words, and what it gives.

    For hints, its layer (of a `Model`), its arrays by name, and its settings as its own library writes them. To find
    the same step in another network, its kind, as the operation of a node, and the path of the module it belongs to.
    """

    name: str
    words: str
    value: np.ndarray
    layer: Layer | None
    arrays: Mapping[str, np.ndarray]
    settings: str = ""
    kind: str = ""
    path: str = ""


def hints_of(first: Step, second: Step, limit: float, before: Sequence[Step] = ()) -> list[str]:
    """What is known of the reason why two steps differ, from their settings and arrays.

    `before`: the steps that came before, in which the two networks agree, as the first has them.
    """
    found = _value_hints(first.value, second.value, limit, before)
    image = next((step.value.shape[1:] for step in reversed(before) if step.value.ndim == 4), None)
    if first.layer is not None and second.layer is not None and first.layer != second.layer:
        found.append(f"the layers themselves differ: {first.words}, {second.words}")
    # A layer of Julia says none.
    told = first.settings and second.settings and first.layer is second.layer is None
    if told and first.settings != second.settings:
        found.append(f"the settings differ: {first.words} has {first.settings}, {second.words} has {second.settings}")
    for name, value in first.arrays.items():
        other = second.arrays.get(name)
        if other is None:
            continue
        if other.shape != value.shape:
            found.append(f"{name} has the shape {value.shape} in the first, and {other.shape} in the second")
            continue
        gap = relative_difference(value, other)
        if gap <= limit:
            continue
        words = f"{name} differs by {gap:.2e} of its largest entry"
        reasons = [
            reason
            for reason, changed in [*changes(name, other, "second", "first"), *_column_orders(other, image)]
            if changed.shape == value.shape and relative_difference(value, changed) <= limit
        ]
        found.append(words + "".join(f"; it is equal when {reason}" for reason in reasons))
    if not found and first.layer is None:
        there = ", and at what comes before it" if before else ""
        found.append(f"parameters of this step are equal: look at its settings and buffers{there}")
    elif not found:
        found.append("settings and arrays of this step are equal: the difference comes from before it, or is rounding")
    return found


def reason_told(hint: str, *, by_name: bool) -> bool:
    """Whether a hint names the mistake; of steps that correspond `by_name`, also where an array differs."""
    told = ("it is equal when", "GELU in the", "flattens in the order", "the layers themselves differ")
    arrays = (" differs by ", " has the shape ") if by_name else ()
    return any(words in hint for words in (*told, *arrays))


def differing_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> list[str]:
    """Which arrays of two nodes of one operation differ, in their order."""
    found = []
    for (name, value), (twin, theirs) in zip(one.items(), other.items(), strict=False):
        words = name if name == twin else f"{name} ({twin} in the second)"
        if value.shape != theirs.shape:
            found.append(f"{words} has the shape {value.shape} in the first, and {theirs.shape} in the second")
        elif not np.array_equal(value, theirs):
            found.append(f"{words} differs by {relative_difference(value, theirs):.2e} of its largest entry")
    return found


def _value_hints(one: np.ndarray, other: np.ndarray, limit: float, before: Sequence[Step]) -> list[str]:
    """What shows on the numbers of two steps and those that came to both: the form of GELU, the order of flattening."""
    if not before or one.shape != other.shape:
        return []
    came, found = before[-1].value, []
    if came.shape == one.shape:
        forms = {name: form(came.astype(np.float64)) for name, form in GELU.items()}
        kinds = [
            next((name for name, value in forms.items() if relative_difference(side, value) <= limit), None)
            for side in (one, other)
        ]
        if None not in kinds and kinds[0] != kinds[1]:
            found.append(f"the first has GELU in the {kinds[0]} form, the second in the {kinds[1]} form")
    if came.ndim == 4 and one.ndim == 2 and one.shape[1] == came[0].size:
        found += [
            f"the second flattens in the order ({', '.join(order)}), the first in (C, H, W)"
            for order, axes in image_orders()
            if relative_difference(other, came.transpose(0, *(a + 1 for a in axes)).reshape(one.shape)) <= limit
        ]
    return found


def image_orders() -> list[tuple[str, tuple[int, ...]]]:
    """The orders of an image's axes but PyTorch's, in letters and in numbers."""
    return [("".join(AXES[a] for a in axes), axes) for axes in permutations(range(3)) if axes != (0, 1, 2)]


def _column_orders(value: np.ndarray, image: tuple[int, ...] | None) -> list[tuple[str, np.ndarray]]:
    """The weight (outputs, inputs) of a layer after flattened images, as for other orders of their axes."""
    if image is None or value.ndim != 2 or value.shape[1] != np.prod(image):
        return []
    found = []
    for order, axes in image_orders():
        laid = value.reshape(len(value), *(image[a] for a in axes))
        back = laid.transpose(0, *(1 + axes.index(a) for a in range(3)))
        words = f"the second takes images flattened in the order ({', '.join(order)}), the first in (C, H, W)"
        found.append((words, back.reshape(value.shape)))
    return found


def column_orders(
    value: np.ndarray, image: tuple[int, ...] | None, own: str, other: str
) -> list[tuple[str, np.ndarray]]:
    """The weight (outputs, inputs) of a layer after flattened images, as the other has it who flattens otherwise."""
    if image is None or value.ndim != 2 or value.shape[1] != np.prod(image):
        return []
    found = []
    for order, axes in image_orders():
        there = value.reshape(len(value), *image).transpose(0, *(1 + a for a in axes))
        words = f"its columns are in the order ({', '.join(order)}), which the {other} has, the {own} (C, H, W)"
        found.append((words, there.reshape(value.shape)))
        laid = value.reshape(len(value), *(image[a] for a in axes))
        back = laid.transpose(0, *(1 + axes.index(a) for a in range(3)))
        words = f"its columns are in the order (C, H, W), which the {other} has, the {own} ({', '.join(order)})"
        found.append((words, back.reshape(value.shape)))
    return found


def _gelu_erf(z: np.ndarray) -> np.ndarray:
    return np.asarray(z * 0.5 * (1.0 + np.vectorize(erf)(z / sqrt(2.0))))


def _gelu_tanh(z: np.ndarray) -> np.ndarray:
    return np.asarray(z * 0.5 * (1.0 + np.tanh(sqrt(2.0 / pi) * (z + 0.044715 * z**3))))


GELU = {"erf": _gelu_erf, "tanh": _gelu_tanh}
"""Its two forms: PyTorch's is that of erf, Flux's that of tanh."""


def changes(name: str, value: np.ndarray, holder: str, other: str) -> list[tuple[str, np.ndarray]]:
    """Mistakes that ports are known for, with an array of the `holder` as it would be without them."""
    spatial = tuple(range(2, value.ndim))
    found = []
    if name.endswith("var") and (value >= 0).all():
        found.append((f"squared: the {holder} has the deviation where the {other} has the variance", value**2))
        found.append(
            (f"its root is taken: the {holder} has the variance where the {other} has the deviation", value**0.5)
        )
    if value.ndim == 2:
        found.append(("transposed", value.T))
    if value.ndim >= 2:
        read = value.ravel().reshape(value.shape, order="F"), value.ravel(order="F").reshape(value.shape)
        found += [("its numbers are read in the other order, columns for rows", one) for one in read]
    if spatial:
        found.append(("flipped: Flux's Conv flips its kernel, CrossCor does not", np.flip(value, spatial)))
    if len(spatial) > 1:
        for axis in spatial:
            found.append((f"flipped along axis {axis} alone", np.flip(value, axis)))
    if len(spatial) == 2:
        found.append(("height and width change places", value.swapaxes(2, 3)))
        found.append(("flipped, and height and width change places", np.flip(value, spatial).swapaxes(2, 3)))
    found.append(("its sign changes", -value))
    return found
