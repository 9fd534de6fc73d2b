"""What a kernel costs, from shapes alone: multiply-adds, and numbers that are held."""

from __future__ import annotations

from udlbridge import backends
from udlbridge.backends.rules import gradients_cost, pairs_cost
from udlbridge.backends.sites import Affine, Tied, parameter_count, sites
from udlbridge.kernels.request import KernelRequest
from udlbridge.kernels.tiling import Grid


def multiply_adds(request: KernelRequest) -> float:
    """Multiply-adds for one entry of the kernel: the cheaper form at each site, or P K for "plain"."""
    if request.method == "plain":
        return float(gradients_cost(parameter_count(request.model, request.params), 1, request.reduction))
    found = sites(request.computed, request.sample_shape, request.params)
    return sum((site.multiply_adds(request.reduction) for site in found), start=0.0)


def factor_numbers(request: KernelRequest, *, forms_gradients: bool) -> int:
    """Numbers that the factors of one sample hold; `forms_gradients`: as in the footprint of an engine."""
    if request.method == "plain":
        return parameter_count(request.model, request.params) * request.reduction.n_cotangents
    found = sites(request.computed, request.sample_shape, request.params)
    return sum(site.factor_numbers(request.reduction, forms_gradients=forms_gradients) for site in found)


def passes_flops(request: KernelRequest) -> float:
    """Operations of one forward and K backward passes of one sample, and of the gradients that are formed with them."""
    forward = sum(site.forward for site in sites(request.computed, request.sample_shape, None))
    return 2.0 * (forward * (1 + request.reduction.n_cotangents) + _forming(request, later=False))


def forming_flops(request: KernelRequest) -> float:
    """Operations that form the gradients of one sample which are formed anew for each tile."""
    return 2.0 * _forming(request, later=True)


def tiles_flops(request: KernelRequest, grid: Grid) -> float:
    """Operations of all tiles, besides those of passes; each is taken to have as many samples as the largest."""
    entries, forming = multiply_adds(request), forming_flops(request)
    tile = min(grid.tile, grid.n), min(grid.tile, grid.m)
    lower = grid.symmetric and grid.count == 1
    formed = tile[0] if lower else sum(tile)
    for site in _formed_later(request):
        if isinstance(site, Affine) and site.by_pairs_of_few(tile, formed, request.reduction, lower=lower):
            pairs = pairs_cost(site.positions, site.inputs, site.outputs, request.reduction)
            entries += pairs - site.multiply_adds(request.reduction)
            forming -= 2.0 * request.reduction.n_cotangents * site.forming
    return 2.0 * grid.pairs * entries + grid.sides * forming


def formed_numbers(request: KernelRequest) -> int:
    """The largest gradient, of one sample and one output, among those that are formed anew for each tile."""
    return max((site.size for site in _formed_later(request)), default=0)


def _formed_later(request: KernelRequest) -> list[Affine | Tied]:
    """The maps whose gradients are formed anew for each tile."""
    if request.method == "plain" or backends.engine(request.backend).footprint.forms_gradients:
        return []
    maps = [
        site
        for site in sites(request.computed, request.sample_shape, request.params)
        if isinstance(site, Affine | Tied) and not site.by_pairs(request.reduction)
    ]
    return [site for site in maps if site.formed_later(request.reduction)]


def _forming(request: KernelRequest, *, later: bool) -> int:
    """Multiply-adds that form the per-sample gradients of maps, kept or formed when they are multiplied."""
    plain, reduction = request.method == "plain", request.reduction
    keeps_gradients = plain or backends.engine(request.backend).footprint.forms_gradients
    found = sites(request.computed, request.sample_shape, request.params)
    maps = [s for s in found if isinstance(s, Affine | Tied) and (plain or not s.by_pairs(reduction))]
    counted = [site for site in maps if (not keeps_gradients and site.formed_later(reduction)) == later]
    return sum(reduction.n_cotangents * site.forming for site in counted)
