"""The face that somebody's own network shows, so that it can stand where a `Model` does: an adapter of its engine."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from udlbridge.errors import ConversionError
from udlbridge.words import DtypeWord


def wants_tokens(error: Exception) -> bool:
    """Whether a network that was given numbers says by its error that it looks integers up in a table.

    Torch has no error of its own for this, so its words are read.
    """
    return re.search(r"\bLong\b|LongTensor|index tensor|integer", str(error)) is not None


class ForeignNetwork(ABC):
    """A network that is not a `Model`, with named parameters; what kernels, plans and stores ask of one.

    `engine`: the name of the one that alone computes it; None for a network that every engine computes that knows its
    `operations`.
    """

    engine: str | None = None

    @property
    def device(self) -> str:
        """Where it computes, if nothing else is asked for."""
        return "cpu"

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations that it consists of, as far as it is made of those of graphs."""
        return frozenset()

    @property
    def takes_several(self) -> bool:
        """Whether samples are several inputs, the fields of a structured array, as far as it is known."""
        return False

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, where it is known before samples come."""
        return None

    @property
    def name(self) -> str:
        """What it is called: the name of its class, say."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.name}"

    @property
    @abstractmethod
    def params(self) -> Mapping[str, np.ndarray]:
        """Read-only parameters by name, in order."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of kernels, and of all that is computed from the network."""

    @property
    def computes_in(self) -> str:
        """The dtype that it computes in, which may have fewer digits than `dtype`: "float16" or "bfloat16"."""
        return self.dtype.name

    @property
    @abstractmethod
    def takes_tokens(self) -> bool:
        """Whether samples are integers, the numbers of tokens."""

    @abstractmethod
    def param_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter by name."""

    @abstractmethod
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of f(x) for one sample of the given shape. Raises `ShapeError` where it cannot take such samples."""

    @abstractmethod
    def checked_batch(self, x: Any, name: str) -> np.ndarray:
        """The samples as an array with them along the first axis, or an error that says what is wrong with it."""

    def checked_passing(self, x: Any, name: str) -> np.ndarray:
        """As `checked_batch`, for samples that all pass through it next: what that shows may be left to it."""
        return self.checked_batch(x, name)

    @abstractmethod
    def random_batch(self, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
        """Random samples (n, *shape) that it takes; like those that came before, if any did."""

    @abstractmethod
    def selected(self, params: Any) -> tuple[str, ...]:
        """The names of the parameters that `params` means: all, names, patterns, "readout", "hidden"."""

    def names_by_layer(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Names of parameters by the path of their module; a parameter of the network itself is by its own name."""
        groups: dict[str, tuple[str, ...]] = {}
        for name in names:
            path = name.rpartition(".")[0] or name
            groups[path] = (*groups.get(path, ()), name)
        return groups

    @abstractmethod
    def astype(self, dtype: DtypeWord) -> ForeignNetwork:
        """A copy that computes in "float32" or "float64"."""

    def _lacks(self, what: str) -> ConversionError:
        """The error of a network that is not a module, where only modules have this."""
        return ConversionError(
            f"{what} of a {self.name}", allowed="a torch.nn.Module", remedy="give ub.to_torch(network), which is one"
        )

    def with_params(self, params: Mapping[str, np.ndarray]) -> ForeignNetwork:
        """A copy with other parameters, of the same names and shapes. Raises `ParameterError` for others, and NaN."""
        raise self._lacks("other parameters")

    def translatable(self) -> Any:
        """What `from_torch` may make a `Model` of. Raises `ConversionError` where that would be another network."""
        raise self._lacks("a translation")

    def capturable(self) -> tuple[Any, Any]:
        """The module whose operations make a `Graph`, and which of its outputs counts. Raises as `translatable`."""
        return self.translatable(), None

    def padding_rows(self) -> Mapping[str, int]:
        """By the names of tables their rows of padding tokens: looked up, these have no derivatives."""
        return {}

    def check_derivatives(self, names: Iterable[str]) -> None:  # noqa: B027 - of most nothing is known beforehand
        """Raise `ConversionError` where derivatives by the parameters `names` are known not to be followed to any."""

    def check_sites(self, names: Iterable[str]) -> None:
        """`check_derivatives`, before the sites of a kernel are looked for, which may show it too."""
        self.check_derivatives(names)

    def check_input_derivatives(self) -> None:  # noqa: B027 - as above
        """Raise `ConversionError` where derivatives by the samples are known not to be followed to them."""

    @abstractmethod
    def hash(self) -> str:
        """SHA-256 of what it computes: of its architecture and its numbers."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of it holds: its parameters by name. Its architecture and its buffers are its owner's."""
        return dict(self.params)

    def spec(self) -> dict[str, Any]:
        """What tells it from other architectures, JSON-ready: its name, its dtype, the shapes of its parameters."""
        shapes = {name: list(shape) for name, shape in self.param_shapes().items()}
        return {"module": self.name, "dtype": self.dtype.name, "params": shapes}

    @property
    def layer_kinds(self) -> Mapping[str, str]:
        """The layers, in the order in which samples come by, by path with the names of their classes.

        Raises:
            ConversionError: the network is not a module.
        """
        raise self._lacks("layers")

    @property
    def layer_settings(self) -> Mapping[str, str]:
        """The settings of layers by path, as their own library writes them, where it has words for them."""
        return {}

    @property
    def layer_aliases(self) -> Mapping[str, str]:
        """Other paths of layers that have several, and the path by which they are known."""
        return {}

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        """Arrays of numbers by name that are not trained, as the statistics of BatchNorm, as far as they are known."""
        return {}

    def layer_outputs(self, x: np.ndarray, layer: str | None = None) -> dict[str, np.ndarray]:
        """(n, *shape) by the path of every layer, or of the one that is named, which may hold others.

        Raises `OptionError` where there is no such layer.
        """
        raise self._lacks("layers")

    def layer_signals(self, x: np.ndarray, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By the path of every layer its outputs, and the gradient of sum (f(x) - y)^2 at them, (n, *shape) each.

        Raises:
            ConversionError: the network is not a module.
        """
        raise self._lacks("layers")

    def ending(self) -> str | None:
        """What makes the outputs (n, O) of logits, as far as it is known: "Softmax", "LogSoftmax" or "sigmoid"."""
        return None

    def check_training(self) -> None:
        """Raise `ConversionError` for one that cannot be trained as it is."""
        raise self._lacks("training")

    @property
    def n_params(self) -> int:
        """P, the number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.param_shapes().values())
