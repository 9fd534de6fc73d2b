"""Products with the Jacobian in torch: one reverse pass, one forward-mode pass, and no Jacobian."""

from __future__ import annotations

import math
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


def expand(network: Network, params: Params, direction: Params, degree: int) -> Tensor:
    """The Taylor polynomial of f(theta + t w) at t = 1 around t = 0, (n, O), by forward derivatives of one another.

    Gradients pass through it to `direction`.
    """
    zero = torch.zeros((), dtype=next(iter(params.values())).dtype, device=next(iter(params.values())).device)
    one = torch.ones_like(zero)

    def along(t: Tensor) -> Tensor:
        return network({name: value + t * direction[name] for name, value in params.items()})

    def derivative(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: torch.func.jvp(function, (t,), (one,))[1]

    current: Callable[[Tensor], Tensor] = along
    total = along(zero)
    for order in range(1, degree + 1):
        current = derivative(current)
        total = total + current(zero) / math.factorial(order)
    return total


def push(network: Network, params: Params, direction: Params, cotangents: Tensor) -> Tensor:
    """<c_i, (J w)_i> for every sample by one forward-mode pass: `direction` w in parameter space -> (n,)."""
    moved = torch.func.jvp(network, (dict(params),), (dict(direction),))[1]
    return (cotangents * moved).sum(dim=1).detach()
