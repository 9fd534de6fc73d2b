"""The sites of a module, as found on the first samples that came, and the evaluations that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from udlbridge.backends.pytorch.findings import Finding, signature
from udlbridge.backends.pytorch.gathering import Observed
from udlbridge.backends.pytorch.layouts import FEW, MORE
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.observing import description, observed
from udlbridge.backends.pytorch.structured import Recipe, alike, moves_samples, recipe, uses_of, varying_nodes
from udlbridge.backends.pytorch.tracing import Trace, traced
from udlbridge.backends.pytorch.uses import Use
from udlbridge.backends.pytorch.watching import Watching, undisturbed
from udlbridge.backends.sites import Elementwise, Site
from udlbridge.errors import ConversionError

Params = Mapping[str, Tensor]
Evaluate = Callable[[Params, Inputs], tuple[Tensor, Watching]]
"""Parameters by name and inputs to outputs (n, O), and what was noted on the way."""


@dataclass(frozen=True)
class Evaluation:
    """Some samples that were evaluated with parameters of which some are followed, `names`.

    `y` are the outputs, and `watching` has what was noted on the way.
    """

    names: tuple[str, ...]
    params: Params
    y: Tensor
    watching: Watching
    _read: dict[frozenset[int], tuple[Trace, list[Use | None]]] = field(default_factory=dict)

    def read(self, varying: frozenset[int]) -> tuple[Trace, list[Use | None]]:
        """The graph, and how constants enter it; read once."""
        if varying not in self._read:
            counted = {name: self.params[name] for name in self.names}
            trace = traced(self.y, counted, self.watching.constant, varying)
            self._read[varying] = trace, uses_of(trace)
        return self._read[varying]

    def trace(self, varying: frozenset[int]) -> Trace:
        """The graph."""
        return self.read(varying)[0]


class ModuleSites:
    """Where parameters enter a module, for each selection of them that was asked for.

    `name`: of the module. `shapes`: of its trainable parameters. `dtype`: that of kernels. `kept`: what was found
    before, by names, as far as it was kept, and `keep` takes what is found now.
    """

    def __init__(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
        evaluate: Evaluate,
        kept: Callable[[tuple[str, ...]], Finding | None],
        keep: Callable[[tuple[str, ...], Finding], None],
    ) -> None:
        self._name, self._shapes, self._dtype, self._evaluate = name, shapes, dtype, evaluate
        self._kept, self._keep = kept, keep
        self._found: dict[tuple[str, ...], Finding] = {}

    def known(self, names: tuple[str, ...]) -> Recipe | None:
        """The recipe of `names`, if it was found."""
        return self._found[names].recipe if names in self._found else None

    def recipe(
        self, names: tuple[str, ...], params: Params, examples: Callable[[int], Inputs], back: Callable[[], Inputs]
    ) -> Recipe:
        """How the parameters `names` enter, found on examples: so many of the first samples that came.

        `back`: more of them, from the last to the first.

        Raises:
            ConversionError: the outputs do not depend on them.
        """
        if names not in self._found:
            counted = followed(params, names)
            few = self._evaluated(names, counted, examples(FEW))
            found = self._still(few) or self._find(few, self._evaluated(names, counted, examples(MORE)), back)
            self._found[names] = found
        return self._found[names].recipe

    def find_by(self, seen: Evaluation, few: Inputs, back: Callable[[], Inputs]) -> None:
        """Find the recipe of all parameters by samples that were evaluated already, if they say it.

        Three do. Two have to have a graph that is known; `few` are the first two of three; `back` is as for `recipe`.

        Raises:
            ConversionError: the outputs do not depend on the parameters.
        """
        names = seen.names
        if names in self._found:
            return
        found = self._still(seen)
        if found is None and len(seen.y) == MORE:
            found = self._find(self._evaluated(names, seen.params, few), seen, back)
        if found is not None:
            self._found[names] = found

    def _evaluated(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Evaluation:
        with undisturbed():
            return Evaluation(names, params, *self._evaluate(params, inputs))

    def _still(self, seen: Evaluation) -> Finding | None:
        """What was found before, if it holds for two or three samples."""
        known = self._kept(seen.names)
        holds = known is not None and known.holds(*seen.read(known.recipe.varying), seen.y)
        return known if holds else None

    def _find(self, few: Evaluation, more: Evaluation, back: Callable[[], Inputs]) -> Finding:
        """From an evaluation of two samples, and of three; one of more, in the other order, says whether it holds."""
        names, varying = more.names, frozenset[int]()
        small, large = few.trace(varying), more.trace(varying)
        if found := varying_nodes(small, large):
            varying = found
            small, large = few.trace(varying), more.trace(varying)
        if not large.entries:
            raise independent(self._name, names)
        plan = recipe(small, large, more.y, names, varying)
        if not alike(small, large):
            return Finding(plan, (), (), ())
        others = self._evaluated(names, more.params, back()) if plan.groups else more
        if moves_samples(plan, *others.read(varying), others.y):
            return Finding(Recipe((), (), frozenset(), (), (), names, plan.numbers), (), (), ())
        described = self._descriptions(plan, more)
        signatures = [signature(*one.read(varying)) for one in (few, more)]
        finding = Finding(plan, tuple(described), *signatures)
        self._keep(names, finding)
        return finding

    def observed(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Observed:
        """One evaluation of a batch with the sites of `names`, whose recipe is known."""
        n = len(next(iter(inputs.values())))
        # Torch computes some things in another way for a single sample: it comes with a companion that does not count.
        batch = inputs if n > 1 else {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
        plan = self._found[names].recipe
        with undisturbed():
            seen = self._evaluated(names, followed(params, names), batch)
            return observed(*seen.read(plan.varying), plan, seen.y[:n], seen.params, self._dtype)

    def described(self, names: tuple[str, ...]) -> list[Site]:
        """What the sites of `names`, whose recipe is known, cost."""
        found = self._found[names]
        rest = sum(prod(self._shapes[name]) for name in found.recipe.alone)
        return [*found.described, *([Elementwise(rest)] if rest else [])]

    def _descriptions(self, plan: Recipe, seen: Evaluation) -> list[Site]:
        found = observed(*seen.read(plan.varying), plan, seen.y, seen.params, self._dtype)
        deltas = found.deltas([None] * len(found.points))
        sizes = {name: prod(self._shapes[name]) for name in seen.names}
        return [description(site, delta, sizes) for site, delta in zip(found.sites, deltas, strict=True)]


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
