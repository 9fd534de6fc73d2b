"""A user's own model in Julia as a network: where a `Model` stands, a `JuliaNetwork` may."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.backends import sites as described
from udlbridge.backends.julia.host import Held, Host
from udlbridge.errors import BackendError, ConversionError, InputError, OptionError, ShapeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import check_dtype, check_extent, check_finite, check_whole
from udlbridge.networks.model import Model
from udlbridge.networks.parameters import checked_arrays, checked_dtype
from udlbridge.networks.selection import Selection, selected_names
from udlbridge.networks.several import check_single
from udlbridge.options import brief
from udlbridge.words import DtypeWord


@dataclass(frozen=True)
class Look:
    """What a model in Julia is at the moment. `rows`: of the table that tokens name, 0 where samples are numbers."""

    name: str
    params: dict[str, np.ndarray]
    dtype: str
    rows: int


class JuliaNetwork(ForeignNetwork):
    """Any callable in Julia whose parameters Flux finds: a chain, a layer, an own struct, a graph. Julia computes it.

    Its numbers are read when something is computed, so that a model that is trained in Julia meanwhile is taken as it
    is then. Arguments and results are samples first, as everywhere in Python: the axes of every array are reversed on
    the way, which costs nothing. So images (n, C, H, W) come to the model as Flux has them, (W, H, C, n), and sequences
    (n, T, E) as (E, T, n). Tokens count from 0 here and from 1 there. The parameters of Flux's own layers have
    PyTorch's layout; an array of an own struct has its axes reversed.

    Args:
        host: where Julia is.
        model: what it holds there.

    Raises:
        ConversionError: what Julia cannot make a kernel of: no parameters, training mode, numbers of another type.
    """

    engine = "julia"

    def __init__(self, host: Host, model: Held) -> None:
        self._host, self._model = host, model
        self._outputs: dict[tuple[int, ...], int] = {}
        self._examples: np.ndarray | None = None
        self._as_model: Model | ConversionError | None = None
        self._look()

    @property
    def host(self) -> Host:
        """Where it is."""
        return self._host

    @property
    def number(self) -> int:
        """Under which its host holds it.

        Raises:
            BackendError: it went with its process.
        """
        return self._model.number

    def named(self) -> tuple[Any, ...]:
        """What makes the same network at its host, by `at`."""
        return self.number, self._outputs, self._examples

    @classmethod
    def at(
        cls, host: Host, number: int, outputs: dict[tuple[int, ...], int], examples: np.ndarray | None
    ) -> JuliaNetwork:
        """The network that another process has `named`, at the host itself."""
        network = cls.__new__(cls)
        network._host, network._model = host, Held(host, number)
        network._outputs, network._examples, network._as_model = outputs, examples, None
        return network

    def _look(self) -> Look:
        try:
            found: Look = self._host.call("look", self.number)
        except BackendError as error:
            raise ConversionError(_said(error)) from None
        if found.dtype not in ("float32", "float64"):
            raise ConversionError(
                f"{found.name} has numbers of type {found.dtype.capitalize()}",
                allowed="Float32 or Float64",
                remedy="convert it in Julia: f32(model), or f64(model)",
            )
        return found

    @property
    def name(self) -> str:
        """The name of its type."""
        return self._look().name

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """Copies of the parameters, by name, as they are now."""
        return MappingProxyType(self._look().params)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of its numbers."""
        return np.dtype(self._look().dtype)

    @property
    def takes_tokens(self) -> bool:
        """Whether samples are integers, the numbers of tokens; of an own struct, as far as samples have come."""
        return self._look().rows > 0 or (self._examples is not None and self._examples.dtype.kind == "i")

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Of one sample, as far as samples have come."""
        return None if self._examples is None else self._examples.shape[1:]

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by name."""
        return {name: value.shape for name, value in self.params.items()}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O,), as the model gives it for samples of that shape."""
        shape = tuple(shape)
        if shape not in self._outputs:
            self._try(self.random_batch(shape, 1), "x")
        return (self._outputs[shape],)

    def checked_batch(self, x: Any, name: str = "x") -> np.ndarray:
        """The samples as an array (n, *D) of the model's dtype, or tokens; the model is tried on some.

        Raises:
            InputError, ShapeError, DTypeError: what is wrong with them, as several inputs by name, which models in
                Julia do not take here; outputs that are not (O, n) in Julia, that are random or depend on others.
        """
        check_single(x, name, "the model in Julia")
        look = self._look()
        dtype = np.dtype(look.dtype)
        array = as_array(x, name, wanted=None if look.rows else dtype)
        # A user's own struct may look integers up, and shows it when it gets some.
        tokens = look.rows > 0 or self._looks_up(array, name)
        if tokens:
            check_whole(array, name, "the model in Julia takes tokens")
        else:
            check_dtype(array, name, dtype, "the model in Julia", 'ub.as_network(model).astype("{}")')
        check_extent(array, name)
        if not tokens:
            check_finite(array, name)
        batch = np.ascontiguousarray(array, dtype=np.int64 if tokens else dtype)
        samples = sorted({0, len(batch) // 2, len(batch) - 1})
        self._try(batch[samples], name)
        self._examples = batch[samples]
        return batch

    def _looks_up(self, array: np.ndarray, name: str) -> bool:
        return array.dtype.kind in "iu" and array.ndim > 0 and len(array) > 0 and self._try(array[:1], name)

    def _try(self, some: np.ndarray, name: str) -> bool:
        """Let the model take some samples, and note how many outputs it has; returns whether they are tokens."""
        try:
            self._outputs[some.shape[1:]], tokens = self._host.call("try_out", self.number, some)
        except BackendError as error:
            said = _said(error)
            axes = ", ".join(map(str, (*reversed(some.shape[1:]), "n")))
            kind = ShapeError if "Mismatch" in said or "size" in said else InputError
            raise kind(
                f"{name} with samples of shape {some.shape[1:]}, in Julia ({axes}): {said}",
                allowed="samples first in Python and last in Julia, outputs (O, n) there",
                remedy="look at what the model in Julia makes of such an array",
            ) from None
        return bool(tokens)

    def random_batch(self, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
        """Random samples (n, *shape): drawn from those that came, or normal numbers, or tokens of the first table."""
        generator, look = np.random.default_rng(seed), self._look()
        if self._examples is not None and self._examples.shape[1:] == tuple(shape):
            return self._examples[generator.integers(0, len(self._examples), size=n)]
        if self.takes_tokens:
            seen = 0 if self._examples is None else int(self._examples.max())
            return generator.integers(0, look.rows or seen + 1, size=(n, *shape))
        return generator.standard_normal((n, *shape)).astype(look.dtype)

    def selected(self, params: Selection) -> tuple[str, ...]:
        """The names that `params` means. "readout" is the last layer with parameters, "hidden" are all others."""
        names = list(self.params)
        last = names[-1].rpartition(".")[0]
        readout = [name for name in names if name.rpartition(".")[0] == last]
        words = {"readout": readout, "hidden": [name for name in names if name not in readout]}
        return selected_names(names, params, words)

    def astype(self, dtype: DtypeWord) -> JuliaNetwork:
        """A copy whose real numbers are of that dtype.

        Raises:
            ConversionError: a struct with fields of one type, which keeps its own.
            DTypeError: another dtype.
        """
        name = checked_dtype(dtype)
        copy = self._copy("converted", name)
        if copy.dtype != np.dtype(name):
            raise ConversionError(
                f"{self.name} stays {copy.dtype} when it is converted to {name}",
                allowed="structs whose fields may have numbers of either type, as Dense has",
                remedy="give it a type parameter, as struct Net{A}; W::A; end",
            )
        return copy

    def with_params(self, params: Mapping[str, np.ndarray]) -> JuliaNetwork:
        """A copy of the model with other parameters.

        Raises:
            ParameterError: other names or shapes, or numbers that are not finite.
        """
        values, _ = checked_arrays(params, self.param_shapes(), {}, self.dtype.name)
        return self._copy("with_arrays", list(values.values()))

    def _copy(self, method: str, *args: Any) -> JuliaNetwork:
        return JuliaNetwork(self._host, Held(self._host, self._host.call(method, self.number, *args)))

    def translatable(self) -> Any:
        """The network itself, which `from_flux` may make a `Model` of."""
        return self

    def translated(self, x: np.ndarray | None = None) -> Model | Graph:
        """The same network as a `Model`, or, with samples `x` of its dtype, as the `Graph` of what it computes of such.

        Raises:
            ConversionError: what has no translation.
        """
        model: Model | Graph = self._host.call("translated_model", self.number, x)
        return model

    def hash(self) -> str:
        """SHA-256 of the types and values of all that is in it, its arrays with them."""
        text, arrays = self._host.call("described", self.number)
        digest = hashlib.sha256(text.encode())
        for array in arrays:
            digest.update(f"{array.dtype}:{array.shape};".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def layer_kinds(self) -> dict[str, str]:
        """Of the layers of a chain, those of chains inside it one by one, by number: "0", "1.0".

        Raises:
            ConversionError: the model is no chain.
        """
        assert self._examples is not None
        return {name: kind for name, (kind, _) in self._layers(self._examples[:1]).items()}

    def layer_outputs(self, x: np.ndarray, layer: str | None = None) -> dict[str, np.ndarray]:
        """(n, *shape) by number of layer.

        Raises:
            ConversionError: the model is no chain.
            OptionError: it has no such layer.
        """
        found = {name: value for name, (_, value) in self._layers(x).items()}
        if layer is None:
            return found
        if layer not in found:
            raise OptionError(
                f"layer={brief(layer)} of {self.name}", allowed=", ".join(found), remedy="name one of these"
            )
        return {layer: found[layer]}

    def _layers(self, x: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
        found: dict[str, tuple[str, np.ndarray]] = self._host.call("layers", self.number, x)
        if not found:
            raise self._lacks("layers")
        return {name: (kind, value) for name, (kind, value) in found.items() if len(value) == len(x)}

    def _lacks(self, what: str) -> ConversionError:
        return ConversionError(
            f"{what} of {self.name}, a model in Julia",
            allowed="a Chain, for its layers; a udlbridge.Model, for training",
            remedy="translate it: ub.from_flux(model)",
        )

    def described_sites(self, sample_shape: tuple[int, ...], names: Collection[str]) -> list[described.Site]:
        """Those of its translation, where it has one; else all parameters count elementwise, which is the most."""
        if self._as_model is None:
            try:
                found = self.translated()
                assert isinstance(found, Model)  # graphs take an example
                self._as_model = found
            except ConversionError as error:
                self._as_model = error
        if isinstance(self._as_model, Model):
            return described.sites(self._as_model, sample_shape, names)
        return [described.Elementwise(sum(prod(shape) for name, shape in self.param_shapes().items() if name in names))]

    def activation_numbers(self, sample_shape: tuple[int, ...]) -> int:
        """Numbers that one sample's forward pass holds: outputs of layers, or as many as parameters."""
        batch = self.random_batch(sample_shape, 1)
        found = self._host.call("layers", self.number, batch)
        return int(batch.size + (sum(value.size for _, value in found.values()) or self.n_params))


def _said(error: BackendError) -> str:
    """What Julia said, without its trace and without the name of the function that was called."""
    return error.given.partition(": ")[2].partition("\nStacktrace")[0].removeprefix("ArgumentError: ")


@described.sites.register
def _sites(model: JuliaNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None) -> list[Any]:
    return model.described_sites(sample_shape, tuple(model.params) if params is None else params)


@described.activation_numbers.register
def _activation_numbers(
    model: JuliaNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None
) -> int:
    return model.activation_numbers(sample_shape)
