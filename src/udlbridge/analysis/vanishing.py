"""Jacobian blocks that are zero but for rounding, as of a key's bias in attention: they have no size of their own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

JACOBIAN = "jacobian "
"""What the names of blocks begin with."""

ROUNDINGS = 16
"""Units of rounding of the largest block of its module, below which a block is taken for zero."""


def vanishing(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The blocks that both have and that are zero in both but for rounding, with the largest entry of their module's.

    What is a sum of numbers that cancel is off by the rounding of these. The blocks of the other parameters of the same
    module, by the path before the last point, are sums of numbers of that size.
    """
    both = [name for name in first if name.startswith(JACOBIAN) and name in second]
    largest = {name: max(_largest(first[name]), _largest(second[name])) for name in both}
    of_module: dict[str, float] = {}
    for name, value in largest.items():
        of_module[_path(name)] = max(of_module.get(_path(name), 0.0), value)
    return {
        name: of_module[_path(name)]
        for name, value in largest.items()
        if 0.0 < value <= ROUNDINGS * np.finfo(first[name].dtype).eps * of_module[_path(name)]
    }


def _largest(block: np.ndarray) -> float:
    return float(max(block.max(), -block.min())) if block.size else 0.0


def _path(name: str) -> str:
    return name.rpartition(".")[0]
