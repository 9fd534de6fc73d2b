"""A graph while it is built from an exported program: values, constants, and where everything comes from."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from udlbridge.errors import ConversionError
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.graphs.values import Extent, PerSample
from udlbridge.texts import kind_of


class Unfit(Exception):  # noqa: N818 - it becomes a ConversionError where the operation is known
    """Why an operation has no translation."""


class OtherDtype(Unfit):
    """It computes in another dtype than the module, as attention does that calls `float()`."""

    def __init__(self, found: torch.dtype, of_module: torch.dtype) -> None:
        names = [str(dtype).removeprefix("torch.") for dtype in (found, of_module)]
        super().__init__(f"it computes in {names[0]}, and the module is in {names[1]}")
        self.remedy = ""
        if names == ["float32", "float64"]:
            self.remedy = "translate the module in single precision, ub.from_torch(module.float(), x.astype('float32'))"


class Value(str):
    """The name of a value of the graph, apart from words among the arguments."""

    __slots__ = ()


@dataclass(frozen=True)
class Rows:
    """The numbers of the samples, along their own axis: who takes something at each of them takes it of each sample."""

    shape: tuple[Extent, ...]


@dataclass(frozen=True)
class Nothing:
    """A part of an axis without entries: who puts it beside others leaves it out."""

    shape: tuple[Extent, ...]


@dataclass(frozen=True)
class Places:
    """Where the maxima of a pool stand: known by what was pooled, and how."""

    of: Value
    settings: Mapping[str, Any]


class Call:
    """One operation of the program with its arguments by name: values of the graph, constants, numbers."""

    def __init__(self, builder: Builder, node: fx.Node, arguments: Mapping[str, Any]) -> None:
        self.builder, self.node, self.arguments = builder, node, arguments

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, where the operation has it."""
        return self.arguments.get(name, default)

    @property
    def name(self) -> str:
        """The operation's name, without its overload."""
        return operation_name(self.node)

    @property
    def meta(self) -> Any:
        """The tensor that comes out, without numbers; of several, the first."""
        found = self.node.meta["seen"]
        return found[0] if isinstance(found, list | tuple) else found

    def asked(self, place: int) -> bool:
        """Whether anybody takes the output at that place, of several."""
        return any(user.target is operator.getitem and user.args[1] == place for user in self.node.users)

    def shape(self, of: Any = None) -> tuple[Extent, ...]:
        """Extents of what comes out, or of a value or constant."""
        if of is None:
            return tuple(self.meta.shape)
        return tuple(of.shape) if isinstance(of, Tensor | Nothing) else self.builder.shapes[of]

    def ndim(self, of: Any) -> int:
        """How many axes a value or constant has."""
        return len(self.shape(of))

    def size(self, of: Any, axis: int) -> int:
        """An extent that does not depend on the number of samples.

        Raises:
            Unfit: it does.
        """
        found = self.shape(of)[axis]
        if isinstance(found, PerSample):
            raise Unfit("it counts along the samples")
        return found

    def axis(self, of: Any, axis: int) -> int:
        """An axis counted from 0."""
        return axis % max(self.ndim(of), 1)

    def axes(self, of: Any, axes: Any) -> tuple[int, ...]:
        """Axes counted from 0; all of them for None or none."""
        if axes is None or (isinstance(axes, Sequence) and not axes):
            return tuple(range(self.ndim(of)))
        listed = [axes] if isinstance(axes, int) else axes
        return tuple(self.axis(of, axis) for axis in listed)

    def value(self, of: Any) -> Value:
        """The name of a value; constants become buffers, numbers a value without axes."""
        return self.builder.value(of)

    def add(self, op: str, *inputs: Any, shape: Sequence[Extent] | None = None, **attributes: Any) -> Value:
        """A node; `shape` of what comes out, if it is not that of the whole operation."""
        names = [self.value(one) for one in inputs if one is not None]
        return self.builder.add(op, names, attributes, self.shape() if shape is None else tuple(shape), self.node)

    def reshape(self, of: Any, shape: Sequence[Extent] | None = None) -> Value:
        """The same numbers in C order, of the shape that comes out or of another."""
        wanted = self.shape() if shape is None else tuple(shape)
        if self.shape(of) == wanted:
            return self.value(of)
        return self.add("reshape", of, shape=wanted, **{"shape_": wanted})

    def fill(self, value: float, shape: Sequence[Extent] = ()) -> Value:
        """One number everywhere."""
        return self.add("fill", shape=shape, **{"shape_": tuple(shape)}, value=float(value))


class Builder:
    """Nodes, names of values and their extents, and constants that became buffers."""

    def __init__(self, dtype: torch.dtype, known: Mapping[int, str]) -> None:
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[Extent, ...]] = {}
        self.kinds: dict[Any, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.whole: set[str] = set()
        """Values that are small whole numbers in the graph's dtype, as counts and masks, whatever they are in torch."""
        self.spread: dict[str, Tensor] = {}
        """Constants that were repeated for every sample, by the name of what came out."""
        self._names = dict(known)
        self._tensors: list[Tensor] = []
        self._numbers: dict[float, Value] = {}

    def add(
        self, op: str, inputs: Sequence[Value], attributes: Mapping[str, Any], shape: tuple[Extent, ...], node: fx.Node
    ) -> Value:
        """A node after the others."""
        settings = {name.rstrip("_"): plain(value) for name, value in attributes.items()}
        name = Value(f"{op}#{len(self.nodes)}")
        self.nodes.append(Node(name, op, tuple(inputs), settings, module_path(node)))
        self.shapes[name] = shape
        return name

    def known(self, name: str, seen: Any) -> None:
        """Note shape and kind of a value."""
        self.shapes[name], self.kinds[name] = seen.shape, "float" if name in self.whole else seen.kind

    def value(self, of: Any) -> Value:
        """The name of a value; constants become buffers, numbers a value without axes.

        Raises:
            Unfit: it is neither of these.
        """
        if isinstance(of, Value):
            return of
        if isinstance(of, bool | int | float):
            number = float(of)
            if number not in self._numbers:
                name = Value(f"fill#{len(self.nodes)}")
                self.nodes.append(Node(name, "fill", (), {"shape": (), "value": number}))
                self.shapes[name] = ()
                self._numbers[number] = name
            return self._numbers[number]
        if isinstance(of, Tensor):
            return self._buffer(of)
        if isinstance(of, Nothing):
            raise Unfit("a part without entries is computed with")
        raise Unfit(f"an argument is {kind_of(of)}")

    def is_whole(self, of: Any) -> bool:
        """Whether an argument has only small whole numbers or truth values, as far as that is known."""
        if isinstance(of, Value):
            return of in self.whole or self.kinds.get(of, "float") != "float"
        if isinstance(of, Tensor):
            return not of.is_floating_point() or bool((of == of.round()).all())
        if isinstance(of, list | tuple):
            return all(map(self.is_whole, of))
        return not isinstance(of, float) or of.is_integer()

    def _buffer(self, tensor: Tensor) -> Value:
        """A constant under the name that it has in the module, or under a new one."""
        if id(tensor) not in self._names:
            if tensor.is_complex() or tensor.dtype == torch.uint8:
                raise Unfit(f"a constant of {tensor.dtype}")
            kind = (
                self.dtype if tensor.is_floating_point() else torch.bool if tensor.dtype == torch.bool else torch.int64
            )
            # A module that was made of a graph has constants of such names already.
            taken = set(self._names.values())
            numbers = (f"_constants.{number}" for number in count(len(self.constants)))
            name = next(name for name in numbers if name not in taken)
            self.constants[name] = tensor.detach().cpu().to(kind).numpy()
            self._names[id(tensor)] = name
            self._tensors.append(tensor)  # so that no other one gets its id
        name = self._names[id(tensor)]
        self.shapes[name] = tuple(tensor.shape)
        return Value(name)


def plain(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(plain(one) for one in value) if isinstance(value, list | tuple) else value


def operation_name(node: fx.Node) -> str:
    """The name of the operation that a node calls, without its overload."""
    target: Any = node.target
    return str(target.overloadpacket.__name__)


def module_path(node: fx.Node) -> str:
    """The path of the module that a node comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def source_line(node: fx.Node) -> str:
    """Where in the user's code an operation was called: the last line that is not torch's own."""
    lines = str(node.meta.get("stack_trace") or "").splitlines()
    frames = [index for index, line in enumerate(lines) if line.lstrip().startswith("File ")]
    torchs = ("/torch/", "<eval_with_key>")  # and what torch writes itself, of parts under no_grad or autocast
    own = [index for index in frames if not any(part in lines[index] for part in torchs)] or frames
    if not own:
        return ""
    code = lines[own[-1] + 1].strip() if own[-1] + 1 < len(lines) else ""
    return f"{lines[own[-1]].strip().removesuffix(', in forward')}: {code}"


def refused(node: fx.Node, operation: str, reason: str | Unfit) -> ConversionError:
    """The error of an operation that does not cross."""
    path, line = module_path(node) or "the module itself", source_line(node)
    first = reason.remedy if isinstance(reason, OtherDtype) and reason.remedy else "rewrite that line"
    return ConversionError(
        f"{operation} in {path} has no translation: {reason}" + (f" ({line})" if line else ""),
        allowed="the operations in docs/pages/operations.md, on shapes that do not depend on data",
        remedy=f"{first}, or use ub.ntk(module, x, backend='torch'), which takes any module",
    )
