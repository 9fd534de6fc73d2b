"""`Graph`: a frozen network of operations on named values, with named parameters. It computes nothing; engines do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from udlbridge.displays import Displayed
from udlbridge.errors import ModelFileError, ParameterError
from udlbridge.networks.files import read_safetensors
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.frozen import FrozenNetwork, check_own_ending
from udlbridge.networks.graphs.arrays import INPUT, check_names, common_dtype, taken_arrays
from udlbridge.networks.graphs.derivatives import check_followed
from udlbridge.networks.graphs.endings import ending_of
from udlbridge.networks.graphs.entries import (
    check_sample_shape,
    checked_entries,
    checked_samples,
    random_samples,
    settings_of,
    value_name,
)
from udlbridge.networks.graphs.lookups import token_bounds
from udlbridge.networks.graphs.node import Node, checked_nodes, checked_output, values_of
from udlbridge.networks.graphs.specs import graph_spec, parsed_graph
from udlbridge.networks.graphs.values import Kind, Shape, Value
from udlbridge.networks.init import FLOATS
from udlbridge.networks.parameters import checked_dtype
from udlbridge.networks.selection import Selection, selected_names
from udlbridge.networks.several import fields_of
from udlbridge.options import checked_mapping
from udlbridge.paths import user_path
from udlbridge.texts import counted
from udlbridge.words import DtypeWord

KINDS: dict[str, Kind] = {"f": "float", "i": "int", "b": "bool"}
"""Kinds of values by the kind of a NumPy dtype."""


class Graph(FrozenNetwork, ForeignNetwork, Displayed):
    """A network as a graph: nodes, each an operation of `udlbridge.networks.graphs.operations` on named values.

    Values are the samples ("x", or of several inputs "x[a]" for the one called "a"), parameters, buffers, and what the
    nodes before give, each by the name of its node. The number of samples is open. Parameters are trained, buffers are
    not; a parameter may go into several nodes.

    Args:
        nodes: in order of evaluation.
        output: name of the value that is f(x), (n, *out). Functions that need a vector get it with `out` in C order.
        params: arrays by name, in any container that `udlbridge.arrays` takes, of one dtype, float32 or float64; lists
            of Python's numbers take that of the others, or `dtype`. They are copied.
        buffers: arrays by name, of the same dtype, int64 or bool.
        sample_shape: of one sample, where there is one input.
        tokens: whether its samples are whole numbers.
        dtype: of a graph without any numbers of its own.
        aliases: further names of parameters, as a shared one has in a state dict, and the names that stand for them.
        inputs: of several, the shape of one sample and the kind ("float", "int" or "bool") by name, in place of
            `sample_shape`; the names of those by position are "0", "1" and so on. Samples are then a dict, or a tuple,
            as functions of the library take them of a module.

    Raises:
        OptionError: neither `sample_shape` nor `inputs`, or both.
        GraphError: an unknown operation, attributes that it does not have, values that are not there or come later (a
            cycle), shapes that do not fit, and an output that is not one row for each sample; it names the node.
        ParameterError: arrays of other dtypes, or that are not finite.

    Examples:
        >>> node = ub.Node("y", "linear", ("x", "w"))
        >>> graph = ub.Graph([node], "y", params={"w": np.ones((1, 2))}, sample_shape=(2,))
        >>> ub.ntk(graph, np.eye(2))
        array([[1., 0.],
               [0., 1.]])
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        output: str,
        *,
        params: Mapping[str, np.ndarray],
        buffers: Mapping[str, np.ndarray] | None = None,
        sample_shape: Sequence[int] | None = None,
        tokens: bool = False,
        dtype: DtypeWord = "float32",
        aliases: Mapping[str, str] | None = None,
        inputs: Mapping[str, tuple[Sequence[int], Kind]] | None = None,
    ) -> None:
        own, others = checked_mapping("params", params), checked_mapping("buffers", buffers)
        arrays = taken_arrays({**own, **others}, checked_dtype(dtype))
        self._params = MappingProxyType({name: arrays[name] for name in own})
        self._buffers = MappingProxyType({name: arrays[name] for name in others})
        self._dtype = common_dtype(self._params, self._buffers, dtype)
        self._aliases = MappingProxyType(checked_mapping("aliases", aliases))
        self._inputs = MappingProxyType(checked_entries(sample_shape, tokens, inputs))
        entered = {value_name(field): value for field, value in self._inputs.items()}
        check_names(entered, self._params, self._buffers, self._aliases)
        self._entered = entered
        self._given = {name: Value(value.shape, KINDS[value.dtype.kind]) for name, value in arrays.items()}
        self._nodes = checked_nodes(nodes, {*entered, *arrays})
        self._output = output
        self._output_shape = checked_output(output, self.values)
        self._hash: str | None = None

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations of its nodes."""
        return frozenset(node.op for node in self._nodes)

    @property
    def inputs(self) -> Mapping[str, Value]:
        """The shape of one sample and the kind of every input by name; "" is the only one."""
        return self._inputs

    @property
    def takes_several(self) -> bool:
        """Whether samples come by name or position, as several inputs."""
        return "" not in self._inputs

    @property
    def sample_shape(self) -> Shape:
        """The shape of one sample; of several inputs (), as that of a structured array."""
        return () if self.takes_several else self._inputs[""].shape

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, in order of evaluation."""
        return self._nodes

    @property
    def output(self) -> str:
        """The name of the value that is f(x)."""
        return self._output

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names of shared parameters, and the names that stand for them."""
        return self._aliases

    @property
    def takes_tokens(self) -> bool:
        """Whether there are no derivatives by samples: they are whole numbers, those of tokens, or several inputs."""
        return self.takes_several or self._inputs[""].kind == "int"

    @property
    def full_output_shape(self) -> Shape:
        """The shape of f(x) of one sample, as its axes are."""
        return self._output_shape

    @property
    def n_outputs(self) -> int:
        """O, the number of outputs of a sample."""
        return int(np.prod(self._output_shape, dtype=np.int64))

    def values(self, n: int) -> dict[str, Value]:
        """Shape and kind of every value for `n` samples, by name."""
        samples = {name: Value((n, *value.shape), value.kind) for name, value in self._entered.items()}
        return values_of(self._nodes, {**samples, **self._given}, n)

    def entering(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Samples that were checked as values of the graph, by name."""
        return {value_name(field): part for field, part in fields_of(x).items()}

    def param_shapes(self) -> dict[str, Shape]:
        """The shape of every parameter by name."""
        return {name: value.shape for name, value in self._params.items()}

    def output_shape(self, shape: Shape) -> Shape:
        """(O,): more axes are taken in C order. Raises `ShapeError` for samples of another shape than the graph's."""
        check_sample_shape(tuple(shape), self.sample_shape, "x")
        return (self.n_outputs,)

    def checked_batch(self, x: Any, name: str = "x") -> np.ndarray:
        """The samples as an array (n, *D) of the graph's dtype, or whole numbers as int64; (n,) of several inputs.

        Raises:
            DTypeError, ShapeError, InputError: what is wrong with them.
        """
        return checked_samples(x, name, self._inputs, self.dtype, self._bounds)

    def _bounds(self, field: str) -> np.ndarray:
        """How many tokens there are at each place of an input: rows of the smallest table, 0 where none is asked."""
        return self._token_bounds[value_name(field)]

    @cached_property
    def _token_bounds(self) -> dict[str, np.ndarray]:
        whole_ones = {name: value.shape for name, value in self._entered.items() if value.kind == "int"}
        return token_bounds(self._nodes, self._buffers, self.values, whole_ones)

    def random_batch(self, shape: Shape, n: int, seed: int = 0) -> np.ndarray:
        """Random samples (n, *shape): normal numbers, or tokens; of several inputs, of the shapes that these have."""
        self.output_shape(shape)
        return random_samples(n, self._inputs, self.dtype, self._bounds, seed)

    def selected(self, params: Selection) -> tuple[str, ...]:
        """The names that `params` means; a shared parameter has several, of which one stands for all.

        "readout" is the last module with parameters of its own, "hidden" are all others.
        """
        if not self._params:
            return selected_names([], params)
        last = list(self._params)[-1].rpartition(".")[0]
        readout = [name for name in self._params if name.rpartition(".")[0] == last]
        words = {"readout": readout, "hidden": [name for name in self._params if name not in readout]}
        found = selected_names([*self._params, *self._aliases], params, words)
        wanted = {self._aliases.get(name, name) for name in found}
        return tuple(name for name in self._params if name in wanted)

    def check_derivatives(self, names: Iterable[str]) -> None:
        """Raise `ConversionError` where no path of numbers leads from the parameters `names` to the output."""
        if counted := tuple(names):
            more = f" and {len(counted) - 3} more" if len(counted) > 3 else ""
            check_followed(self, counted, f"the parameters {', '.join(counted[:3])}{more}")

    def check_input_derivatives(self) -> None:
        """Raise `ConversionError` where no path of numbers leads from the samples, which are numbers, to the output."""
        if not self.takes_tokens:
            check_followed(self, (INPUT,), "the samples")

    def check_training(self) -> None:
        """A graph can be trained as it is: its numbers have one dtype."""

    def ending(self) -> str | None:
        """What makes the outputs (n, O) of logits: "Softmax", "LogSoftmax", "sigmoid", or None of these."""
        return ending_of(self)

    def with_params(self, params: Mapping[str, np.ndarray]) -> Graph:
        """The same graph with other parameters, all of them.

        Raises:
            ParameterError: other names, shapes or dtypes.
        """
        arrays = taken_arrays(params, self._dtype)
        shapes = {name: value.shape for name, value in arrays.items()}
        if shapes != self.param_shapes():
            raise ParameterError(
                f"parameters {', '.join(map(str, shapes))} that do not fit the graph's",
                allowed="; ".join(f"{name} {shape}" for name, shape in self.param_shapes().items()),
                remedy="give exactly these names and shapes",
            )
        return self._with(arrays, self._buffers)

    def with_nodes(self, nodes: Iterable[Node], buffers: Mapping[str, np.ndarray] | None = None) -> Graph:
        """The graph of other nodes on the same samples, parameters and buffers, and on further `buffers` by name.

        The last of the nodes gives the output.

        Raises:
            GraphError: as the constructor.
        """
        return self._with(self._params, {**self._buffers, **(buffers or {})}, nodes=tuple(nodes))

    def astype(self, dtype: DtypeWord) -> Graph:
        """The same graph with its numbers converted to "float32" or "float64"."""
        name = checked_dtype(dtype)
        arrays = {key: v.astype(FLOATS[name]) if v.dtype.kind == "f" else v for key, v in self.arrays.items()}
        return self._with(
            {key: arrays[key] for key in self._params}, {key: arrays[key] for key in self._buffers}, dtype=name
        )

    def _with(
        self,
        params: Mapping[str, np.ndarray],
        buffers: Mapping[str, np.ndarray],
        dtype: DtypeWord | None = None,
        nodes: tuple[Node, ...] | None = None,
    ) -> Graph:
        """With other arrays; and with other nodes, of which the last gives the output."""
        return Graph(
            self._nodes if nodes is None else nodes,
            self._output if nodes is None else nodes[-1].name,
            params=params,
            buffers=buffers,
            dtype=dtype or self._dtype,
            aliases=self._aliases,
            **settings_of(self._inputs),
        )

    def spec(self) -> dict[str, Any]:
        """The graph as JSON-ready data, without its arrays."""
        return graph_spec(self)

    def _computed_hash(self) -> str:
        digest = hashlib.sha256(json.dumps(self.spec(), sort_keys=True).encode())
        for name, value in self.arrays.items():
            digest.update(f"{name}:{value.dtype}:{value.shape};".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Graph:
        """Read a graph that `save` wrote. Nothing in the file can execute code.

        Raises:
            ModelFileError: another ending than .safetensors; the file is missing, truncated, of another program, of
                another format, or too large.
            GraphError, ParameterError: its contents are not a valid graph.
        """
        source = user_path(path)
        check_own_ending(source, "a Graph")
        metadata, arrays = read_safetensors(source, "model", ModelFileError)
        return Graph.from_spec(metadata.get("udlbridge", ""), arrays, str(path))

    @staticmethod
    def from_spec(spec: str, arrays: Mapping[str, np.ndarray], source: str = "the spec") -> Graph:
        """The graph of a spec in JSON text, as `json.dumps(graph.spec())` gives it, with its arrays.

        Raises:
            As `load`; errors name `source`.
        """
        found = parsed_graph(spec, source)
        names = [*found["params"], *found["buffers"]]
        if set(names) != set(arrays) or len(set(names)) != len(names):
            odd = sorted(set(names) ^ set(arrays)) or names
            raise ParameterError(
                f"{source}: the spec and the arrays have different names ({', '.join(odd[:5])})",
                allowed="an array for every parameter and buffer, and no other",
                remedy="save it again",
            )
        return Graph(
            found["nodes"],
            found["output"],
            params={name: arrays[name] for name in found["params"]},
            buffers={name: arrays[name] for name in found["buffers"]},
            dtype=found["dtype"],
            aliases=found["aliases"],
            **found["samples"],
        )

    def __reduce__(self) -> tuple[Callable[..., Graph], tuple[str, dict[str, np.ndarray]]]:
        """What pickle keeps: neither read-only mappings nor the flag of read-only arrays survive it."""
        return Graph.from_spec, (json.dumps(self.spec()), self.arrays)

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a row for each node; shapes are those of one sample, with its axis."""
        values, found = self.values(1), []
        counted: set[str] = set()
        for node in self._nodes:
            own = [name for name in dict.fromkeys(node.inputs) if name in self._params]
            new = [name for name in own if name not in counted]  # a shared parameter counts where it is first
            counted.update(new)
            found.append({
                "node": node.name, "operation": node.op, "inputs": ", ".join(node.inputs),
                "shape": values[node.name].shape, "parameters": sum(self._params[name].size for name in new),
                "of": node.source,
            })  # fmt: skip
        return found

    def __repr__(self) -> str:
        samples = {field: value.shape for field, value in self._inputs.items()}
        shapes = f"{samples if self.takes_several else self.sample_shape} -> {self._output_shape}"
        nodes, params = counted(len(self._nodes), "node"), counted(self.n_params, "parameter")
        return f"Graph({nodes}, {shapes}, dtype={self._dtype!r}, {params})"
