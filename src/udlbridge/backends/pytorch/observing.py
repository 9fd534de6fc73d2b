"""The sites of one batch of a module, read from its graph by the recipe that two small batches gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from udlbridge.backends import sites as described
from udlbridge.backends.pytorch.gathering import Observed
from udlbridge.backends.pytorch.layouts import Layout
from udlbridge.backends.pytorch.sites import Affine, Elementwise, Lookup, Site, Tied
from udlbridge.backends.pytorch.structured import Group, Recipe
from udlbridge.backends.pytorch.tracing import Entry, Trace
from udlbridge.backends.pytorch.uses import Rows, Table, Use, rows_site
from udlbridge.errors import ConversionError


def observed(
    trace: Trace,
    uses: Sequence[Use | None],
    plan: Recipe,
    y: Tensor,
    params: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Observed:
    """The sites of a batch, whose trace is like that of the recipe; y (n, O) are the outputs that count.

    `uses`: how the constants of the trace enter.

    Raises:
        ConversionError: the graph is another one for this batch.
    """
    if tuple(trace.names) != plan.nodes or tuple(entry.place for entry in trace.entries) != plan.places:
        raise ConversionError(
            "the module computes in another way for some of the samples than for others",
            allowed="networks that do the same for every batch",
            remedy='take method="plain"',
        )
    layouts = [None if one is None else replace(one, count=len(y)) for one in plan.layouts]
    sites: list[Site] = []
    points: list[Tensor | GradientEdge] = []
    readers: list[tuple[int, Callable[[list[Tensor]], Any]]] = []
    for group in plan.groups:
        members = [_Member(trace.entries[p], uses[p], layouts[p]) for p in group.entries]
        site, reader = _site(group, members, params, dtype)
        sites.append(site)
        points += [member.entry.result for member in members]
        readers.append((len(members), reader))

    zeros = [trace.entries[index].node._input_metadata[0] for group in plan.groups for index in group.entries]

    def deltas(found: Sequence[Tensor | None]) -> list[Any]:
        given = [
            torch.zeros(tuple(like.shape), dtype=like.dtype, device=like.device) if d is None else d
            for d, like in zip(found, zeros, strict=True)
        ]
        result, start = [], 0
        for count, reader in readers:
            result.append(reader(given[start : start + count]))
            start += count
        return result

    return Observed(y, sites, points, deltas)


@dataclass(frozen=True)
class _Member:
    entry: Entry
    known_use: Use | None
    known_layout: Layout | None

    @property
    def use(self) -> Use:
        assert self.known_use is not None
        return self.known_use

    @property
    def layout(self) -> Layout:
        assert self.known_layout is not None
        return self.known_layout


def _site(
    group: Group, members: list[_Member], params: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[Site, Callable[[list[Tensor]], Any]]:
    """The site, and how the errors at its members become what it reads."""
    if group.summed:
        return Elementwise((group.name,), lambda ds: [_pulled(group.name, members, ds, params, dtype)]), list
    if group.tied:
        return _tied_site(group.name, members, dtype)
    if len(members) > 1:
        return _rows_site(group.name, members, dtype)
    (one,) = members
    site = one.use.site(group.name, group.bias, one.layout, dtype)
    return site, lambda ds: one.use.errors(ds[0], one.layout).to(dtype)


def _rows_site(
    name: str, members: Sequence[_Member], dtype: torch.dtype
) -> tuple[Affine, Callable[[list[Tensor]], Tensor]]:
    """One affine map at the positions of all members."""
    rows = [(m.use, m.layout) for m in members if isinstance(m.use, Rows)]

    def reader(ds: list[Tensor]) -> Tensor:
        both = zip(rows, ds, strict=True)
        return torch.cat([use.errors(d, layout) for (use, layout), d in both], 1).to(dtype)

    x = torch.cat([use.inputs(layout) for use, layout in rows], 1)
    return rows_site(name, None, x.to(dtype)), reader


def _tied_site(
    name: str, members: Sequence[_Member], dtype: torch.dtype
) -> tuple[Tied, Callable[[list[Tensor]], tuple[Tensor, Tensor]]]:
    """A table at the positions of all lookups, and the affine map that it is too."""
    kinds = [isinstance(member.use, Table) for member in members]
    tables = [member for member, looked_up in zip(members, kinds, strict=True) if looked_up]
    affine, errors = _rows_site(name, [m for m, looked_up in zip(members, kinds, strict=True) if not looked_up], dtype)
    looked = [one for one in (m.use.site(name, None, m.layout, dtype) for m in tables) if isinstance(one, Lookup)]

    def reader(ds: list[Tensor]) -> tuple[Tensor, Tensor]:
        own = [d for d, looked_up in zip(ds, kinds, strict=True) if looked_up]
        rest = [d for d, looked_up in zip(ds, kinds, strict=True) if not looked_up]
        found = [m.use.errors(d, m.layout) for m, d in zip(tables, own, strict=True)]
        return torch.cat(found, 1).to(dtype), errors(rest)

    return Tied(Lookup(name, torch.cat([one.tokens for one in looked], 1), looked[0].rows), affine), reader


def _pulled(
    name: str, members: list[_Member], ds: list[Tensor], params: Mapping[str, Tensor], dtype: torch.dtype
) -> Tensor:
    """Per-sample gradients by a parameter, from those by the tensors that were made of it, over all members."""
    total: Tensor | None = None
    for member, d in zip(members, ds, strict=True):
        found = member.use.gradients(d, member.layout, dtype)
        found = _through(member.entry, found, params[name]).to(dtype)
        total = found if total is None else total + found
    assert total is not None
    return total


def _through(entry: Entry, found: Tensor, parameter: Tensor) -> Tensor:
    """From per-sample gradients (n, *entered) of a constant to those by a parameter that it was made of."""
    if entry.path == ():
        return found
    if entry.path == ("TBackward0",):
        return found.transpose(1, 2)
    like = entry.source._input_metadata[entry.number]
    with torch.enable_grad():
        rows = [
            torch.autograd.grad([entry.edge], [parameter], [one], retain_graph=True, allow_unused=True)[0]
            for one in found.to(like.dtype)
        ]
    return torch.stack([torch.zeros_like(parameter) if row is None else row.to_dense() for row in rows])


def description(site: Site, delta: Any, sizes: Mapping[str, int]) -> described.Site:
    """What a site costs, from its shapes in one evaluation."""
    size = sum(sizes[name] for name in site.parameters)
    if isinstance(site, Affine):
        groups, positions, inputs = site.extent
        outputs = site.errors(delta[:1]).shape[3]
        return described.Affine(positions, inputs, outputs, groups, size, site.x[0].numel())
    if isinstance(site, Tied):
        looked, map_ = description(site.lookup, delta[0], sizes), description(site.affine, delta[1], sizes)
        assert isinstance(looked, described.Lookup)
        assert isinstance(map_, described.Affine)
        return described.Tied(looked, map_)
    if isinstance(site, Lookup):
        return described.Lookup(site.tokens.shape[1], site.rows, delta.shape[-1])
    return described.Elementwise(size)
