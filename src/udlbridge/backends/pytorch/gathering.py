"""The summands of a structured kernel: one forward pass and one backward pass per cotangent, a stretch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.pytorch.collectors import Collector, collector
from udlbridge.backends.pytorch.factors import Summand
from udlbridge.backends.pytorch.sites import Site
from udlbridge.backends.pytorch.tensors import gradients
from udlbridge.backends.reduction import Reduction

STRETCH = 32
"""Samples that go through a module together, of many: more are no faster, where it is not small."""

SMALL_NUMBERS, MOST_NUMBERS = 2**22, 2**26
"""More go together where less than so many numbers are held for the way back, and fewer where so many would be."""


def samples_together(numbers: int, n: int) -> int:
    """How many of n samples go through a module together that holds so many `numbers` of each for the way back."""
    usual = max(STRETCH, SMALL_NUMBERS // max(numbers, 1))
    return max(1, min(at_once(n, usual), MOST_NUMBERS // max(numbers, 1)))


def at_once(n: int, usual: int) -> int:
    """Of n samples, where of many `usual` go together: what would take two times goes at once, and is not copied."""
    return n if n <= 2 * usual else usual


@dataclass(frozen=True)
class Observed:
    """One evaluation of a stretch of samples.

    `y` (n, O) with its graph; `sites` in an order that is the same for every stretch; `points`: where errors are taken;
    `deltas`: the errors of each site from those at all points, of which None are zero.
    """

    y: Tensor
    sites: list[Site]
    points: Any
    deltas: Callable[[Sequence[Tensor | None]], list[Any]]


def gathered(job: KernelJob, n: int, stretch: int, observe: Callable[[slice], Observed]) -> list[Summand]:
    """A factor for every site, from evaluations of `stretch` samples at a time."""
    collectors: list[Collector] = []
    sites: list[Site] = []
    for samples in _stretches(n, stretch):
        with torch.enable_grad():
            seen = observe(samples)
            pulled = _pulled(job.reduction, seen.y) if seen.sites else []
        sites = seen.sites
        for k, total in enumerate(pulled):
            # An output may not depend on every site: its errors there are zero.
            found = gradients(total, seen.points, keep=k + 1 < len(pulled))
            with torch.no_grad():
                deltas = seen.deltas(found)
                if not collectors:
                    collectors = [collector(job, site, n, delta) for site, delta in zip(sites, deltas, strict=True)]
                for one, site, delta in zip(collectors, sites, deltas, strict=True):
                    if k == 0:
                        one.begin(samples, site)
                    one.add(k, delta)
            if job.watch is not None:
                job.watch((samples.stop - samples.start) / (n * len(pulled)))
    return [Summand(site.parameters, one.factor()) for one, site in zip(collectors, sites, strict=True)]


def _stretches(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _pulled(reduction: Reduction, y: Tensor) -> list[Tensor]:
    """The K sums over samples whose derivatives are the errors of each sample."""
    if reduction.name == "sum":
        return [y.sum()]
    return [y[:, k].sum() for k in reduction.indices]
