"""What an engine is asked to do, as data that was checked above: a kernel, a training, and where a training stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from udlbridge.backends.optimisers import Optimiser
from udlbridge.backends.reduction import Reduction

Method = Literal["structured", "plain"]


@dataclass(frozen=True)
class KernelJob:
    """What rectangles of a kernel are to be computed, and how.

    `model`: a `Model`, or a `ForeignNetwork` that the engine computes.
    `method`: "structured" multiplies the Gram matrices of layer inputs and of backpropagated errors (no Jacobian is
    formed); "plain" multiplies per-sample Jacobians. `threads`: for the engine's BLAS, None leaves it alone.
    `device`: where torch computes; the others know "cpu" alone. `params`: names of the parameters that the kernel sums
    over; None means all. `watch`: an engine that is asked for much at once may tell it what share of it was done since
    it told it last.
    """

    model: Any
    reduction: Reduction
    method: Method = "structured"
    threads: int | None = None
    device: str = "cpu"
    params: tuple[str, ...] | None = None
    watch: Callable[[float], None] | None = field(default=None, compare=False, repr=False)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the kernel sums over, in order; no parameter is copied for them."""
        return tuple(self.model.param_shapes()) if self.params is None else self.params


@dataclass(frozen=True, eq=False)
class Slopes:
    """What was observed of the derivatives with respect to the input, for the loss "sobolev".

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

    `model`: a `Model`, or a `ForeignNetwork` that the engine computes. `rates`: learning rate by parameter name.
    `clip_norm`: gradients are multiplied by min(1, clip_norm / their norm over all parameters together). `slopes`: of
    all samples, for the loss "sobolev" alone. `linearized`: what is trained is f(x) + J(x) (theta - theta_0), with f
    and J at the parameters theta_0 of `model`, also where a training goes on from other ones; with a loss of outputs
    alone. `threads` and `device` as for `KernelJob`.
    """

    model: Any
    loss: str
    optimizer: Optimiser
    rates: Mapping[str, float]
    clip_norm: float | None = None
    threads: int | None = None
    device: str = "cpu"
    slopes: Slopes | None = None
    linearized: bool = False


@dataclass(frozen=True)
class TrainState:
    """Where a training stands, the same for all engines: what is needed to go on exactly.

    `params`: by name, in the canonical layout. `slots`: for each of the optimiser's slots, an array of each parameter's
    shape by its name. `step`: steps made.
    """

    params: Mapping[str, np.ndarray]
    slots: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    step: int = 0
