"""Measurements in the course of a training: kernels and alignments on a fixed set of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from udlbridge.analysis.alignments import alignment
from udlbridge.analysis.features import feature_kernel
from udlbridge.arrays import as_array
from udlbridge.backends.reduction import Outputs, is_list
from udlbridge.errors import NumericalError, OptionError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_list, whole
from udlbridge.training.checksums import checksum
from udlbridge.words import EngineWord

Measurement = Mapping[str, np.ndarray | float]
Measure = Callable[[Model], Measurement]


@runtime_checkable
class Callback(Protocol):
    """What `udlbridge.train` calls before the first step and then after every `every` steps.

    Measurements of one callback have the same names and shapes each time; `TrainingRun.records[name]` stacks them. One
    that has a method `spec()`, JSON-ready, is compared with that of the run that is resumed.
    """

    @property
    def name(self) -> str:
        """The key in `TrainingRun.records`; no two callbacks of a training share it."""

    @property
    def every(self) -> int:
        """How many steps lie between two measurements."""

    def begin(self, start: Model, backend: EngineWord) -> Measure:
        """What measures a model, given the model before training and the engine that trains."""


QUANTITIES: dict[str, str] = {
    "ntk": "the neural tangent kernel, (n, n)",
    "feature_kernel": "phi phi' of one layer, (n, n)",
    "ntk_alignment": "centred alignment of the neural tangent kernel with `target`",
    "feature_alignment": "centred alignment of the feature kernel with `target`",
    "ntk_change": "|K_t - K_0|_F / |K_0|_F of the neural tangent kernel: small if training is lazy, large if rich",
}
"""What a `Probe` can measure."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Measures kernels on the samples `x` every `every` steps.

    Args:
        x: samples (n, *D), of the model's dtype.
        every: steps between two measurements.
        quantities: some of `QUANTITIES`.
        target: (n, n), what the alignments are taken with, as `label_kernel(y)`.
        layer: whose features; -2 is what a linear readout sees.
        outputs: the reduction of the neural tangent kernel; for alignments one that gives (n, n).
        name: the key in `TrainingRun.records`.
        device: where torch computes the neural tangent kernel, as for `udlbridge.ntk`.

    Raises:
        OptionError: a quantity that does not exist, an alignment without a target, or a number that is not a whole one.

    Source of ntk_change: Chizat, Oyallon, Bach (2019), on lazy training.

    Examples:
        >>> probe = ub.Probe(np.eye(2), every=1)
        >>> model = ub.Model([ub.Dense(2, 1)], dtype="float64")
        >>> run = ub.train(model, np.eye(2), np.ones((2, 1)), epochs=2, loss="mse", callbacks=[probe], progress=False)
        >>> run.records["probe"]["ntk_change"]  # the kernel of a linear network never changes
        array([0., 0., 0.])
    """

    x: np.ndarray
    every: int
    quantities: tuple[str, ...] = ("ntk_change",)
    target: np.ndarray | FactoredKernel | None = None
    layer: int = -2
    outputs: Outputs = "trace"
    name: str = "probe"
    device: Any = None

    def __post_init__(self) -> None:
        # A file of the run holds these as JSON, which knows Python's numbers alone.
        object.__setattr__(self, "every", checked_count("every", self.every, 1))
        layer = whole(self.layer)
        if layer is None:
            raise OptionError(f"layer={self.layer!r}", allowed="a whole number", remedy="layers count from 0")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "outputs", _plain(self.outputs))
        given: Any = self.quantities
        names = ", ".join(QUANTITIES)
        named = [given] if isinstance(given, str) else checked_list("quantities", given, names, "name some of these")
        if not named or not all(isinstance(quantity, str) and quantity in QUANTITIES for quantity in named):
            raise OptionError(f"quantities={self.quantities!r}", allowed=names, remedy="name some of these")
        object.__setattr__(self, "quantities", tuple(map(str, named)))
        if self.target is None and any(quantity.endswith("_alignment") for quantity in self.quantities):
            raise OptionError(
                "an alignment without a target", allowed="target=(n, n)", remedy="target=ub.label_kernel(y)"
            )

    def spec(self) -> dict[str, Any]:
        """All that determines the measurements, JSON-ready: a run is resumed with the same.

        Raises:
            InputError, DTypeError, ShapeError: `x` or `target` is not an array of numbers.
        """
        return {
            "every": self.every,
            "quantities": list(self.quantities),
            "x": checksum(as_array(self.x, "the probe's x")),
            "target": None if self.target is None else checksum(as_array(self.target, "the target", wanted=np.float64)),
            "layer": self.layer,
            "outputs": self.outputs,
        }

    def begin(self, start: Model, backend: EngineWord) -> Measure:
        """The measurements, with K_0 computed once if it is needed.

        Raises:
            NumericalError: the change of a kernel is asked for that is zero at the start.
            InputError, DTypeError, ShapeError: the network cannot take `x`.
        """
        checked_samples(start, self.x, "the probe's x")
        first = self._ntk(start, backend) if "ntk_change" in self.quantities else None
        size = None if first is None else float(np.linalg.norm(first.astype(np.float64)))
        if size == 0.0:
            raise NumericalError("the neural tangent kernel of the start is zero", remedy="start from other weights")

        def measure(model: Model) -> Measurement:
            found: dict[str, np.ndarray | float] = {}
            wanted = {quantity.split("_")[0] for quantity in self.quantities}
            kernel = self._ntk(model, backend) if "ntk" in wanted else None
            phi = feature_kernel(model, self.x, layer=self.layer, backend=backend) if "feature" in wanted else None
            for quantity in self.quantities:
                own = kernel if quantity.startswith("ntk") else phi
                assert own is not None
                if quantity == "ntk_change":
                    assert kernel is not None
                    assert first is not None
                    assert size is not None
                    found[quantity] = float(np.linalg.norm(kernel.astype(np.float64) - first)) / size
                elif quantity.endswith("_alignment"):
                    assert self.target is not None
                    found[quantity] = alignment(own, self.target)
                else:
                    found[quantity] = np.asarray(own)
            return found

        return measure

    def _ntk(self, model: Model, backend: EngineWord) -> np.ndarray:
        return ntk(model, self.x, outputs=self.outputs, backend=backend, device=self.device)


def _plain(outputs: Any) -> Any:
    """`outputs` in Python's own numbers where it has any; whether there are such outputs is known with the network."""
    if is_list(outputs):
        return [_plain(output) for output in outputs]
    number = whole(outputs)
    return outputs if number is None else number
