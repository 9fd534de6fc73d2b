"""Products with the Jacobian in torch: one reverse pass, one forward-mode pass, and no Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Params = Mapping[str, Tensor]
Network = Callable[[Params], Tensor]


def pull(network: Network, params: Params, cotangents: Tensor) -> dict[str, Tensor]:
    """J' c by one reverse pass: `cotangents` (n, O) -> an array of each parameter's shape.

    `network` maps parameters to the outputs (n, O) of a fixed batch.
    """
    back = torch.func.vjp(network, dict(params))[1]
    (pulled,) = back(cotangents)
    return {name: value.detach() for name, value in pulled.items()}


def push(network: Network, params: Params, direction: Params, cotangents: Tensor) -> Tensor:
    """<c_i, (J w)_i> for every sample by one forward-mode pass: `direction` w in parameter space -> (n,)."""
    moved = torch.func.jvp(network, (dict(params),), (dict(direction),))[1]
    return (cotangents * moved).sum(dim=1).detach()
