"""The sites of a network in torch, where its parameters enter, as its layers show them to whoever observes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """z_t = W a_t + b at positions t: `x` as the layer got it, and how to read positions from x and from d f / d z.

    `inputs(x)` is (n, G, T, p) and `errors(d)` is (n, G, T, q), for G groups; `extent` is (G, T, p). Where there is one
    group and a faster way than the product of the two, `gradient(x, e)` gives the per-sample gradients of the weight
    (n, q, p) from x and the errors (n, T, q) of all outputs or of some.
    """

    weight: str
    bias: str | None
    x: Tensor
    inputs: Callable[[Tensor], Tensor]
    errors: Callable[[Tensor], Tensor]
    extent: tuple[int, int, int]
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None

    def inside(self, prefix: str) -> Affine:
        """The same with the names of the whole model."""
        return replace(self, weight=prefix + self.weight, bias=None if self.bias is None else prefix + self.bias)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that enter here."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def detached(self) -> Affine:
        """The same, without the graph of autograd that x belongs to."""
        return replace(self, x=self.x.detach())


@dataclass(frozen=True)
class Elementwise:
    """Any other way to enter: `gradients(d)` gives, per sample, the gradient of each name from d f / d z.

    Where the parameters enter in several places, d has the errors of all.
    """

    names: tuple[str, ...]
    gradients: Callable[[Any], Iterable[Tensor]]

    def inside(self, prefix: str) -> Elementwise:
        """The same with the names of the whole model."""
        return replace(self, names=tuple(prefix + name for name in self.names))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that enter here."""
        return self.names

    def detached(self) -> Elementwise:
        """The same: `gradients` holds no graph."""
        return self


@dataclass(frozen=True)
class Lookup:
    """z_t is row `tokens`[i, t] of a table of `rows` rows, at positions t: tokens (n, T), z (n, T, q)."""

    weight: str
    tokens: Tensor
    rows: int

    def inside(self, prefix: str) -> Lookup:
        """The same with the names of the whole model."""
        return replace(self, weight=prefix + self.weight)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that enter here."""
        return (self.weight,)

    def detached(self) -> Lookup:
        """The same: tokens have no graph."""
        return self


@dataclass(frozen=True)
class Tied:
    """A table whose rows are looked up and make the outputs of an affine map too, as a readout tied to an embedding.

    Their errors come as two: those of `lookup` and those of `affine`. No layer of a `Model` has it.
    """

    lookup: Lookup
    affine: Affine

    def inside(self, prefix: str) -> Tied:
        """The same with the names of the whole model."""
        return Tied(self.lookup.inside(prefix), self.affine.inside(prefix))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The name of the table."""
        return self.lookup.parameters

    def detached(self) -> Tied:
        """The same, without the graph of autograd that the inputs belong to."""
        return Tied(self.lookup, self.affine.detached())


Site = Affine | Elementwise | Lookup | Tied
Observer = Callable[[Site, Tensor], Tensor]


@dataclass(frozen=True)
class Scope:
    """The arrays of a model as one layer sees them: without the `prefix` of the layer in their names.

    `observe` is shown every site, with the tensor z that they made, and may replace z.
    """

    arrays: Mapping[str, Tensor]
    prefix: str = ""
    observe: Observer | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        """The array, or None if the layer has none of that name."""
        return self.arrays.get(self.prefix + name)

    def inside(self, part: str) -> Scope:
        """The scope of a layer inside."""
        return replace(self, prefix=f"{self.prefix}{part}.")

    def tap(self, site: Site, z: Tensor) -> Tensor:
        """z, after `observe` has seen it."""
        return z if self.observe is None else self.observe(site.inside(self.prefix), z)
