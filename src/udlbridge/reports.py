"""What every report shares: its form as JSON, and when two of them are equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np


def json_ready(value: Any) -> Any:
    """`value` in the words of JSON: arrays and tuples as lists, NumPy's numbers as Python's, dataclasses as mappings.

    JSON has no word for NaN and infinity, and readers of JSON refuse what Python's `json` writes for them: they become
    None, which is null.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: json_ready(getattr(value, field.name)) for field in fields(value)}
    return value


def frozen_array(values: Any) -> np.ndarray:
    """A copy, as a read-only array of float64."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def same_fields(first: Any, second: Any) -> bool:
    """Whether two dataclasses of one type hold the same, arrays entry by entry."""
    return type(first) is type(second) and all(
        np.array_equal(own, other) if isinstance(own, np.ndarray) else own == other
        for own, other in ((getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    )
