"""The contract that every engine keeps, and nothing else.

What is the same for all engines (checking input, planning, tiling, storing, reporting) is written once, above. An
engine receives checked arrays and computes natively: outputs, derivatives, and rectangles of a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Float

from udlbridge.model import Model
from udlbridge.reduction import Reduction

Method = Literal["structured", "plain"]


@dataclass(frozen=True)
class KernelJob:
    """What rectangles of a kernel are to be computed, and how.

    `method`: "structured" multiplies the Gram matrices of layer inputs and of backpropagated errors (no Jacobian is
    formed); "plain" multiplies per-sample Jacobians. `threads`: for the engine's BLAS, None leaves it alone.
    `device`: where torch computes; the others know "cpu" alone.
    """

    model: Model
    reduction: Reduction
    method: Method = "structured"
    threads: int | None = None
    device: str = "cpu"


F = TypeVar("F")


class Backend(ABC, Generic[F]):
    """One engine. `F` is its own type of kernel factors, which only it looks into.

    Arrays come in and go out as NumPy, samples first, in the model's dtype.
    """

    name: ClassVar[str]

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the engine's parts, by name."""

    @abstractmethod
    def outputs(self, model: Model, x: np.ndarray) -> np.ndarray:
        """f(x) in inference mode: (n, *D) -> (n, *out)."""

    @abstractmethod
    def jacobian(self, model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
        """J[i, a, ...] = d f_a(x_i) / d parameter, a block (n, O, *parameter shape) by parameter name."""

    @abstractmethod
    def input_jacobian(self, model: Model, x: np.ndarray) -> Float[np.ndarray, "n outputs *features"]:
        """d f_a(x_i) / d x_i, (n, O, *D)."""

    @abstractmethod
    def prepare(self, job: KernelJob, x: np.ndarray) -> F:
        """The factors of the kernel that belong to the samples `x`: one forward and K backward passes."""

    @abstractmethod
    def fill(self, job: KernelJob, left: F, rows: slice, right: F, cols: slice, out: np.ndarray) -> None:
        """Write the kernel of samples `left[rows]` against `right[cols]` into `out` (r, c, *trailing), C order."""

    @abstractmethod
    def pull(self, model: Model, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"]) -> dict[str, np.ndarray]:
        """J' c = sum_i J_i' c_i, an array of every parameter's own shape by name; no Jacobian is formed."""

    @abstractmethod
    def push(
        self,
        model: Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
    ) -> Float[np.ndarray, " n"]:
        """<c_i, (J w)_i> for every sample, w being a direction in parameter space by name; the transpose of `pull`.

        It gives the cotangents' share of J w and not all of J w, so that an engine may go forward or backward.
        """

    def close(self) -> None:
        """Give back what the engine holds outside Python."""


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here; if not, why, the one command that mends it, and whether first use does so too."""

    ok: bool
    reason: str = ""
    remedy: str = ""
    installable: bool = False
