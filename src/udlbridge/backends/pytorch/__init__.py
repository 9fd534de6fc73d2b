"""PyTorch as an engine."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from udlbridge.backends.base import Backend
from udlbridge.backends.engine import Availability, Engine, Footprint
from udlbridge.errors import TorchUnavailable
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.graphs.operations import OPERATIONS

FORMED_NUMBERS = 2**22
"""Per-sample gradients that are too large to keep are formed so many numbers at a time. The C library hands out up to
32 MB again; more it asks of the system, page by page, each time: as long as forming what goes there."""


LARGEST_BLOCK = 2**25 - 2**16
"""Bytes: just below the 32 MB up to which the C library hands out memory again."""


class TorchEngine(Engine):
    """PyTorch, on the CPU or another device that it knows."""

    name = "torch"
    footprint = Footprint(fixed_bytes=60_000_000, factor_copies=3, forms_gradients=False, formed_numbers=FORMED_NUMBERS)
    devices = ("cpu", "cuda", "mps")
    graph_operations = curved_operations = frozenset(OPERATIONS)
    several_inputs = True
    structured_graphs = True
    taylor_degree = None
    start_order = 20
    unavailable = TorchUnavailable

    def availability(self) -> Availability:
        """Whether torch is installed."""
        if importlib.util.find_spec("torch") is None:
            return Availability(False, "PyTorch is not installed", "pip install torch")
        return Availability(True)

    def computed(self, model: Any) -> Any:
        """A graph as the module that it is here; without torch, where it can be planned still, the graph itself."""
        if not isinstance(model, Graph) or not model.params or not self.availability().ok:
            return model
        from udlbridge.backends.pytorch.graphs.engine import as_module_network

        return as_module_network(model, model.random_batch(model.sample_shape, 4))

    def load(self) -> Backend[Any]:
        """Import torch."""
        with _without_collections():
            from udlbridge.backends.pytorch.engine import TorchBackend

        _keep_freed_memory()
        return TorchBackend()


@contextmanager
def _without_collections() -> Iterator[None]:
    """No collection of garbage meanwhile: torch's modules make little, and looking for it is a tenth of the import."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _keep_freed_memory() -> None:
    """Ask for the largest block that the GNU C library hands out again, and give it back, untouched.

    From then on it takes blocks up to that size from memory that was freed. It would come to this by itself, when a
    block of the size is freed; until then each call asks the system for its memory anew, page by page: a third of the
    time of a small kernel.
    """
    np.empty(LARGEST_BLOCK, dtype=np.uint8)


ENGINE = TorchEngine()
