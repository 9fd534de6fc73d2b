"""What a kernel costs, from shapes alone: multiply-adds, and numbers that are held."""

from __future__ import annotations

from udlbridge.backends.rules import gradients_cost
from udlbridge.backends.sites import parameter_count, sites
from udlbridge.kernels.request import KernelRequest


def multiply_adds(request: KernelRequest) -> float:
    """Multiply-adds for one entry of the kernel: the cheaper form at each site, or P K for "plain"."""
    if request.method == "plain":
        return float(gradients_cost(parameter_count(request.model, request.params), 1, request.reduction))
    found = sites(request.model, request.sample_shape, request.params)
    return sum((site.multiply_adds(request.reduction) for site in found), start=0.0)


def factor_numbers(request: KernelRequest, *, forms_gradients: bool) -> int:
    """Numbers that the factors of one sample hold; `forms_gradients`: as in the footprint of an engine."""
    if request.method == "plain":
        return parameter_count(request.model, request.params) * request.reduction.n_cotangents
    found = sites(request.model, request.sample_shape, request.params)
    return sum(site.factor_numbers(request.reduction, forms_gradients=forms_gradients) for site in found)


def passes_flops(request: KernelRequest) -> float:
    """Operations of one forward and K backward passes of one sample."""
    forward = sum(site.forward for site in sites(request.model, request.sample_shape, None))
    return 2.0 * forward * (1 + request.reduction.n_cotangents)
