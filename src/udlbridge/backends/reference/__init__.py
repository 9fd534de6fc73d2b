"""The engine written by hand in NumPy: no autodiff, no cleverness. It says which of the other two is wrong."""

from __future__ import annotations

from typing import Any

from udlbridge.backends.base import Backend
from udlbridge.backends.engine import Availability, Engine, Footprint
from udlbridge.networks.graphs.operations import OPERATIONS


class ReferenceEngine(Engine):
    """NumPy, which is always there."""

    name = "reference"
    # It goes through a few samples at a time: of a block there are these samples' parts, and the result.
    footprint = Footprint(fixed_bytes=60_000_000, factor_copies=2, forms_gradients=True)
    graph_operations = frozenset(OPERATIONS)
    several_inputs = True
    start_order = 30

    def availability(self) -> Availability:
        """It can run everywhere."""
        return Availability(True)

    def load(self) -> Backend[Any]:
        """Build it."""
        from udlbridge.backends.reference.engine import ReferenceBackend

        return ReferenceBackend()


ENGINE = ReferenceEngine()
