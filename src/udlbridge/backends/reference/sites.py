"""The sites of a network, where its parameters enter, and the per-sample gradients that follow.

Every parameter enters in one of three ways. As an affine map z_t = W a_t + b at positions t: then its gradient is
sum_t d_t a_t' with errors d_t = d f / d z_t. As a table of which a row is taken at each position: then row v of its
gradient is the sum of d_t where row v was taken. Or elementwise: then the backward pass of its layer gives the gradient
itself. The structured kernel uses the pieces, the plain one the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """`weight` (and `bias`) with inputs `a` (n, G, T, p) and errors `d` (n, G, T, q), for G groups and T positions.

    `shape` is that of the weight: (G q, ...), with p numbers after the first axis.
    """

    weight: str
    bias: str | None
    a: np.ndarray
    d: np.ndarray
    shape: Shape

    def inside(self, prefix: str) -> Affine:
        """The same with longer names."""
        return replace(
            self, weight=f"{prefix}.{self.weight}", bias=None if self.bias is None else f"{prefix}.{self.bias}"
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that enter here."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gradients(self) -> dict[str, np.ndarray]:
        """dW_i = sum_t d_it a_it' and db_i = sum_t d_it, (n, *parameter shape)."""
        n = len(self.d)
        found = {self.weight: (self.d.transpose(0, 1, 3, 2) @ self.a).reshape(n, *self.shape)}
        if self.bias is not None:
            found[self.bias] = self.d.sum(axis=2).reshape(n, -1)
        return found


@dataclass(frozen=True)
class Elementwise:
    """One parameter, and its gradient for each sample (n, *parameter shape)."""

    name: str
    gradient: np.ndarray

    def inside(self, prefix: str) -> Elementwise:
        """The same with a longer name."""
        return replace(self, name=f"{prefix}.{self.name}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The name."""
        return (self.name,)

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient by name."""
        return {self.name: self.gradient}


@dataclass(frozen=True)
class Lookup:
    """A table (`rows`, q) of which sample i takes the row `tokens`[i, t] at position t, with errors `d` (n, T, q)."""

    name: str
    tokens: np.ndarray
    d: np.ndarray
    rows: int

    def inside(self, prefix: str) -> Lookup:
        """The same with a longer name."""
        return replace(self, name=f"{prefix}.{self.name}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The name."""
        return (self.name,)

    def gradients(self) -> dict[str, np.ndarray]:
        """Row v of a gradient is the sum of d_it over the positions where token v stands: (n, rows, q)."""
        n, positions = self.tokens.shape
        gradient = np.zeros((n, self.rows, self.d.shape[2]), self.d.dtype)
        for i in range(n):
            for t in range(positions):
                gradient[i, self.tokens[i, t]] += self.d[i, t]
        return {self.name: gradient}


Site = Affine | Elementwise | Lookup
