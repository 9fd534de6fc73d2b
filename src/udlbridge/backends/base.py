"""The contract that every engine keeps, and nothing else.

What is the same for all engines (checking input, planning, tiling, storing, reporting) is written once, above. An
engine receives checked arrays and computes natively: outputs, derivatives, and rectangles of a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Float, Int

from udlbridge.expressions import Program
from udlbridge.model import Model
from udlbridge.reduction import Reduction
from udlbridge.training.optimisers import Optimiser

Method = Literal["structured", "plain"]


@dataclass(frozen=True)
class KernelJob:
    """What rectangles of a kernel are to be computed, and how.

    `method`: "structured" multiplies the Gram matrices of layer inputs and of backpropagated errors (no Jacobian is
    formed); "plain" multiplies per-sample Jacobians. `threads`: for the engine's BLAS, None leaves it alone.
    `device`: where torch computes; the others know "cpu" alone. `params`: names of the parameters that the kernel sums
    over; None means all.
    """

    model: Model
    reduction: Reduction
    method: Method = "structured"
    threads: int | None = None
    device: str = "cpu"
    params: tuple[str, ...] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the kernel sums over, in the model's order."""
        return tuple(self.model.params) if self.params is None else self.params


@dataclass(frozen=True, eq=False)
class Slopes:
    """What was observed of the derivatives by the input, for the loss "sobolev".

    `values` (n, O, *D): d f_a(x_i) / d x_i, NaN where nothing was observed. `weight`: of their squared errors.
    """

    values: np.ndarray
    weight: float

    def of(self, samples: Int[np.ndarray, " samples"]) -> Slopes:
        """Those of some samples."""
        return Slopes(self.values[samples], self.weight)


@dataclass(frozen=True)
class TrainJob:
    """What is trained, and how; all of it checked.

    `rates`: learning rate by parameter name. `clip_norm`: gradients are multiplied by min(1, clip_norm / their norm
    over all parameters together). `slopes`: of all samples, for the loss "sobolev" alone. `threads` and `device` as for
    `KernelJob`.
    """

    model: Model
    loss: str
    optimizer: Optimiser
    rates: Mapping[str, float]
    clip_norm: float | None = None
    threads: int | None = None
    device: str = "cpu"
    slopes: Slopes | None = None


@dataclass(frozen=True)
class TrainState:
    """Where a training stands, the same for all engines: what is needed to go on exactly.

    `params`: by name, in the canonical layout. `slots`: for each of the optimiser's slots, an array of each parameter's
    shape by its name. `step`: steps made.
    """

    params: Mapping[str, np.ndarray]
    slots: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    step: int = 0


class Training(ABC):
    """A training under way in one engine: parameters, optimiser and data are in the engine's own form."""

    @abstractmethod
    def epoch(self, order: Int[np.ndarray, " samples"], batch_size: int, factor: float) -> Float[np.ndarray, " steps"]:
        """Train on the samples `order`, in batches of `batch_size` (the last one may be smaller), in one native call.

        Every learning rate is multiplied by `factor`. Returns the loss of every batch before its step, float64. If a
        loss is not finite, its step is not made, it comes last in the result, and the rest is left out.
        """

    @abstractmethod
    def state(self) -> TrainState:
        """A copy of where the training stands."""


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
    def input_hessian(self, model: Model, x: np.ndarray) -> Float[np.ndarray, "n outputs features features"]:
        """d2 f_a(x_i) / d x_i d x_i, (n, O, D, D), with the D entries of a sample in one axis, in C order."""

    @abstractmethod
    def signals(self, model: Model, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Per layer, its output (n, *shape), and the gradient of sum (f(x) - y)^2 at the layer.

        The gradient is with respect to the preactivation of a Dense layer, and to the output of any other layer.
        """

    @abstractmethod
    def program_value(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The last step of a formula, in the dtype of `x`."""

    @abstractmethod
    def program_gradient(self, program: Program, x: np.ndarray) -> np.ndarray:
        """The gradient of a formula with a scalar result, of the shape and dtype of `x`."""

    @abstractmethod
    def prepare(self, job: KernelJob, x: np.ndarray) -> F:
        """The factors of the kernel that belong to the samples `x`: one forward and K backward passes."""

    def release(self, factors: F) -> None:
        """Take back factors that nobody will use again, for engines that would keep their memory for a while."""

    def make_room(self) -> None:
        """Give back the memory of what was released, since others need it now."""

    @abstractmethod
    def fill(
        self, job: KernelJob, left: F, rows: slice, right: F, cols: slice, out: np.ndarray, *, lower: bool = False
    ) -> None:
        """Write the kernel of samples `left[rows]` against `right[cols]` into `out` (r, c, *trailing), C order.

        `job.params` may be the parameters of some of the layers that the factors were prepared for: then only their
        part is written. `lower` says that both are the same samples, and that what lies above the diagonal is not
        needed: an engine may leave it undefined.
        """

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

    @abstractmethod
    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """Within it, the engine's BLAS uses `count` threads; afterwards as many as before. None changes nothing."""

    @abstractmethod
    def loss_gradient(
        self, model: Model, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The mean loss of a batch, and its derivative with respect to every parameter, by name.

        `slopes` comes with the loss "sobolev" alone; for it, `y` is NaN where nothing was observed.
        """

    @abstractmethod
    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """Begin, or go on from `state`, on the samples `x` (n, *D) with targets `y` (n, O).

        A slot that `state` does not have begins at zero.
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
