"""Julia as an engine: Flux and Zygote, through juliacall."""

from __future__ import annotations

from typing import Any

from udlbridge.backends.base import Backend
from udlbridge.backends.engine import Availability, Engine, Footprint
from udlbridge.errors import JuliaUnavailable
from udlbridge.networks.graphs.operations import OPERATIONS


class JuliaEngine(Engine):
    """Flux and Zygote in Julia, which juliapkg can download."""

    name = "julia"
    # Besides what every engine has: code compiled for the network, and what has not been collected yet. It goes through
    # a few samples at a time, so that of a block there are these samples' parts, and the result.
    footprint = Footprint(fixed_bytes=250_000_000, factor_copies=2, forms_gradients=True)
    infinite_kernels = True
    graph_operations = curved_operations = frozenset(OPERATIONS)
    several_inputs = True
    structured_graphs = True
    # Before torch, which is the safer order in one process (PythonCall.jl issue 384).
    start_order = 10
    unavailable = JuliaUnavailable

    def availability(self) -> Availability:
        """Whether juliacall is there, and a Julia with the packages, named by the user or set up by juliapkg."""
        from udlbridge.backends.julia import runtime

        return runtime.availability()

    def install(self) -> None:
        """Download Julia and its packages with juliapkg."""
        from udlbridge.backends.julia import installing

        installing.install()

    def load(self) -> Backend[Any]:
        """Start Julia, where `UDLBRIDGE_JULIA` says."""
        from udlbridge.backends.julia.hosted import HostedJulia
        from udlbridge.backends.julia.hosts import host

        place = host()
        place.start()
        return HostedJulia(place)


ENGINE = JuliaEngine()
