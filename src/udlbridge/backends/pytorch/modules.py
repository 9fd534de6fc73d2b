"""Any PyTorch module as a network, without translation: evaluated on private copies, checked before it is believed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends import sites as described
from udlbridge.backends.pytorch.checks import check_inference
from udlbridge.backends.pytorch.copies import private_copy, tensors_inside
from udlbridge.backends.pytorch.gathering import Observed
from udlbridge.backends.pytorch.layouts import FEW, MORE, agree
from udlbridge.backends.pytorch.module_inputs import (
    Dtypes,
    Inputs,
    arguments,
    packed,
    takes_numbers,
    unpacked,
)
from udlbridge.backends.pytorch.structured import (
    Recipe,
    alike,
    description,
    observed,
    recipe,
    varying_places,
)
from udlbridge.backends.pytorch.tracing import Trace, traced
from udlbridge.backends.pytorch.watching import OutsideTableError, Watching, undisturbed
from udlbridge.errors import ConversionError, DTypeError, InputError, ShapeError, UDLBridgeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.selection import Selection, selected_names

Params = Mapping[str, Tensor]
Choice = str | int | Callable[[Any], Any] | None
"""Which of several outputs counts: a key or attribute, a position, or a function of what forward returns."""


class ModuleNetwork(ForeignNetwork):
    """A `torch.nn.Module` with the face of a `Model`: the parameters that require a gradient, shared ones once.

    The module itself is neither moved nor changed. It is looked at when samples come: which shapes it takes and gives
    shows on them.

    Args:
        module: in inference mode, or such that its mode makes no difference.
        output: which of its outputs counts, where it gives several.

    Raises:
        ConversionError: parameters without numbers, none to train, BatchNorm or Dropout in training mode.
    """

    engine = "torch"

    def __init__(self, module: nn.Module, output: Choice = None) -> None:
        self.module = _unwrapped(module)
        self._output = output
        check_inference(self.module)
        _check_values(self.module)
        every = dict(self.module.named_parameters(remove_duplicate=False))
        first = {id(value): name for name, value in reversed(every.items())}
        self._aliases = {name: first[id(value)] for name, value in every.items()}
        self._parameters = {name: value for name, value in every.items() if self._aliases[name] == name}
        self.trainable = tuple(name for name, value in self._parameters.items() if value.requires_grad)
        if not self.trainable:
            raise ConversionError(
                "the module has no trainable parameters", allowed="at least one", remedy="call requires_grad_(True)"
            )
        every_value = (*self._parameters.values(), *self.module.buffers())
        floats = [value.dtype for value in every_value if value.is_floating_point()]
        self.dtypes = Dtypes(frozenset(floats))
        others = {id(value): value for value in tensors_inside(self.module)}
        self._state = [value for value in others.values() if not isinstance(value, nn.Parameter)]
        self._frozen: dict[str, dict[int, Tensor]] = {}
        self._generators: dict[int, Any] = {}
        self._recipes: dict[tuple[str, ...], Recipe] = {}
        self._sites: dict[tuple[str, ...], list[described.Site]] = {}
        self._examples: np.ndarray | None = None
        self._outputs = 0

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of kernels: that of the parameters, of half precision float32."""
        return np.dtype(str(self.dtypes.kernel).removeprefix("torch."))

    @cached_property
    def params(self) -> Mapping[str, np.ndarray]:
        """Copies of the trainable parameters, by name."""
        values = {name: self._parameters[name].detach().cpu() for name in self.trainable}
        return MappingProxyType({name: value.to(self.dtypes.kernel).numpy().copy() for name, value in values.items()})

    @property
    def n_outputs(self) -> int:
        """O, as far as samples have come."""
        return self._outputs

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every trainable parameter by name."""
        return {name: tuple(self._parameters[name].shape) for name in self.trainable}

    @property
    def takes_tokens(self) -> bool:
        """Whether there are no derivatives by the samples, as far as they are known."""
        return self._examples is not None and not takes_numbers(self._examples)

    def hash(self) -> str:
        """SHA-256 of the names of the classes inside, and of all parameters and buffers."""
        digest = hashlib.sha256()
        for path, part in self.module.named_modules():
            digest.update(f"{path}:{type(part).__qualname__};".encode())
        values = [*self.module.named_parameters(), *self.module.named_buffers()]
        for name, value in values:
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def astype(self, dtype: str) -> ModuleNetwork:
        """Of a copy of the module."""
        wanted = torch.float64 if dtype == "float64" else torch.float32
        return ModuleNetwork(copy.deepcopy(self.module).to(wanted), self._output)

    def selected(self, params: Selection) -> tuple[str, ...]:
        """The names that `params` means; a shared parameter has several, of which the first stands for it.

        "readout" is the last module with parameters of its own, "hidden" are all others.
        """
        names = [name for name, own in self._aliases.items() if own in self.trainable]
        owner = self.trainable[-1].rpartition(".")[0]
        readout = [name for name in self.trainable if name.rpartition(".")[0] == owner]
        words = {"readout": readout, "hidden": [name for name in self.trainable if name not in readout]}
        found = {self._aliases[name] for name in selected_names(names, params, words)}
        return tuple(name for name in self.trainable if name in found)

    @undisturbed()
    def checked_batch(self, x: Any, name: str) -> np.ndarray:
        """The samples as an array, with a field for each of several inputs; the first ones are evaluated, and checked.

        Raises:
            InputError, ShapeError, DTypeError: what is wrong with them.
            ConversionError: outputs that are random, depend on other samples, or are no tensor of real numbers.
        """
        batch = packed(x, name, self.dtypes)
        if self._examples is not None:
            _check_same(batch, self._examples, name)
        places = sorted({0, len(batch) // 2, len(batch) - 1})
        self._check_evaluation(batch, places, name)
        if self._examples is None:
            self._examples = batch[(places * MORE)[:MORE]]
        return batch

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O,), for samples like those that have come."""
        return (self._outputs,)

    def random_batch(self, shape: tuple[int, ...], n: int) -> np.ndarray:
        """Random samples: drawn from those that came, or numbers, or where it takes none, the token 0."""
        generator = np.random.default_rng(0)
        if self._examples is not None:
            return self._examples[generator.integers(0, len(self._examples), size=n)]
        numbers = generator.standard_normal((n, *shape)).astype(self.dtype)
        try:
            return self.checked_batch(numbers, "x")
        except InputError:
            return self.checked_batch(np.zeros((n, *shape), dtype=np.int64), "x")

    def tensors(self, device: str) -> dict[str, Tensor]:
        """The trainable parameters as tensors of their own, on a device."""
        return {name: _own(self._parameters[name], device) for name in self.trainable}

    @undisturbed()
    def inputs(self, x: np.ndarray, device: str) -> Inputs:
        """The samples as tensors, by name."""
        return unpacked(x, self.dtypes, device)

    def evaluate(self, params: Params, inputs: Inputs, *, tables: bool = False) -> tuple[Tensor, Watching]:
        """Outputs (n, O), with the axes behind the first in C order, of a copy of the module with these parameters.

        `tables`: note which inputs are looked up in which tables.
        """
        device = next(iter(params.values())).device
        stand_ins = {id(self._parameters[name]): value for name, value in params.items()}
        stand_ins |= self._frozen_values(str(device))
        # Buffers and the like are copied: a module that overwrites its own starts from the same ones each time.
        state = {id(value): _own(value, device) for value in self._state}
        copied = private_copy(self.module, stand_ins | state, self._generators)
        watched = {value.data_ptr(): field for field, value in inputs.items()} if tables else {}
        watching = Watching(stand_ins, [*stand_ins.values(), *state.values()], watched)
        args, words = arguments(inputs)
        with undisturbed(), watching:
            y = copied(*args, **words)
        n = len(next(iter(inputs.values())))
        return self._tensor(y, n), watching

    def _frozen_values(self, device: str) -> dict[int, Tensor]:
        """Parameters that are not trained, by the `id` of the caller's."""
        if device not in self._frozen:
            rest = (value for name, value in self._parameters.items() if name not in self.trainable)
            self._frozen[device] = {id(value): _own(value, device) for value in rest}
        return self._frozen[device]

    def trace(
        self, params: Params, inputs: Inputs, names: tuple[str, ...], varying: frozenset[int] = frozenset()
    ) -> tuple[Tensor, Trace]:
        """Outputs, and where the parameters `names` enter; only they are followed."""
        with undisturbed():
            counted = {
                name: value.detach().requires_grad_() if name in names else value for name, value in params.items()
            }
            y, watching = self.evaluate(counted, inputs)
            return y, traced(y, {name: counted[name] for name in names}, watching.constant, varying)

    @undisturbed()
    def recipe(self, names: tuple[str, ...], params: Params, device: str) -> Recipe:
        """How the parameters `names` enter, found on the first samples that came.

        Raises:
            ConversionError: the outputs do not depend on them.
        """
        if names not in self._recipes:
            assert self._examples is not None
            more, few = (self.inputs(self._examples[:count], device) for count in (MORE, FEW))
            varying: frozenset[int] = frozenset()
            y, large = self.trace(params, more, names)
            _, small = self.trace(params, few, names)
            if found := varying_places(small, large):
                varying = found
                y, large = self.trace(params, more, names, varying)
                _, small = self.trace(params, few, names, varying)
            if not large.entries:
                raise ConversionError(
                    f"the outputs of {self.name} do not depend on {_listed(names)}",
                    allowed="outputs that autograd can follow to the parameters of the kernel",
                    remedy="look for torch.no_grad() and .detach() in forward, or choose other params",
                )
            self._recipes[names] = recipe(small, large, y, names, varying)
            if alike(small, large):
                self._sites[names] = self._described(names, params, more)
            else:
                self._sites[names] = []
        return self._recipes[names]

    @undisturbed()
    def observed(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Observed:
        """One evaluation of a batch with the sites of `names`."""
        n = len(next(iter(inputs.values())))
        # Torch computes some things in another way for a single sample: it comes with a companion that does not count.
        batch = inputs if n > 1 else {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
        plan = self._recipes[names]
        with undisturbed():
            counted = {
                name: value.detach().requires_grad_() if name in names else value for name, value in params.items()
            }
            y, watching = self.evaluate(counted, batch)
            trace = traced(y, {name: counted[name] for name in names}, watching.constant, plan.varying)
            return observed(trace, plan, y[:n], counted, self.dtypes.kernel)

    def described_sites(self, names: tuple[str, ...]) -> list[described.Site]:
        """What its sites cost."""
        params = self.tensors("cpu") if names not in self._recipes else {}
        plan = self.recipe(names, params, "cpu") if params else self._recipes[names]
        shapes = self.param_shapes()
        rest = sum(int(np.prod(shapes[name])) for name in plan.alone)
        return [*self._sites[names], *([described.Elementwise(rest)] if rest else [])]

    def activation_numbers(self, names: tuple[str, ...]) -> int:
        """Numbers that one sample's forward pass holds for the way back."""
        self.described_sites(names)
        return self._recipes[names].numbers

    def _described(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> list[described.Site]:
        seen = self.observed(names, params, inputs)
        deltas = seen.deltas([None] * len(seen.points))
        shapes = self.param_shapes()
        sizes = {name: int(np.prod(shapes[name])) for name in names}
        return [description(site, delta, sizes) for site, delta in zip(seen.sites, deltas, strict=True)]

    def _check_evaluation(self, batch: np.ndarray, places: Sequence[int], name: str) -> None:
        """Evaluate some samples together, again, and each alone: the outputs have to be the same."""
        params = self.tensors("cpu")
        some = batch[list(places) if len(places) > 1 else [0, 0]]
        y, watching = self._tried(params, some, batch, name)
        again, _ = self._tried(params, some, batch, name)
        if watching.draws or not agree(y, again):
            reason = f" ({watching.draws[0]})" if watching.draws else ": two evaluations differ"
            raise ConversionError(
                f"{self.name} draws random numbers{reason}, so its outputs are random",
                allowed="networks in inference mode",
                remedy="call module.eval() first, and give functional.dropout training=self.training",
            )
        for position, place in enumerate(places):
            try:
                alone, _ = self._tried(params, batch[[place]], batch, name)
                same = agree(alone[0], y[position])
            except UDLBridgeError as error:
                raise self._mixed(place, f"by itself it fails: {error.given}") from error
            if not same:
                gap = (alone[0] - y[position]).abs().max().item()
                raise self._mixed(place, f"its outputs differ by {gap:.3g} from those that it has by itself")
        self._outputs = y.shape[1]

    def _mixed(self, place: int, reason: str) -> ConversionError:
        return ConversionError(
            f"sample {place} depends on the other samples of its batch in {self.name}: {reason}",
            allowed="networks that take each sample by itself",
            remedy="look for means, sums or a softmax over the first axis, statistics of the batch, and layers that "
            "expect the samples along another axis, as batch_first=False",
        )

    def _tried(self, params: Params, some: np.ndarray, batch: np.ndarray, name: str) -> tuple[Tensor, Watching]:
        """Outputs, where whatever the module may raise says which input it does not take."""
        try:
            y, watching = self.evaluate(params, self.inputs(some, "cpu"), tables=True)
            for field, rows in watching.tables.items():
                part = batch if field == "" else batch[field]
                outside = part[(part < 0) | (part >= rows)]
                if outside.size:
                    raise OutsideTableError(int(outside[0]), rows)
        except UDLBridgeError:
            raise
        except OutsideTableError as error:
            raise _token_error(error, batch, name) from error
        except Exception as error:  # the module is the caller's: it may raise anything
            raise InputError(
                f"{self.name} cannot take samples of shape {_shapes(some)} ({type(error).__name__}: {error})",
                allowed=f"samples {name} that module({name}[:1]) takes",
                remedy=f"correct {name}",
            ) from error
        return y, watching

    def _tensor(self, y: Any, n: int) -> Tensor:
        """The outputs (n, O) among what forward returned."""
        y = _chosen(y, self._output, self.name)
        if not isinstance(y, Tensor):
            keys = f", with {', '.join(map(repr, y))}" if isinstance(y, Mapping) else ""
            raise ConversionError(
                f"{self.name} gives a {type(y).__name__}{keys}",
                allowed="one tensor (n, O)",
                remedy="say which of its outputs counts, as ub.as_network(module, output='logits') or output=0, or "
                "wrap it in a module whose forward returns the tensor, as y['logits'] or y[0]",
            )
        if y.ndim == 0 or len(y) != n:
            raise ShapeError(
                f"{self.name} gives a tensor of shape {tuple(y.shape)} for {n} sample{'s' * (n > 1)}",
                allowed=f"({n}, *outputs): samples along the first axis",
                remedy="keep that axis in the module's forward",
            )
        if not y.is_floating_point():
            raise DTypeError(
                f"{self.name} gives outputs of dtype {str(y.dtype).removeprefix('torch.')}",
                allowed="real numbers that depend on the parameters",
                remedy="return the logits",
            )
        return y.reshape(n, -1)


def _own(value: Tensor, device: str | torch.device) -> Tensor:
    """The same numbers, not those of the caller's, and normal ones: some were made in inference mode."""
    with torch.inference_mode(False):
        return value.detach().to(device, copy=True)


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside what compiles or distributes it."""
    inner = getattr(module, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return _unwrapped(inner)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(module.module)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ConversionError(
            "a scripted module, into which nothing can look",
            allowed="modules that run in Python",
            remedy="give the module that was scripted",
        )
    return module


def _check_values(module: nn.Module) -> None:
    """Refuse parameters and buffers without real numbers.

    Raises:
        ConversionError: naming the first.
    """
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(value, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise ConversionError(
                f"{name} has no shape yet", allowed="a module that has seen data", remedy="call module(x) once"
            )
        if value.is_meta:
            raise ConversionError(
                f"{name} is on the meta device, where there are no numbers",
                allowed="weights on a real device",
                remedy="load them first: module.load_state_dict(state, assign=True)",
            )
        if value.is_complex() and value.requires_grad:
            raise ConversionError(
                f"{name} has complex numbers", allowed="real parameters", remedy="keep real and imaginary part apart"
            )


def _check_same(batch: np.ndarray, other: np.ndarray, name: str) -> None:
    if (batch.dtype, batch.shape[1:]) != (other.dtype, other.shape[1:]):
        raise ShapeError(
            f"the samples of {name} have shape {_shapes(batch)}, those of x {_shapes(other)}",
            allowed="the same shape",
            remedy="prepare both in the same way",
        )


def _shapes(batch: np.ndarray) -> str:
    if batch.dtype.names is None:
        return str(batch.shape[1:])
    return str({field: batch.dtype[field].shape for field in batch.dtype.names})


def _chosen(y: Any, output: Choice, name: str) -> Any:
    """Which part of what forward returned was asked for."""
    if output is None:
        return y
    if callable(output):
        return output(y)
    try:
        if isinstance(output, str) and not isinstance(y, Mapping):
            return getattr(y, output)
        return y[output]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        known = list(y) if isinstance(y, Mapping) else list(vars(y)) if hasattr(y, "__dict__") else []
        raise ConversionError(
            f"output={output!r} of a {type(y).__name__}, which {name} gives",
            allowed=", ".join(map(repr, known)) or "a position, or a function of what forward returns",
            remedy="correct output",
        ) from error


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f"the parameters in params: {shown}" + (", ..." if len(names) > 3 else "")


def _token_error(error: OutsideTableError, batch: np.ndarray, name: str) -> InputError:
    parts = {"": batch} if batch.dtype.names is None else {field: batch[field] for field in batch.dtype.names}
    for field, part in parts.items():
        found: Any = np.argwhere(part == error.token) if part.dtype.kind in "iu" else []
        if len(found):
            place = tuple(int(i) for i in found[0])
            where = f"{name}{f'[{field!r}]' if field else ''}"
            return InputError(
                f"{where} is {error.token} at {place}, in sample {place[0]}",
                allowed=f"tokens from 0 to {error.rows - 1}",
                remedy="check the tokeniser",
            )
    return InputError(
        f"a token {error.token}, made from {name}, for a table of {error.rows} rows",
        allowed=f"tokens from 0 to {error.rows - 1}",
        remedy="check the tokeniser",
    )


@described.sites.register
def _sites(model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None) -> list[Any]:
    return model.described_sites(model.trainable if params is None else tuple(params))


@described.activation_numbers.register
def _activation_numbers(
    model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None
) -> int:
    return model.activation_numbers(model.trainable if params is None else tuple(params))
