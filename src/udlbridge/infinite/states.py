"""What is carried from layer to layer: the kernels of two batches, and how weights are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """How weights and biases are drawn, and how much a step along them counts.

    "ntk": a layer is w_std / sqrt(fan_in) W a + b_std b with W and b normal, and the kernel is of W and b. "standard":
    W and b are what they are, of standard deviations w_std / sqrt(fan_in) and b_std: the parts of wide layers outweigh
    those of narrow ones, by the widths that the layers have.
    """

    w_std: float
    b_std: float
    standard: bool


@dataclass(frozen=True)
class State:
    """Kernels of samples: `lead` axes of samples, then the positions; `ntk` is None before the first parameters.

    `shape` is that of one sample, channels first; `pairs` says that there is a number for every pair of positions.
    """

    nngp: np.ndarray
    ntk: np.ndarray | None
    lead: int
    shape: tuple[int, ...]
    pairs: bool

    @property
    def space(self) -> tuple[int, ...]:
        """Lengths of the axes of space."""
        return self.shape[1:]


@dataclass(frozen=True)
class States:
    """The kernels of two batches: each sample with itself, (n,) and (m,), and all pairs, (n, m).

    `same` says that both batches are one: then the pair of a sample with itself has exactly its own variance.
    """

    first: State
    second: State
    across: State
    same: bool
