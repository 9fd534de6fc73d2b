"""PyTorch as an engine."""

from __future__ import annotations

import importlib.util
from typing import Any

from udlbridge.backends.base import Backend
from udlbridge.backends.engine import Availability, Engine, Footprint
from udlbridge.errors import TorchUnavailable

FORMED_NUMBERS = 2**24
"""Per-sample gradients that are too large to keep are formed so many numbers at a time."""


class TorchEngine(Engine):
    """PyTorch, on the CPU or another device that it knows."""

    name = "torch"
    footprint = Footprint(fixed_bytes=60_000_000, factor_copies=3, forms_gradients=False, formed_numbers=FORMED_NUMBERS)
    devices = ("cpu", "cuda", "mps")
    start_order = 20
    unavailable = TorchUnavailable

    def availability(self) -> Availability:
        """Whether torch is installed."""
        if importlib.util.find_spec("torch") is None:
            return Availability(False, "PyTorch is not installed", "pip install torch")
        return Availability(True)

    def load(self) -> Backend[Any]:
        """Import torch."""
        from udlbridge.backends.pytorch.engine import TorchBackend

        return TorchBackend()


ENGINE = TorchEngine()
