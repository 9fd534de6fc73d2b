"""Somebody's own network as one that every engine computes, from wherever it comes."""

from __future__ import annotations

import numpy as np

from udlbridge.conversion.flux import from_flux
from udlbridge.conversion.pytorch import from_torch, to_torch
from udlbridge.errors import UDLBridgeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model


def as_model(network: Model | ForeignNetwork) -> Model:
    """The `Model` that the network is, or that a module or a chain in Julia translates to.

    Raises:
        ConversionError: it has no such translation.
    """
    if isinstance(network, Model):
        return network
    own = network.translatable()
    found = from_flux(own) if network.engine == "julia" else from_torch(own)
    assert isinstance(found, Model)  # graphs take an example
    return found


def translation(network: ForeignNetwork, x: np.ndarray) -> Model | Graph:
    """A `Model`, or else the `Graph` that a module or a model in Julia computes of samples like `x`.

    Raises:
        ConversionError: there is neither.
    """
    try:
        return as_model(network)
    except UDLBridgeError:
        return as_graph(network, x)


def as_graph(network: Model | ForeignNetwork, x: np.ndarray) -> Graph:
    """The `Graph` of what any network computes of samples like `x`.

    Raises:
        ConversionError: an operation without a translation.
        TorchUnavailable: a `Model` without PyTorch, which says what its layers do.
    """
    if isinstance(network, Graph):
        return network
    if isinstance(network, Model):
        return from_torch(to_torch(network), x)
    if network.engine == "julia":
        found = from_flux(network.translatable(), x)
        assert isinstance(found, Graph)  # there is an example
        return found
    module, output = network.capturable()
    return from_torch(module, x, output=output)
