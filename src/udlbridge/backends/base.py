"""The contract that every engine keeps, and nothing else.

What is the same for all engines (checking input, planning, tiling, storing, reporting) is written once, above. An
engine receives checked arrays and computes natively: outputs, derivatives, and rectangles of a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int

from udlbridge.backends.jobs import KernelJob, Slopes, TrainJob, TrainState
from udlbridge.backends.programs import Program
from udlbridge.networks.model import Model
from udlbridge.words import EngineName


class Training(ABC):
    """A training in progress in one engine: parameters, optimiser and data are in the engine's own form."""

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

    Arrays come in and go out as NumPy, samples first, in the model's dtype. What goes out is the caller's own: it
    shares memory with nothing that came in, and can be written to. What comes in is not changed, and may be read-only.
    `udlbridge.testing.check_backend` holds an engine against all that is said here.
    """

    name: ClassVar[EngineName]

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

    def check_device(self, device: str) -> None:
        """Raise `OptionError` for a device of a kind that the engine knows (`Engine.devices`) and that is not here."""

    @abstractmethod
    def pull(
        self, model: Model, x: np.ndarray, cotangents: Float[np.ndarray, "n outputs"], device: str | None = None
    ) -> dict[str, np.ndarray]:
        """J' c = sum_i J_i' c_i, an array of every parameter's own shape by name; no Jacobian is formed.

        `device` is of a kind that the engine knows; None is where the network is.
        """

    @abstractmethod
    def push(
        self,
        model: Model,
        x: np.ndarray,
        direction: Mapping[str, np.ndarray],
        cotangents: Float[np.ndarray, "n outputs"],
        device: str | None = None,
    ) -> Float[np.ndarray, " n"]:
        """<c_i, (J w)_i> for every sample, w being a direction in parameter space by name; the transpose of `pull`.

        It gives the cotangents' share of J w and not all of J w, so that an engine may go forward or backward.
        """

    def expand(
        self, model: Any, x: np.ndarray, direction: Mapping[str, np.ndarray], degree: int
    ) -> Float[np.ndarray, "n outputs"]:
        """sum_k d^k f(x; theta + t w) / dt^k / k! at t = 0, for k up to `degree`, w being a direction by name.

        Degree 1 takes a `push` for each output. An engine with repeated forward derivatives offers more, and says so in
        `Engine.taylor_degree`; no higher degree is asked for.
        """
        if degree > 1:
            raise NotImplementedError(f"{self.name} has no Taylor polynomials of degree {degree}")
        f = self.outputs(model, x)
        if degree == 0:
            return f
        units = np.eye(f.shape[1], dtype=f.dtype)
        return f + np.stack([self.push(model, x, direction, np.tile(unit, (len(f), 1))) for unit in units], axis=1)

    def infinite_kernels(
        self, model: Model, x1: np.ndarray, x2: np.ndarray | None, w_std: float, b_std: float, parameterization: str
    ) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
        """NNGP and NTK of the infinitely wide network, float64; `x2` None means `x1`.

        It is asked of engines alone that say `Engine.infinite_kernels`.
        """
        raise NotImplementedError(f"{self.name} has no kernels of infinite width")

    @abstractmethod
    def blas_threads(self, count: int | None) -> AbstractContextManager[None]:
        """Within it, the engine's BLAS uses `count` threads; afterwards as many as before. None changes nothing."""

    @abstractmethod
    def loss_gradient(
        self, model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The mean loss of a batch, and its derivative with respect to every parameter, by name.

        `slopes` comes with the loss "sobolev" alone; for it, `y` is NaN where nothing was observed.
        """

    @abstractmethod
    def training(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> Training:
        """Begin, or go on from `state`, on the samples `x` (n, *D) with targets `y` (n, O).

        A state without slots begins with zeros.
        """

    def close(self) -> None:
        """Give back what the engine holds outside Python."""
