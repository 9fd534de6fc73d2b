"""The sites of a module, as found on the first samples that came, and the evaluations that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from udlbridge.backends.pytorch.gathering import Observed
from udlbridge.backends.pytorch.layouts import FEW, MORE
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.observing import description, observed
from udlbridge.backends.pytorch.structured import Recipe, alike, recipe, varying_nodes
from udlbridge.backends.pytorch.tracing import Trace, traced
from udlbridge.backends.pytorch.watching import Watching, undisturbed
from udlbridge.backends.sites import Elementwise, Site
from udlbridge.errors import ConversionError

Params = Mapping[str, Tensor]
Evaluate = Callable[[Params, Inputs], tuple[Tensor, Watching]]
"""Parameters by name and inputs to outputs (n, O), and what was noted on the way."""


class ModuleSites:
    """Where parameters enter a module, for each selection of them that was asked for.

    `name`: of the module. `shapes`: of its trainable parameters. `dtype`: that of kernels.
    """

    def __init__(
        self, name: str, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, evaluate: Evaluate
    ) -> None:
        self._name, self._shapes, self._dtype, self._evaluate = name, shapes, dtype, evaluate
        self._recipes: dict[tuple[str, ...], Recipe] = {}
        self._described: dict[tuple[str, ...], list[Site]] = {}

    def knows(self, names: tuple[str, ...]) -> bool:
        """Whether the recipe of `names` was found."""
        return names in self._recipes

    def recipe(self, names: tuple[str, ...], params: Params, examples: Callable[[int], Inputs]) -> Recipe:
        """How the parameters `names` enter, found on examples: so many of the first samples that came.

        Raises:
            ConversionError: the outputs do not depend on them.
        """
        if names not in self._recipes:
            more, few = examples(MORE), examples(FEW)
            varying: frozenset[int] = frozenset()
            y, trace_more = self._evaluated(params, more, names)
            _, trace_few = self._evaluated(params, few, names)
            small, large = trace_few(varying), trace_more(varying)
            if found := varying_nodes(small, large):
                varying = found
                small, large = trace_few(varying), trace_more(varying)
            if not large.entries:
                raise independent(self._name, names)
            self._recipes[names] = recipe(small, large, y, names, varying)
            self._described[names] = self._descriptions(names, params, y, large) if alike(small, large) else []
        return self._recipes[names]

    def observed(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Observed:
        """One evaluation of a batch with the sites of `names`, whose recipe is known."""
        n = len(next(iter(inputs.values())))
        # Torch computes some things in another way for a single sample: it comes with a companion that does not count.
        batch = inputs if n > 1 else {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
        plan = self._recipes[names]
        with undisturbed():
            counted = followed(params, names)
            y, watching = self._evaluate(counted, batch)
            trace = traced(y, {name: counted[name] for name in names}, watching.constant, plan.varying)
            return observed(trace, plan, y[:n], counted, self._dtype)

    def described(self, names: tuple[str, ...]) -> list[Site]:
        """What the sites of `names`, whose recipe is known, cost."""
        rest = sum(prod(self._shapes[name]) for name in self._recipes[names].alone)
        return [*self._described[names], *([Elementwise(rest)] if rest else [])]

    def _evaluated(
        self, params: Params, inputs: Inputs, names: tuple[str, ...]
    ) -> tuple[Tensor, Callable[[frozenset[int]], Trace]]:
        """Outputs, and where the parameters `names` enter, given the nodes that vary; only they are followed."""
        with undisturbed():
            counted = followed(params, names)
            y, watching = self._evaluate(counted, inputs)
        leaves = {name: counted[name] for name in names}
        return y, lambda varying: traced(y, leaves, watching.constant, varying)

    def _descriptions(self, names: tuple[str, ...], params: Params, y: Tensor, trace: Trace) -> list[Site]:
        seen = observed(trace, self._recipes[names], y, params, self._dtype)
        deltas = seen.deltas([None] * len(seen.points))
        sizes = {name: prod(self._shapes[name]) for name in names}
        return [description(site, delta, sizes) for site, delta in zip(seen.sites, deltas, strict=True)]


def followed(params: Params, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The parameters, with those of `names` as leaves of a graph."""
    return {name: value.detach().requires_grad_() if name in names else value for name, value in params.items()}


def independent(name: str, names: tuple[str, ...]) -> ConversionError:
    """The error of a module whose outputs autograd cannot follow to the parameters `names`."""
    return ConversionError(
        f"the outputs of {name} do not depend on {_listed(names)}",
        allowed="outputs that autograd can follow to the parameters of the kernel",
        remedy="look for torch.no_grad() and .detach() in forward, or choose other params",
    )


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the parameters in params: {', '.join(names[:3])}{more}"
