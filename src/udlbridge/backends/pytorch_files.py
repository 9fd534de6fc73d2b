"""Weights in PyTorch's own files: state dicts, read without executing what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch


def read_state(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name.

    Raises:
        ValueError: the file holds something else.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it is no state dict")
    # A counter of training steps plays no part in the outputs.
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {name: value.numpy() for name, value in kept.items()}


def write_state(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays as a state dict."""
    torch.save({name: torch.tensor(value) for name, value in arrays.items()}, path)
