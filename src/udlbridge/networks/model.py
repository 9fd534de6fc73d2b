"""`Model`: a frozen list of layers with named NumPy parameters. It computes nothing; backends do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from udlbridge.arrays import as_array, has_dtype
from udlbridge.calls import explained
from udlbridge.displays import COLUMNS, Displayed
from udlbridge.errors import LayerError, ModelFileError
from udlbridge.networks.files import read_safetensors
from udlbridge.networks.frozen import OWN, FrozenNetwork, other_formats
from udlbridge.networks.init import FLOATS, initial_buffers, initial_parameters
from udlbridge.networks.layers import Layer, Shape, chain, check_chain, shape_after
from udlbridge.networks.parameters import as_parameter, checked_arrays, checked_dtype
from udlbridge.networks.specs import parsed_spec, require_buffers, spec_of
from udlbridge.networks.summaries import Summary
from udlbridge.paths import user_path
from udlbridge.texts import counted, kind_of
from udlbridge.words import DtypeWord, FloatWord


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Model(FrozenNetwork, Displayed):
    """A network: layers, and arrays named `<index of the layer>.weight`, `.bias` and so on.

    Two kinds of arrays are kept apart. `params` are trained: Jacobians, kernels and P are about them. `buffers` belong
    to the network and are not trained (BatchNorm's `running_mean` and `running_var`). Both are in the model's file and
    in its hash, and their names never clash.

    Args:
        layers: the layers in order of evaluation.
        params: arrays by name, in the canonical layout: Dense (out, in), convolutions (out, in/groups, *kernel), in any
            container that `udlbridge.arrays` takes. Their dtype becomes the model's; lists of Python's numbers have
            none, and take that of the others, or `dtype`. They are copied. Buffers may be among them; those that are
            not begin at zero (means) and one (variances). Without any, Glorot-uniform weights and zero biases are drawn
            from `seed`.
        seed: for `numpy.random.default_rng`; unused when `params` are given.
        dtype: "float32" or "float64"; unused where `params` have a dtype.

    Raises:
        LayerError: if something in `layers` is not a layer, there are none, or an Embedding is not the first.
        ShapeError: if two neighbouring layers do not fit.
        ParameterError: if a name is missing, unknown, misshapen, or a value is not finite.
        OptionError, DTypeError: a `seed` that is not a whole number of at least 0, or another `dtype`.

    Examples:
        >>> model = ub.Model([ub.Dense(784, 60, "sigmoid"), ub.Dense(60, 10)], seed=0)
        >>> model.n_params, list(model.params)
        (47710, ['0.weight', '0.bias', '1.weight', '1.bias'])
    """

    __slots__ = ("_layers",)

    @explained(called="Model", positional="the layers in one list, as Model([Dense(2, 3), Dense(3, 1)])")
    def __init__(
        self,
        layers: Layer | Iterable[Layer],
        params: Mapping[str, np.ndarray] | None = None,
        *,
        seed: int = 0,
        dtype: DtypeWord = "float32",
    ) -> None:
        if isinstance(params, Layer):
            raise LayerError(
                "layers one by one", allowed="the layers in one list", remedy="as Model([Dense(2, 3), Dense(3, 1)])"
            )
        self._layers = chain(layers)
        if not self._layers:
            raise LayerError(
                "a model without layers", allowed="at least one layer", remedy="add one, as ub.Dense(2, 1)"
            )
        for index, layer in enumerate(self._layers):
            if not isinstance(layer, Layer):
                raise LayerError(
                    f"item {index} of the layers is {kind_of(layer)}",
                    allowed="layers of udlbridge, as ub.Dense(784, 60, 'sigmoid')",
                    remedy="describe the network with them",
                )
        check_chain(self._layers)
        self._hash: str | None = None
        if params is None:
            self._dtype = checked_dtype(dtype)
            values = initial_parameters(self._layers, seed, self._dtype)
            buffers = initial_buffers(self._layers, self._dtype)
        else:
            shapes = self.buffer_shapes()
            values, self._dtype = checked_arrays(params, self.param_shapes(), shapes, checked_dtype(dtype))
            given = {name: values.pop(name) for name in shapes if name in values}
            buffers = initial_buffers(self._layers, self._dtype) | given
        self._params = MappingProxyType({name: _frozen(value) for name, value in values.items()})
        self._buffers = MappingProxyType({name: _frozen(value) for name, value in buffers.items()})

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order of evaluation."""
        return self._layers

    @property
    def takes_tokens(self) -> bool:
        """Whether samples are integers, the numbers of tokens: the model begins with an Embedding."""
        return self._layers[0].of_tokens

    def param_shapes(self) -> dict[str, Shape]:
        """The shape of every parameter by name, as the layers ask for them."""
        return {
            f"{index}.{name}": shape
            for index, layer in enumerate(self._layers)
            for name, shape in layer.param_shapes().items()
        }

    def buffer_shapes(self) -> dict[str, Shape]:
        """The shape of every buffer by name, as the layers ask for them."""
        return {
            f"{index}.{name}": shape
            for index, layer in enumerate(self._layers)
            for name, shape in layer.buffer_shapes().items()
        }

    def layer_params(self, index: int) -> dict[str, np.ndarray]:
        """The parameters of one layer, without the index in their names."""
        return {name: self._params[f"{index}.{name}"] for name in self._layers[index].param_shapes()}

    def layer_arrays(self, index: int) -> dict[str, np.ndarray]:
        """The parameters and buffers of one layer, without the index in their names."""
        own = {name: self._buffers[f"{index}.{name}"] for name in self._layers[index].buffer_shapes()}
        return self.layer_params(index) | own

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of f(x) for one sample of the given shape.

        Raises:
            ShapeError: if a layer cannot take what comes to it; it names the layer.
        """
        return shape_after(self._layers, shape)

    def with_params(self, params: Mapping[str, np.ndarray]) -> Model:
        """The same layers with other parameters (all of them); buffers stay unless they are among them.

        Raises:
            ParameterError: a name is missing, unknown or misshapen, or a value is not finite.
        """
        buffers = self._buffers_for(params) if self._buffers and isinstance(params, Mapping) else {}
        return Model(self._layers, {**buffers, **params} if buffers else params, dtype=self._dtype)

    def _buffers_for(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The buffers in the dtype of the new parameters, which decides that of the model."""
        found = {as_parameter(name, value, self.dtype).dtype for name, value in params.items() if has_dtype(value)}
        dtype = found.pop() if len(found) == 1 else self.dtype
        return {name: value.astype(dtype) for name, value in self._buffers.items()}

    def astype(self, dtype: DtypeWord) -> Model:
        """The same model with its parameters converted to "float32" or "float64".

        Raises:
            DTypeError: another dtype.
            ParameterError: a number is too large for float32.
        """
        target = FLOATS[checked_dtype(dtype)]
        with np.errstate(over="ignore"):  # a number that is too large is refused by its name
            values = {name: value.astype(target) for name, value in self.arrays.items()}
        return Model(self._layers, values, dtype=target)

    def spec(self) -> dict[str, Any]:
        """The architecture as JSON-ready data, without parameters."""
        return spec_of(self._layers, self._dtype)

    def _computed_hash(self) -> str:
        digest = hashlib.sha256(json.dumps(self.spec(), sort_keys=True).encode())
        for name, value in self.arrays.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, by the ending of the name: .safetensors, .npz, .pt and .pth (a state dict), .json (layers).

        .pt and .pth hold the state dict of `udlbridge.to_torch(model)`, without the layers; .json holds the layers
        alone; UDLBridge in Julia writes and reads .safetensors.

        Raises:
            ModelFileError: another ending, or the disk refuses.
            TorchUnavailable: .pt, and PyTorch is not installed.
        """
        target = user_path(path)
        if target.suffix == OWN:
            super().save(path)
        else:
            other_formats().write_network(self, target)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        spec: str | os.PathLike[str] | None = None,
        strip: str | None = None,
        dtype: DtypeWord | None = None,
    ) -> Model:
        """Read a model that `save` wrote, by the ending of the name. Nothing in the file can execute code.

        Args:
            path: .safetensors, .npz, or .pt and .pth, which hold arrays alone.
            spec: a JSON file with the layers, for those.
            strip: what to take off the names of arrays: "auto" for what wrappers put before them ("module.",
                "_orig_mod.", Lightning's attribute), or a prefix. A checkpoint's state dict is found in it.
            dtype: "float32" or "float64", to which numbers are converted; half precision is read in no other way.

        Raises:
            ModelFileError: if the file is missing, truncated, of another program, format or format version; names
                that do not fit, where taking off a prefix would help.
            DTypeError: a `dtype` that models do not have.
            OptionError: a `strip` that does not fit.
        """
        source = user_path(path)
        if source.suffix != OWN or spec is not None or strip is not None or dtype is not None:
            layers = None if spec is None else user_path(spec)
            found: Model = other_formats().read_network(source, layers, strip, dtype)
            return found
        metadata, arrays = read_safetensors(source, "model", ModelFileError)
        return Model.from_spec(metadata.get("udlbridge", ""), arrays, str(path))

    @staticmethod
    def from_spec(spec: str, params: Mapping[str, np.ndarray], source: str = "the spec") -> Model:
        """The model of a spec in JSON text, as `json.dumps(model.spec())` gives it, with its parameters and buffers.

        Raises:
            ModelFileError: no spec, an unknown kind of layer, or another format version; it names `source`.
            ParameterError: arrays that do not fit the layers, or parameters or buffers that are missing.
        """
        layers, dtype = parsed_spec(spec, source)
        require_buffers(layers, params, source)
        return Model(layers, params, dtype=dtype)

    def __getstate__(self) -> tuple[tuple[Layer, ...], dict[str, np.ndarray], FloatWord]:
        """What pickle keeps: neither read-only mappings nor the flag of read-only arrays survive it."""
        return self._layers, self.arrays, self._dtype

    def __setstate__(self, state: tuple[tuple[Layer, ...], dict[str, np.ndarray], FloatWord]) -> None:
        layers, arrays, dtype = state
        Model.__init__(self, layers, arrays, dtype=dtype)

    def summary(self, x: Any = None) -> Summary:
        """A table of the layers: what each is, the shape of one sample after it, and its parameters.

        Args:
            x: samples (n, *D), for the shapes; without them they are left out where the layers do not say them.

        Raises:
            ShapeError: a layer cannot take such samples.
            DTypeError, InputError: they are no numbers.
        """
        return Summary.of(self, None if x is None else as_array(x, wanted=self.dtype).shape[1:])

    def as_rows(self) -> Sequence[Mapping[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return self.summary().as_rows()

    def __repr__(self) -> str:
        layers = ", ".join(repr(layer) for layer in self._layers)
        line = f"Model([{layers}], dtype={self._dtype!r}, {counted(self.n_params, 'parameter')})"
        return line if len(line) <= COLUMNS else str(self.summary().short())
